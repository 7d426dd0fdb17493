// What one run shares: where the caches are, whether the network may be used, the clock, and the
// connections, which are made when the first request needs them (a warm run makes none).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/digest.h"
#include "base/environment.h"
#include "cache/hf_store.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/locks.h"
#include "prefetch/rejected.h"
#include "source/hub.h"
#include "transfer/engine.h"
#include "transfer/transport.h"

namespace fvprefetch {

/// What tests replace.
struct Seams {
  Clock* clock = nullptr;                                      ///< null: the real one
  std::function<std::unique_ptr<Transport>()> make_transport;  ///< empty: libcurl
};

/// How much of the system one run takes.
struct Budget {
  std::size_t files = 1;    ///< that are fetched, or whose locks are waited for, at once
  int connections = 1;      ///< for each
  std::size_t sockets = 0;  ///< of all together; 0: as many as that makes
};
/// What `options` ask for, less where `descriptors` are all that may be opened.
[[nodiscard]] Budget budget_for(const Options& options, std::size_t descriptors);

class Session {
 public:
  /// `rejected`: given to a run that repairs, even when it is empty.
  Session(const Options& options, const Seams& seams,
          std::optional<Rejected> rejected = std::nullopt);

  /// What the environment says and cannot be used (kUsage). To be asked first.
  [[nodiscard]] Status usable() const { return usable_; }
  [[nodiscard]] const Options& options() const { return options_; }
  [[nodiscard]] const EnvironmentLookup& env() const { return env_; }
  /// Us, as the holder of a lock.
  [[nodiscard]] Holder holder() const;
  [[nodiscard]] const std::string& eval_cache() const { return eval_cache_; }
  [[nodiscard]] bool offline() const { return offline_; }
  [[nodiscard]] Clock& clock() const { return clock_; }
  /// false: the clock is a test's, and stands still while other threads work.
  [[nodiscard]] bool in_real_time() const { return &clock_ == &real_clock(); }
  [[nodiscard]] Clock::TimePoint begin() const { return begin_; }
  /// When the run has to be over; TimePoint::max() without --deadline.
  [[nodiscard]] Clock::TimePoint deadline() const { return deadline_; }
  [[nodiscard]] std::mt19937& random() { return random_; }
  /// This run repairs what verify found wrong: it links to nothing that it has not looked into.
  [[nodiscard]] bool repairs() const { return rejected_.has_value(); }
  /// What lies at `path` was found wrong: it is as good as absent.
  [[nodiscard]] bool rejects(const std::string& path) const {
    return rejected_ && rejected_->holds(path);
  }

  /// The locks of this run; nothing is made before one is tried.
  [[nodiscard]] Locks& locks();

  void emit(const Event& event) const;

  /// Why the run has to end now: a signal or the deadline. nullopt: it may go on.
  [[nodiscard]] std::optional<Error> must_stop() const;
  /// must_stop() for what hashes; the session must outlive it.
  [[nodiscard]] StopCheck stop_check() const {
    return [this] { return must_stop(); };
  }

  /// Follows redirects and obeys rate limits; made on first use.
  [[nodiscard]] Transport& transport();
  [[nodiscard]] EngineOptions engine_options();
  /// Taken when it is asked for first: from --max-active, --connections and RLIMIT_NOFILE.
  [[nodiscard]] const Budget& budget();
  /// The Hub's API, with the token read on first use (kPermission when its file cannot be read).
  [[nodiscard]] Result<hub::Client*> hub();
  /// Small requests to anybody; redirects are followed.
  [[nodiscard]] Fetcher& fetcher();
  /// The same, but a redirect is the answer.
  [[nodiscard]] Fetcher& hops();
  /// The repository in the Hub cache.
  [[nodiscard]] HubStore store(const hub::Repo& repo) const;

  /// false: requests for revisions and trees are sent once; there is something else to take.
  void be_patient(bool patient) { patient_ = patient; }
  /// Whether the Hub has named the commit in this run.
  [[nodiscard]] bool knows_commit(const hub::Repo& repo, const std::string& revision) const;
  /// Asked once per run for each repo and revision, whoever wants it. A Hub that was not reached
  /// once is not tried again for the next.
  [[nodiscard]] Result<std::string> commit_of(const hub::Repo& repo, const std::string& revision);
  [[nodiscard]] Result<std::vector<RepoFile>> tree_of(const hub::Repo& repo,
                                                      const std::string& commit);
  /// Whether the Hub said in this run that `revision` has no file of that name; the commit then.
  [[nodiscard]] std::optional<std::string> commit_without(const hub::Repo& repo,
                                                          const std::string& revision,
                                                          const std::string& path) const;
  /// Requests sent so far by anybody in this run.
  [[nodiscard]] std::uint64_t requests() const;

 private:
  [[nodiscard]] std::unique_ptr<Fetcher> new_fetcher(Transport& transport, int retries);
  /// The client to ask for a revision or a tree now.
  [[nodiscard]] Result<hub::Client*> asked_hub();
  /// By repository, and revision or commit.
  template <typename T>
  using Answers = std::map<std::pair<std::string, std::string>, Result<T>>;
  /// What is known, else what `ask(client)` tells.
  template <typename T, typename Ask>
  Result<T> ask_once(Answers<T>& answers, const hub::Repo& repo, const std::string& what, Ask ask);
  /// Remembers that the Hub was not reached.
  void note(const Error& error);

  const Options& options_;
  EnvironmentLookup env_;
  std::string eval_cache_;
  std::string hub_cache_;
  bool offline_;
  Clock& clock_;
  Clock::TimePoint begin_;
  Clock::TimePoint deadline_;
  std::mt19937 random_;
  std::optional<Rejected> rejected_;
  std::function<std::unique_ptr<Transport>()> make_transport_;
  Status usable_;
  std::optional<Budget> budget_;
  std::unique_ptr<Locks> locks_;
  environment::HubTimeouts timeouts_;
  // Each stands on the one before it.
  std::unique_ptr<Transport> wire_;
  std::unique_ptr<Transport> obedient_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Fetcher> fetcher_;
  std::unique_ptr<Fetcher> hops_;
  std::unique_ptr<hub::Client> hub_;
  std::unique_ptr<Fetcher> brief_fetcher_;
  std::unique_ptr<hub::Client> brief_hub_;
  bool patient_ = true;
  std::optional<Error> unreachable_;       ///< after all retries
  std::optional<Error> unreachable_once_;  ///< at the one try of who has a substitute
  Answers<std::string> commits_;
  Answers<std::vector<RepoFile>> trees_;
};

/// Why a run with these options that began at `begin` has to end `now`: a signal, or its deadline.
[[nodiscard]] std::optional<Error> why_stop(const Options& options, Clock::TimePoint begin,
                                            Clock::TimePoint now);

/// "model", "dataset", "space": the word that the cache layout is named after.
[[nodiscard]] std::string_view type_name(hub::RepoType type);

}  // namespace fvprefetch
