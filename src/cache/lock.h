// Locks save double work; they never make anything right (that is publish-by-rename). So a lock
// that fails to work is a warning, and a wait for one is always bounded.
//
// A Lock is one name that one process holds at a time. Trying never blocks. Who waits, and for how
// long, is LockWait: pure policy over a Clock, tested once for all kinds.
//
//   flock   cache/flock_lock   the kernel's, on the very files of Python's clients; freed when its
//                              holder dies; between nodes it may be local, a no-op or refused
//   lease   cache/lease        a name that one process makes, with a heartbeat; true between nodes
//   chain   here               several at once, in order: "auto" is a flock and, inside it, a lease
//   answering  here            another one, whose file system may hang: the caller never does
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "cache/flock_call.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

/// Who holds a lock, for people: written beside the lock by the holder, best effort.
struct Holder {
  std::string host;
  std::int64_t pid = 0;
  std::string job;    ///< batch job id, or ""
  std::string since;  ///< RFC 3339 UTC
  std::string user;   ///< or ""
  std::string step;   ///< of the job, or ""

  /// "node17 pid 4242 job 881, since 2026-11-24T12:03:11Z".
  [[nodiscard]] std::string describe() const;
};

/// Held until destroyed. Destruction never throws and never waits.
class HeldLock {
 public:
  virtual ~HeldLock() = default;
  /// Writes down who holds it, for those who wait; once, best effort. (A file of its own for each
  /// lock that is held for an instant would cost more than the lock.)
  virtual void tell() = 0;
  /// Somebody took it over, because he could not see us live: we were suspended, or cut off.
  [[nodiscard]] virtual bool lost() = 0;
  /// The lock could not be renewed for so long that others may soon take it over: what it guards
  /// must stop, with this error, which names the lock and why. No I/O, never blocks.
  [[nodiscard]] virtual std::optional<Error> expired() { return std::nullopt; }
};

class Lock {
 public:
  virtual ~Lock() = default;
  /// The lock, or nullptr when somebody else holds it, or while that is not known yet. Makes the
  /// lock's directory. kPermission and kNoSpace when the lock file cannot be made; kInternal when
  /// the file system refuses to lock (the caller may go on without).
  [[nodiscard]] virtual Result<std::unique_ptr<HeldLock>> try_acquire() = 0;
  /// Who holds it, as far as can be told from here; never empty ("another program (...)").
  [[nodiscard]] virtual std::string describe_holder() const = 0;
  /// False while no try has shown yet who that could be; describe_holder() says why. Never blocks.
  [[nodiscard]] virtual bool knows_holder() const { return true; }
  /// Changes while the holder gets on, as far as the lock tells.
  [[nodiscard]] virtual std::uint64_t holder_progress() const { return 0; }
  /// "flock", "lease"; of a chain the parts that work, "flock+lease", as far as that is known.
  [[nodiscard]] virtual std::string kind() const = 0;
  /// What went wrong and was gone on without, each told once.
  [[nodiscard]] virtual std::vector<Error> take_warnings() { return {}; }
};

/// flock(2) on `path`, the very files of Python's filelock: opened without truncation and without
/// following links, mode `mode`, never unlinked by us; what is not a regular file is kPermission;
/// after acquiring, the inode is compared with the path's, since some filelock versions unlink the
/// file on release. The call is made as `calls` thinks best, which must outlive the Lock and what
/// it gives; a call that does not return is kInternal. tell() writes `self` beside it; its `since`
/// is the moment of acquiring.
[[nodiscard]] std::unique_ptr<Lock> make_flock(std::string path, unsigned mode, Holder self,
                                               FlockCalls& calls);

/// A part of a chain.
struct ChainPart {
  std::unique_ptr<Lock> lock;
  enum class Need {
    kRequired,  ///< its failure is the chain's
    kOneOf,     ///< gone on without, with a warning, when the other parts of this kind hold
    kCourtesy   ///< gone on without, silently, also when it stays held for `patience`
  };
  Need need = Need::kRequired;
  std::chrono::milliseconds patience{10'000};  ///< kCourtesy only
};
/// All of `parts`, taken in order; what is taken is kept while the next one is waited for, so that
/// of those who wait behind the same flock one alone looks at the lease. kInternal when none of the
/// kOneOf parts works.
[[nodiscard]] std::unique_ptr<Lock> make_chain(std::vector<ChainPart> parts,
                                               Clock& clock = real_clock());

/// `lock`, whose name lies in `directory`, with calls that do not block: until the file system is
/// known to be one kernel's own and to answer, each try is made on a thread. Held by another while
/// that is under way, kInternal when it has not returned within the patience of `calls`.
[[nodiscard]] std::unique_ptr<Lock> make_answering(std::unique_ptr<Lock> lock,
                                                   std::string directory,
                                                   std::shared_ptr<FlockCalls> calls);

/// Who holds the lock at `path` as the record beside it, or this host's kernel, tells; nullopt when
/// neither knows of a living holder. Reads only: it does not try the lock.
[[nodiscard]] std::optional<std::string> known_holder(const std::string& path);

/// Whether somebody holds the lock at `path` now. Writes nothing and makes nothing; false, too,
/// where there is no such file or the file system does not lock. Whoever tries the lock in the
/// instant of the look tries once more.
[[nodiscard]] bool is_held(const std::string& path);

/// How long to wait for a lock and when to say so.
class LockWait {
 public:
  struct Limits {
    /// Given by the user: absolute. Not given: 30 minutes without progress of the holder.
    std::optional<std::chrono::milliseconds> timeout;
    std::chrono::milliseconds no_progress{30 * 60 * 1000};
    std::chrono::milliseconds say_every{60'000};
  };
  struct Step {
    Clock::TimePoint next_try;  ///< when to try again: an eighth of the wait so far, 1 ms to 1 s
    bool say = false;           ///< time for a line about it
    bool timed_out = false;
  };

  LockWait(Limits limits, Clock::TimePoint now);
  /// Call after each failed try, with what can be seen of the holder's download: any change is
  /// progress.
  /// While nobody `knows_holder`, the first line is worth waiting for a little longer.
  [[nodiscard]] Step step(Clock::TimePoint now, std::uint64_t holder_bytes,
                          bool knows_holder = true);
  [[nodiscard]] std::chrono::milliseconds waited(Clock::TimePoint now) const;

 private:
  Limits limits_;
  Clock::TimePoint begin_;
  Clock::TimePoint last_progress_;
  Clock::TimePoint next_say_;
  std::uint64_t holder_bytes_ = 0;
  std::minstd_rand random_;
};

}  // namespace fvprefetch
