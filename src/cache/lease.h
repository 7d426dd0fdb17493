// A lease: a lock that is true wherever a name is, whatever the file system says about flock. It is
// a name that one process alone can make, with a record in it that changes as long as its holder
// lives.
//
// On disk. One process has one record for each directory in which it holds leases,
//   <dir>/<8 hex>.lease-record   1 KiB: a JSON object, filled up with blanks
//     {"version": 1, "beat": N, "host", "boot", "pid_namespace", "pid", "started", "nonce", "user",
//      "job", "step", "since", "bytes_done"}
// and a lease is one more hard link to it, <dir>/<stem>.lease:
//   take      link(record, lease); it worked when st_nlink of the record grew by one, whatever
//             link() returned: over NFS the answer may be lost and the call repeated (open(2))
//   beat      the record is written anew in place every few seconds, all leases in a directory at
//             once. In place, because a rename onto a lease that was lost would take its new
//             holder's away. Each file system has a thread of its own for it, and nothing that
//             thread needs is held over I/O elsewhere: one that hangs silences only its own
//   ours      the name leads to our record: by inode, and where that differs by the random nonce
//             in its text, since many FUSE file systems number inodes by path
//   let go    unlink(lease), if it is still ours
//   dead      the same text for `dead_after`, on the clock of the one who waits: no two hosts'
//             clocks are compared. Or, at once, when this very kernel says that the process is
//             gone, or when the record names this process and no lock of it holds the lease
//   expired   a holder that could not renew for three quarters of `dead_after` stops its work
//             before others begin theirs
//   take over rename(lease, <lease>.<8 hex>), which one waiter alone can do; then what was moved is
//             compared with what was judged dead:
//               W1: judges ... moves, makes its own lease
//               W2: judges ...................................... moves: that is W1's, and is put
//             back by link(). Should that fail, W1 has lost its lease and finds out, as a holder
//             does that was suspended
// Where hard links are refused, or the new name gets an inode number of its own (object stores,
// many FUSE file systems: base/claim finds out, for `doctor` as well), the lease is a directory,
// which mkdir() makes for one alone, with the record in it; all else is the same.
//
// A record of a later version, an empty or a garbled one is a holder like any other, without a
// name: its text changes or it is dead. Refused: a time of expiry in the record (clocks differ by
// hours), fcntl locks (as node-local as flock where that is), one record for each lease (1,000
// small files would cost 2,000 more files).
//
// A lease saves work and makes nothing right. A holder that was taken over finds out by lost().
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "cache/lock.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

struct LeaseTimes {
  std::chrono::milliseconds dead_after{60'000};
  /// Several beats may be lost before a holder counts as dead.
  [[nodiscard]] std::chrono::milliseconds beat() const { return dead_after / 12; }
  /// So long a holder goes on without having renewed.
  [[nodiscard]] std::chrono::milliseconds stop_after() const { return dead_after * 3 / 4; }
};

/// A lease that somebody else is expected to take.
class AwaitedLease : public Lock {
 public:
  /// Somebody held it at the last try.
  [[nodiscard]] virtual bool held_by_other() const = 0;
};

/// Holds the leases of one run and keeps them alive, by one thread for each file system. Must
/// outlive its leases. Any thread.
class LeaseKeeper {
 public:
  /// What beats: a thread, or the caller of beat() (where time stands still).
  enum class Heart { kThread, kNone };
  LeaseKeeper(Holder self, LeaseTimes times, Clock& clock, Heart heart = Heart::kThread);
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;
  /// Removes the records. Does not wait for a beat that hangs.
  ~LeaseKeeper();

  /// The lease that goes with the lock file `lock` ("<stem>.lock"). Its kind() is "lease".
  [[nodiscard]] std::unique_ptr<Lock> lease(const std::string& lock);
  /// The same, for who is better off when another has it: a free name is left to that one for
  /// `dead_after`, and a dead holder is followed as always.
  [[nodiscard]] std::unique_ptr<AwaitedLease> awaited_lease(const std::string& lock);
  /// Written down with the next beat.
  void tell_progress(std::uint64_t bytes_done);
  /// One heartbeat: writes the records, and looks whether the leases are still ours.
  void beat();

  struct State;

 private:
  std::shared_ptr<State> state_;
};

/// Who holds the lease that goes with `lock`; nullopt: nobody, or a process of this host that is
/// gone. Reads only.
[[nodiscard]] std::optional<std::string> known_lease_holder(const std::string& lock);

}  // namespace fvprefetch
