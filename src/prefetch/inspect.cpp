// The commands that only look: plan (asks servers what is not known) and status (asks nobody).
// They share prefetch's way of finding out what is there, and write nothing.
#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/posix.h"
#include "base/try.h"
#include "cache/hf_store.h"
#include "cache/layout.h"
#include "cache/lock.h"
#include "cache/partials.h"
#include "cache/url_store.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/ask_size.h"
#include "prefetch/extra.h"
#include "prefetch/lookup.h"
#include "prefetch/pin.h"
#include "prefetch/session.h"
#include "source/resolve.h"

namespace fvprefetch {

namespace {

/// May a server be asked?
enum class Asking { kAllowed, kForbidden };

std::string digest_rule(const Source& source, const FileSpec& file, bool present) {
  if (const auto* url = std::get_if<UrlSource>(&source)) {
    return url->is_archive() && present ? "receipt" : url->digest_rule;
  }
  const auto* hub = std::get_if<HubSource>(&source);
  if (hub != nullptr && !hub->files.empty()) return "manifest";
  return file.digest ? "hub" : "none";
}

/// Where a file of the entry would come from.
std::string address(const Source& source, Session& session, const Survey& survey,
                    const FileSpec& file) {
  if (const auto* url = std::get_if<UrlSource>(&source)) return redact(url->file.urls.front());
  const auto* hub = std::get_if<HubSource>(&source);
  if (hub == nullptr) return file.path;
  const Result<hub::Client*> client = session.hub();
  return client ? redact((*client)->resolve_url(hub->repo, survey.commit, file.path)) : "";
}

/// As largest_partial(), for many targets in few directories, each of which is listed once.
class Partials {
 public:
  [[nodiscard]] std::uint64_t largest(const std::string& directory, const std::string& target) {
    const auto [known, is_new] = names_.try_emplace(directory);
    if (is_new) {
      const auto names =
          posix::list(directory);  // only for people: what cannot be seen is not told
      const auto is_partial = [](const std::string& name) {
        return !layout::partial_tag(name).empty() || name.ends_with(".incomplete");
      };
      if (names)
        std::copy_if(names->begin(), names->end(), std::back_inserter(known->second), is_partial);
    }
    const bool any = std::any_of(
        known->second.begin(), known->second.end(),
        [&target](const std::string& name) { return layout::is_partial_of(name, target); });
    return any ? largest_partial(directory, target) : 0;
  }

 private:
  std::map<std::string, std::vector<std::string>> names_;  ///< by directory
};

/// Who is fetching a file, and how much of it lies there unfinished.
struct Unfinished {
  std::uint64_t bytes = 0;
  std::string holder;
};

Unfinished unfinished(const Source& source, const Session& session, const std::string& commit,
                      const FileSpec& file, Partials& partials) {
  Unfinished found;
  std::string lock;
  std::string destination;
  if (const auto* url = std::get_if<UrlSource>(&source)) {
    const UrlStore store(url->root, url->relative);
    const layout::UrlFile& paths = store.paths();
    found.bytes =
        partials.largest(paths.directory(), paths.path().substr(paths.directory().size() + 1));
    lock = destination = store.paths().lock();
  } else if (const auto* hub = std::get_if<HubSource>(&source)) {
    const HubStore store = session.store(hub->repo);
    found.bytes = partials.largest(store.paths().blobs(), file.blob);
    lock = store.paths().lock(file.blob);
    destination = store.paths().snapshot_lock(commit);
  }
  if (lock.empty()) return found;
  // The lease says more, and what it says is true of other nodes, too.
  auto holder = known_lease_holder(destination);
  if (!holder) holder = known_holder(lock);
  found.holder = holder.value_or("");
  return found;
}

/// What is known of the entry, asked for where that is allowed.
Result<Survey> survey_of(const Source& source, Session& session, Asking asking) {
  FVP_TRY(Survey survey, look(source, session, Hashing::kForbidden));
  const auto* hub = std::get_if<HubSource>(&source);
  if (hub == nullptr || !survey.unlisted()) return survey;
  if (asking == Asking::kForbidden || session.offline()) {
    // "Missing" is an answer here, not a failure.
    const Result<Survey> there = look_offline(*hub, session, survey, Hashing::kForbidden);
    return there ? *there : survey;
  }
  return ask_hub(source, survey, session, Hashing::kForbidden);
}

/// Something of a snapshot is there, whatever it is worth.
bool has_some(const Source& source, const Session& session, const Survey& survey) {
  const auto* hub = std::get_if<HubSource>(&source);
  if (hub == nullptr || !hub->filename.empty() || survey.commit.empty()) return false;
  const auto found = session.store(hub->repo).list_snapshot(survey.commit);
  return found && !found->empty();
}

std::string state_of(const Source& source, const Session& session, const Survey& survey,
                     const PlannedEntry& entry) {
  if (!entry.holder.empty()) return "being_fetched";
  // Of a snapshot that nothing on disk lists there may be more.
  const bool unlisted = survey.verified_by == "unverified" || survey.need == Survey::Need::kTree;
  if (unlisted && has_some(source, session, survey)) return "partial";
  if (survey.need == Survey::Need::kNothing) return "complete";
  const bool some =
      survey.need == Survey::Need::kFiles && survey.missing.size() < survey.files.size();
  return some || entry.bytes_partial > 0 ? "partial" : "missing";
}

PlannedEntry inspect(const Entry& manifest_entry, Session& session, Asking asking,
                     const ExtraCaches& extras, Partials& partials) {
  PlannedEntry entry;
  entry.name = manifest_entry.name;
  entry.source = without_secrets(manifest_entry.source);
  entry.state = "failed";
  const auto extra = extras.find(manifest_entry, Hashing::kForbidden, session.offline());
  const Result<Source> source =
      extra ? extra->source : resolve(manifest_entry, session.env(), session.eval_cache());
  if (!source) {
    entry.error = source.error();
    return entry;
  }
  entry.kind = kind_of(*source);
  const Result<Survey> survey = extra ? extra->survey : survey_of(*source, session, asking);
  if (!survey) {
    entry.error = survey.error();
    return entry;
  }
  entry.path = survey->path;
  entry.commit = survey->commit;
  std::vector<bool> missing(survey->files.size(), false);
  for (const std::size_t i : survey->missing) missing[i] = true;
  for (std::size_t i = 0; i < survey->files.size(); ++i) {
    const FileSpec& file = survey->files[i];
    PlannedFile planned;
    planned.path = file.path;
    planned.size = file.size;
    planned.present = !missing[i];
    planned.digest_rule = digest_rule(*source, file, planned.present);
    if (asking == Asking::kAllowed) planned.url = address(*source, session, *survey, file);
    if (!planned.present) {
      const Unfinished part = unfinished(*source, session, survey->commit, file, partials);
      entry.bytes_partial += part.bytes;
      if (entry.holder.empty()) entry.holder = part.holder;
      if (!planned.size && asking == Asking::kAllowed && !session.offline()) {
        const auto size = ask_size(session, file.urls.front());
        if (size) {
          planned.size = *size;
        } else if (file.urls.size() == 1) {  // else a mirror may have it
          entry.error = size.error();
        }
      }
    }
    entry.files.push_back(std::move(planned));
  }
  entry.state = entry.error ? "failed" : state_of(*source, session, *survey, entry);
  return entry;
}

Plan inspect_all(const Manifest& manifest, const Options& options, Asking asking) {
  Result<Plan> plan = guard([&]() -> Result<Plan> {
    Options asked = options;
    if (asking == Asking::kForbidden) asked.refresh = false;  // what is there is all there is
    Session session(asked, {});
    FVP_CHECK_OK(session.usable());
    FVP_CHECK_OK(check_frozen(manifest, session));
    const ExtraCaches extras(asked);
    Partials partials;
    Plan made;
    std::vector<Entry> entries;
    std::vector<Source> sources;
    for (const Entry& entry : manifest.entries) {
      made.entries.push_back(inspect(entry, session, asking, extras, partials));
      Result<Source> source = resolve(entry, session.env(), session.eval_cache());
      if (source) {
        entries.push_back(entry);
        sources.push_back(*std::move(source));
      }
      const std::optional<Error>& error = made.entries.back().error;
      if (error && !entry.optional && !made.error) {
        made.error = with_context(*error, "entry `" + entry.name + "`");
      }
    }
    if (const Status apart = check_destinations(entries, sources); !apart) {
      made.error = apart.error();
    }
    return made;
  });
  if (plan) return *std::move(plan);
  Plan failed;
  failed.error = plan.error();
  return failed;
}

}  // namespace

Plan plan(const Manifest& manifest, const Options& options) {
  return inspect_all(manifest, options, Asking::kAllowed);
}

Plan status(const Manifest& manifest, const Options& options) {
  return inspect_all(manifest, options, Asking::kForbidden);
}

}  // namespace fvprefetch
