#include "prefetch/session.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/posix.h"
#include "base/try.h"
#include "transfer/curl_transport.h"
#include "transfer/fetcher.h"
#include "transfer/rate_limit.h"
#include "transfer/redirect.h"

namespace fvprefetch {

namespace {

Clock::TimePoint deadline_of(const Options& options, Clock::TimePoint begin) {
  return options.deadline ? begin + *options.deadline : Clock::TimePoint::max();
}

/// Tells a model from a dataset of the same name.
std::string id_of(const hub::Repo& repo) {
  return std::string(type_name(repo.type)) + "/" + repo.id;
}

}  // namespace

std::optional<Error> why_stop(const Options& options, Clock::TimePoint begin,
                              Clock::TimePoint now) {
  if (options.stop.stop_requested()) {
    return interrupted(options.stop_signal ? options.stop_signal() : SIGTERM);
  }
  if (now < deadline_of(options, begin)) return std::nullopt;
  Error error;
  error.code = ErrorCode::kNetwork;
  error.message = "the deadline of " + std::to_string(options.deadline->count() / 1000) +
                  " s passed before everything was there";
  error.hint = "run it again: what is complete stays; or raise --deadline";
  return error;
}

std::string_view type_name(hub::RepoType type) {
  switch (type) {
    case hub::RepoType::kModel:
      return "model";
    case hub::RepoType::kDataset:
      return "dataset";
    case hub::RepoType::kSpace:
      return "space";
  }
  return "model";
}

Budget budget_for(const Options& options, std::size_t descriptors) {
  // Its partial, journal and digest, its locks, the lock of one that waits, a folder that is
  // synced, and a connection.
  constexpr std::size_t kEach = 10;
  // Of the others, for an instant: lists, receipts, records of holders, certificates, name service.
  constexpr std::size_t kApart = 16;
  const auto positive = [](int number) { return static_cast<std::size_t>(std::max(1, number)); };
  const std::size_t most = positive(options.max_active);
  const std::size_t connections = positive(options.connections);
  const std::size_t free = descriptors - std::min(descriptors, kApart);
  Budget budget;
  budget.files = std::clamp<std::size_t>(free / kEach, 1, most);
  const std::size_t sockets =
      std::max<std::size_t>(1, free - std::min(free, budget.files * (kEach - 1)));
  budget.connections =
      static_cast<int>(std::clamp<std::size_t>(sockets / budget.files, 1, connections));
  // Idle connections count as well, and go when there are too many.
  constexpr std::size_t kIdle = 4;  // for each that is in use, as libcurl keeps them
  if (sockets < kIdle * most * connections) budget.sockets = sockets;
  return budget;
}

Session::Session(const Options& options, const Seams& seams, std::optional<Rejected> rejected)
    : options_(options),
      env_(environment::or_process(options.environment)),
      eval_cache_(environment::eval_cache(env_, options.cache_dir)),
      hub_cache_(environment::hub_cache(env_, options.hf_cache_dir)),
      offline_(options.offline || environment::hub_offline(env_)),
      clock_(seams.clock != nullptr ? *seams.clock : real_clock()),
      begin_(clock_.now()),
      deadline_(deadline_of(options, begin_)),
      random_(std::random_device{}()),
      rejected_(std::move(rejected)),
      make_transport_(seams.make_transport) {
  if (Result<environment::HubTimeouts> timeouts = environment::hub_timeouts(env_)) {
    timeouts_ = *timeouts;
  } else {
    usable_ = tl::unexpected(timeouts.error());
  }
  if (!make_transport_) {
    make_transport_ = [this] {
      CurlOptions curl;
      curl.trust = environment::trust_store(env_);
      constexpr std::chrono::seconds kConnect(10);  // as the real client has it
      curl.connect_timeout = timeouts_.answer.value_or(kConnect);
      curl.http_proxy = environment::http_proxy_in_capitals(env_);
      curl.may_use_proxy = environment::has_proxy(env_);
      curl.limit_rate = options_.limit_rate;
      curl.most_sockets = budget().sockets;
      curl.user_agent = "fvprefetch/" FVPREFETCH_VERSION;
      return make_curl_transport(std::move(curl));
    };
  }
}

Holder Session::holder() const {
  return {posix::host_name(),        static_cast<std::int64_t>(::getpid()),
          environment::job_id(env_), rfc3339_now(),
          environment::user(env_),   environment::job_step(env_)};
}

Locks& Session::locks() {
  if (!locks_) {
    locks_ =
        std::make_unique<Locks>(options_, env_, holder(), clock_, in_real_time(), budget().files);
  }
  return *locks_;
}

void Session::emit(const Event& event) const {
  if (options_.observer != nullptr) options_.observer->on_event(event);
}

std::optional<Error> Session::must_stop() const {
  return why_stop(options_, begin_, clock_.now());
}

Transport& Session::transport() {
  if (!transport_) {
    wire_ = make_transport_();
    obedient_ = obey_rate_limits(*wire_, clock_, deadline_, random_);
    transport_ = follow_redirects(*obedient_);
  }
  return *transport_;
}

const Budget& Session::budget() {
  if (!budget_) budget_ = budget_for(options_, posix::free_descriptors());
  return *budget_;
}

EngineOptions Session::engine_options() {
  EngineOptions engine;
  constexpr std::chrono::milliseconds kStall(60'000);
  engine.stall_timeout = kStall;
  if (timeouts_.body) engine.stall_timeout = *timeouts_.body;
  if (options_.stall_timeout) engine.stall_timeout = *options_.stall_timeout;
  engine.retries = options_.retries;
  engine.connections = budget().connections;
  engine.deadline = deadline_;
  return engine;
}

Fetcher& Session::fetcher() {
  if (!fetcher_) fetcher_ = new_fetcher(transport(), options_.retries);
  return *fetcher_;
}

Fetcher& Session::hops() {
  if (!hops_) {
    (void)transport();  // makes what it stands on
    hops_ = new_fetcher(*obedient_, options_.retries);
  }
  return *hops_;
}

std::unique_ptr<Fetcher> Session::new_fetcher(Transport& transport, int retries) {
  EngineOptions patience = engine_options();
  patience.retries = retries;
  if (timeouts_.answer) patience.stall_timeout = *timeouts_.answer;
  const auto on_wait = [this](const std::string& why, std::chrono::milliseconds delay) {
    constexpr std::chrono::seconds kWorthALine(5);
    if (delay < kWorthALine) return emit(FileRetried{"", "", why, delay, {}});
    emit(Warned{"", why + "; asking again in " + std::to_string(delay.count() / 1000) + " s"});
  };
  const auto on_slow = [this](const std::string& address, std::chrono::milliseconds waited) {
    emit(Waiting{"the answer of " + address, waited});
  };
  return make_fetcher(transport, clock_, patience, random_, options_.stop, options_.stop_signal,
                      on_wait, on_slow);
}

HubStore Session::store(const hub::Repo& repo) const {
  return {hub_cache_, type_name(repo.type), repo.id,
          environment::hub_without_links(env_) ? Links::kNone : Links::kSymbolic};
}

Result<hub::Client*> Session::hub() {
  if (!hub_) {
    const std::string endpoint = environment::hub_endpoint(env_);
    if (!parse_url(endpoint)) {
      return fail(ErrorCode::kUsage, "HF_ENDPOINT is not an http(s) address",
                  "write it as https://huggingface.co, with its scheme");
    }
    FVP_TRY(Secret token, environment::hub_token(env_));
    brief_fetcher_ = new_fetcher(transport(), 0);
    brief_hub_ = std::make_unique<hub::Client>(*brief_fetcher_, endpoint, token);
    hub_ = std::make_unique<hub::Client>(fetcher(), endpoint, std::move(token));
  }
  return hub_.get();
}

Result<hub::Client*> Session::asked_hub() {
  if (unreachable_) return fail(*unreachable_);
  if (!patient_ && unreachable_once_) return fail(*unreachable_once_);
  FVP_TRY(hub::Client * client, hub());
  return patient_ ? client : brief_hub_.get();
}

void Session::note(const Error& error) {
  if (error.reason == kUnreachable) (patient_ ? unreachable_ : unreachable_once_) = error;
}

bool Session::knows_commit(const hub::Repo& repo, const std::string& revision) const {
  const auto known = commits_.find({id_of(repo), revision});
  return known != commits_.end() && known->second;
}

template <typename T, typename Ask>
Result<T> Session::ask_once(Answers<T>& answers, const hub::Repo& repo, const std::string& what,
                            Ask ask) {
  const std::pair key{id_of(repo), what};
  if (const auto known = answers.find(key); known != answers.end()) return known->second;
  FVP_TRY(hub::Client * client, asked_hub());
  Result<T> told = ask(*client);
  if (!told) note(told.error());
  // One that was not patient has not found out for those who have no substitute.
  if (told || patient_) answers.emplace(key, told);
  return told;
}

Result<std::string> Session::commit_of(const hub::Repo& repo, const std::string& revision) {
  return ask_once(commits_, repo, revision,
                  [&](hub::Client& client) { return client.resolve_revision(repo, revision); });
}

Result<std::vector<RepoFile>> Session::tree_of(const hub::Repo& repo, const std::string& commit) {
  return ask_once(trees_, repo, commit,
                  [&](hub::Client& client) { return client.list_tree(repo, commit); });
}

std::optional<std::string> Session::commit_without(const hub::Repo& repo,
                                                   const std::string& revision,
                                                   const std::string& path) const {
  const std::string id = id_of(repo);
  std::string commit = revision;
  if (const auto known = commits_.find({id, revision}); known != commits_.end()) {
    if (!known->second) return std::nullopt;
    commit = *known->second;
  }
  const auto tree = trees_.find({id, commit});
  if (tree == trees_.end() || !tree->second) return std::nullopt;
  const bool has = std::any_of(tree->second->begin(), tree->second->end(),
                               [&path](const RepoFile& file) { return file.path == path; });
  return has ? std::nullopt : std::optional(commit);
}

std::uint64_t Session::requests() const {
  return transport_ ? transport_->requests() : 0;
}

}  // namespace fvprefetch
