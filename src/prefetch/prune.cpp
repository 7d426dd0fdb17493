// The command that cleans up: finds our private files, judges each twice, the second time under the
// lock of its target, and removes the orphans.
#include <memory>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/environment.h"
#include "base/posix.h"
#include "base/try.h"
#include "cache/leftovers.h"
#include "cache/lock.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/lock_probe.h"
#include "prefetch/orphan.h"
#include "prefetch/session.h"
#include "source/resolve.h"

namespace fvprefetch {

namespace {

class Pruner {
 public:
  explicit Pruner(const Options& options) : session_(options, {}) { done_.dry_run = dry_run(); }

  Pruning all() {
    const EnvironmentLookup& env = session_.env();
    const std::string hub = environment::hub_cache(env, session_.options().hf_cache_dir);
    const std::string eval = session_.eval_cache();
    const std::optional<std::string> torch = environment::torch_home(env);
    Leftovers found;
    for (const std::string& cache : {eval, hub}) check_cache(cache, found);
    find_url_leftovers(eval, session_.stop_check(), found);
    if (torch && !is_same(*torch, eval)) {
      find_url_leftovers(*torch, session_.stop_check(), found);
    }
    find_hub_leftovers(hub, session_.stop_check(), found);
    return prune(std::move(found));
  }

  Result<Pruning> of(const Manifest& manifest) {
    Leftovers found;
    std::set<std::string> seen;  // what several entries have in common
    check_cache(session_.eval_cache(), found);
    check_cache(environment::hub_cache(session_.env(), session_.options().hf_cache_dir), found);
    for (const Entry& entry : manifest.entries) {
      FVP_CHECK_OK(validate(entry));
      const Result<Source> source = resolve(entry, session_.env(), session_.eval_cache());
      if (!source && source.error().code == ErrorCode::kUsage) {
        return fail(with_context(source.error(), "entry `" + entry.name + "`"));
      }
      if (!source) continue;  // a path that is not there has nothing of ours beside it
      if (const auto* url = std::get_if<UrlSource>(&*source)) {
        if (seen.insert(url->path()).second) {
          find_leftovers(layout::UrlFile(url->root, url->relative), found);
        }
      } else if (const auto* hub = std::get_if<HubSource>(&*source)) {
        const HubStore store = session_.store(hub->repo);
        if (seen.insert(store.paths().directory()).second) find_leftovers(store.paths(), found);
      }
    }
    if (const std::string& path = manifest.origin; !path.empty() && path.front() != '<') {
      const std::string lock = lock_path(path);
      const std::string name = lock.substr(lock.find_last_of('/') + 1);  // npos + 1 is 0
      find_leftovers(layout::UrlFile(posix::parent(lock), name), found);
    }
    return prune(std::move(found));
  }

 private:
  enum class Hold {
    kHeld,     ///< by us; or nobody ever locked it
    kUnknown,  ///< locks do not work here, or are not wanted
    kBusy      ///< somebody else holds it
  };

  [[nodiscard]] bool dry_run() const { return session_.options().dry_run; }

  /// What is no folder, or cannot be one, is no clean cache either.
  static void check_cache(const std::string& root, Leftovers& into) {
    const auto info = posix::stat(root);
    if (!info) return into.unseen.push_back(info.error());
    const std::string there = *info ? root : posix::existing_part(root);
    const auto above = posix::stat(there);
    if (!above || !*above || (*above)->directory) return;
    into.unseen.push_back(fail(ErrorCode::kUsage,
                               there + " is not a directory, where a cache is expected",
                               "check --cache-dir (FASTVIDEO_EVAL_CACHE) and --hf-cache-dir "
                               "(HF_HUB_CACHE)")
                              .value());
  }

  [[nodiscard]] static bool is_same(const std::string& one, const std::string& other) {
    const auto a = posix::stat(one);
    const auto b = posix::stat(other);
    return a && *a && b && *b && (*a)->inode == (*b)->inode && (*a)->device == (*b)->device;
  }

  Pruning prune(Leftovers found) {
    done_.warnings = std::move(found.unseen);
    for (const Leftover& leftover : found.found) {
      if (auto stop = session_.must_stop()) {
        done_.error = std::move(stop);
        break;
      }
      consider(leftover);
    }
    if (!done_.error) done_.error = session_.must_stop();
    // What it may not see it may not call clean.
    for (const Error& warning : done_.warnings) {
      const bool unseen =
          warning.code == ErrorCode::kPermission || warning.code == ErrorCode::kUsage;
      if (unseen) set_error(warning);
    }
    return std::move(done_);
  }

  void consider(const Leftover& leftover) {
    const Result<Signs> signs = look_at(leftover);
    if (!signs) return done_.warnings.push_back(signs.error());
    const Fate fate = judge(*signs, wall_clock_ns());
    if (!is_orphan(fate)) return keep(leftover, *signs, fate);
    if (dry_run()) {
      const bool held = !leftover.lock.empty() && is_held(leftover.lock);
      return tell(leftover, *signs, held ? PruneState::kInUse : PruneState::kOrphan);
    }
    std::unique_ptr<HeldLock> held;
    const Result<Hold> hold = take_lock(leftover, held);
    if (!hold) {
      tell(leftover, *signs, PruneState::kFailed, hold.error());
    } else if (*hold == Hold::kBusy ||
               (*hold == Hold::kUnknown && leftover.kind == Leftover::Kind::kHolder)) {
      // A record may be true wherever it cannot be found out that it is not.
      tell(leftover, *signs, PruneState::kInUse);
    } else {
      remove(leftover);
    }
  }

  // What may have changed until the lock was ours is looked at again.
  void remove(const Leftover& leftover) {
    const Result<Signs> signs = look_at(leftover);
    if (!signs) return done_.warnings.push_back(signs.error());
    const Fate fate = judge(*signs, careful_now(leftover.probe));
    if (!is_orphan(fate)) return keep(leftover, *signs, fate);
    if (leftover.kind == Leftover::Kind::kProbes) {
      (void)tell_removal(leftover.data, 0, remove_probes(leftover.data));
      return;
    }
    // The data first: a journal alone harms nobody.
    if (signs->data) {
      const bool tree = leftover.kind == Leftover::Kind::kTree;
      const Status removed =
          tree ? posix::remove_tree(leftover.data) : posix::remove_file(leftover.data);
      if (!tell_removal(leftover.data, signs->data_bytes, removed)) return;
    }
    if (signs->journal) {
      (void)tell_removal(leftover.journal, signs->journal_bytes,
                         posix::remove_file(leftover.journal));
    }
  }

  bool tell_removal(const std::string& path, std::uint64_t bytes, const Status& removed) {
    if (!removed) {
      tell(path, bytes, PruneState::kFailed, removed.error());
      return false;
    }
    tell(path, bytes, PruneState::kRemoved);
    return true;
  }

  Result<Hold> take_lock(const Leftover& leftover, std::unique_ptr<HeldLock>& held) {
    const LockMode mode = session_.options().lock;
    if (leftover.lock.empty()) return Hold::kUnknown;
    if (!posix::exists(leftover.lock)) return Hold::kHeld;
    if (mode == LockMode::kNone) return Hold::kUnknown;
    if (lease_is_young(leftover.lock)) return Hold::kBusy;
    auto taken = session_.locks().plain(leftover.lock, leftover.lock_mode)->try_acquire();
    if (!taken) {
      const bool refused = taken.error().code == ErrorCode::kInternal;
      if (refused && mode != LockMode::kFlock) return Hold::kUnknown;
      return fail(std::move(taken).error());
    }
    held = *std::move(taken);
    return held ? Hold::kHeld : Hold::kBusy;
  }

  /// Somebody, on whatever node, has written into the lease that goes with `lock` of late, and is
  /// not known to be gone.
  [[nodiscard]] static bool lease_is_young(const std::string& lock) {
    if (!known_lease_holder(lock)) return false;
    Leftover lease;
    lease.data = layout::lease_beside(lock);
    const Result<Signs> signs = look_at(lease);
    return signs && judge(*signs, wall_clock_ns()) == Fate::kYoung;
  }

  void keep(const Leftover& leftover, const Signs& signs, Fate fate) {
    if (fate == Fate::kNothing) return;
    tell(leftover, signs, fate == Fate::kInUse ? PruneState::kInUse : PruneState::kYoung);
  }

  void tell(const Leftover& leftover, const Signs& signs, PruneState state,
            const std::optional<Error>& error = std::nullopt) {
    if (signs.data) tell(leftover.data, signs.data_bytes, state, error);
    if (signs.journal) tell(leftover.journal, signs.journal_bytes, state, error);
  }

  void tell(const std::string& path, std::uint64_t bytes, PruneState state,
            const std::optional<Error>& error = std::nullopt) {
    done_.files.push_back({path, state, bytes, error});
    if (error) set_error(*error);
  }

  // The first one counts.
  void set_error(const Error& error) {
    if (done_.error) return;
    done_.error = error;
    if (error.hint.empty() && error.code == ErrorCode::kPermission) {
      done_.error->hint =
          "run `fvprefetch prune` as the user who owns it, and where it can be written";
    }
  }

  Session session_;
  Pruning done_;
};

template <typename F>
Pruning guarded(F&& prune) {
  Result<Pruning> done = guard(std::forward<F>(prune));
  if (done) return *std::move(done);
  Pruning failed;
  failed.error = done.error();
  return failed;
}

}  // namespace

std::string_view name(PruneState state) {
  switch (state) {
    case PruneState::kRemoved:
      return "removed";
    case PruneState::kOrphan:
      return "orphan";
    case PruneState::kInUse:
      return "in_use";
    case PruneState::kYoung:
      return "young";
    case PruneState::kFailed:
      return "failed";
  }
  return "failed";
}

Pruning::Amount Pruning::amount(PruneState state) const {
  Amount amount;
  for (const PrunedFile& file : files) {
    if (file.state != state) continue;
    ++amount.files;
    amount.bytes += file.bytes;
  }
  return amount;
}

Pruning prune(const Options& options) {
  return guarded([&]() -> Result<Pruning> { return Pruner(options).all(); });
}

Pruning prune(const Manifest& manifest, const Options& options) {
  return guarded([&]() -> Result<Pruning> { return Pruner(options).of(manifest); });
}

}  // namespace fvprefetch
