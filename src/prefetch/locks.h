// Which locks guard what: the one place that knows what --lock means.
//
//   destination (a snapshot, a URL file)   held from the first missing file to the last. In this
//     order: FastVideo's own lock in the temporary directory, so that it and we do not fetch the
//     same thing side by side on one node; flock; the lease, which is true between nodes
//   blob of a Hub cache                    flock on Python's lock file, while that blob is on its
//   way
//
// Everybody takes them in this order, and what is held is let go by work alone, never by getting
// another one: a busy one is put aside (ruling 5).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "base/clock.h"
#include "base/environment.h"
#include "cache/flock_call.h"
#include "cache/lease.h"
#include "cache/lock.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch {

class Locks {
 public:
  /// `options` and `clock` must outlive it. `in_real_time` false: no thread is started that waits.
  /// `most_queued`: threads that may stand in the kernel's queues at once.
  Locks(const Options& options, EnvironmentLookup env, Holder self, Clock& clock, bool in_real_time,
        std::size_t most_queued);

  /// `path` ends in ".lock"; `fastvideo`: by which keys FastVideo locks the same. nullptr: none is
  /// wanted.
  [[nodiscard]] std::unique_ptr<Lock> of_destination(const std::string& path, unsigned mode,
                                                     const std::set<std::string>& fastvideo);
  [[nodiscard]] std::unique_ptr<Lock> of_blob(const std::string& path, unsigned mode);
  /// flock alone, for what is removed and not fetched.
  [[nodiscard]] std::unique_ptr<Lock> plain(const std::string& path, unsigned mode);

  /// For those who wait for us.
  void tell_progress(std::uint64_t bytes_done) { leases_.tell_progress(bytes_done); }
  /// Called when a lock that we wait for may be ours.
  [[nodiscard]] Wake& wake() { return shared_->wake; }

 private:
  /// Where FastVideo, a Python program, has its temporary files; "" when there is no such place.
  [[nodiscard]] const std::string& temporary_directory();

  /// A call that hangs may outlive all else.
  struct Shared {
    Shared(bool in_real_time, std::size_t most_queued);
    Wake wake;  ///< before what calls it
    FlockCalls calls;
  };

  /// With calls that do not block, where time does not stand still.
  [[nodiscard]] std::unique_ptr<Lock> answering(std::unique_ptr<Lock> lock,
                                                const std::string& path) const;

  const Options& options_;
  EnvironmentLookup env_;
  Holder self_;
  Clock& clock_;
  bool in_real_time_;
  std::shared_ptr<Shared> shared_;
  LeaseKeeper leases_;
  std::optional<std::string> temporary_directory_;
};

}  // namespace fvprefetch
