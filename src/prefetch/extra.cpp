#include "prefetch/extra.h"

#include <utility>

#include "base/environment.h"
#include "base/posix.h"

namespace fvprefetch {

ExtraCaches::ExtraCaches(const Options& options) : observer_(options.observer) {
  if (options.refresh) return;
  for (const std::string& directory : options.extra_caches) {
    auto cache = std::make_unique<Cache>();
    // As a stage directory is laid out, or one cache for everything.
    const bool staged = posix::exists(directory + "/hub") || posix::exists(directory + "/eval");
    cache->options.hf_cache_dir = staged ? directory + "/hub" : directory;
    cache->options.cache_dir = staged ? directory + "/eval" : directory;
    cache->options.offline = true;
    cache->options.verify_foreign = options.verify_foreign;
    cache->options.stop = options.stop;
    cache->options.stop_signal = options.stop_signal;
    // Torch's files lie in that cache, wherever those of our own do.
    cache->options.environment =
        environment::with(environment::or_process(options.environment), "TORCH_HOME", std::nullopt);
    cache->session = std::make_unique<Session>(cache->options, Seams{});
    caches_.push_back(std::move(cache));
  }
}

std::optional<ExtraCaches::Found> ExtraCaches::find(const Entry& entry, Hashing hashing,
                                                    bool offline) const {
  for (const auto& cache : caches_) {
    const Session& session = *cache->session;
    auto source = resolve(entry, session.env(), session.eval_cache());
    if (!source || std::holds_alternative<PathSource>(*source)) continue;
    auto survey = look(*source, session, hashing);
    const auto* hub = std::get_if<HubSource>(&*source);
    if (survey && hub != nullptr && survey->unlisted() && offline) {
      survey = look_offline(*hub, session, *survey, hashing);
    }
    if (!survey || survey->need != Survey::Need::kNothing || survey->unchecked) {
      tell_useless(entry, survey);
      continue;
    }
    survey->wants_receipt = false;
    survey->ref_inexact = false;
    return Found{*std::move(source), *std::move(survey), &session};
  }
  return std::nullopt;
}

// What is simply not there is no news.
void ExtraCaches::tell_useless(const Entry& entry, const Result<Survey>& survey) const {
  if (observer_ == nullptr) return;
  if (survey) {
    for (const std::string& why : survey->warnings) {
      observer_->on_event(Warned{entry.name, "an extra cache is of no use: " + why});
    }
  } else if (survey.error().code == ErrorCode::kPermission ||
             survey.error().code == ErrorCode::kUsage) {
    observer_->on_event(
        Warned{entry.name, "an extra cache is of no use: " + describe(survey.error())});
  }
}

}  // namespace fvprefetch
