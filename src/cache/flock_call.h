// How flock(2) is called, given that the call itself may hang: over NFS even the non-blocking one
// waits for the server, for ever when the server is gone (cluster-facts B2), and a file system in
// user space may never answer. So it is made on a thread of its own, which is left behind when it
// does not return; the thread gives the lock back should it get it later.
//
// Where one kernel has the file system to itself, and has answered once, the non-blocking call is
// made here and now, since it cannot hang any more; and who finds the lock taken stands in the
// kernel's queue, on a thread that sleeps: that is fair, costs nothing while it lasts, and hands
// the lock on within microseconds. Elsewhere the queue of a server is not ours to trust (a
// GlusterFS brick and an NFS client alike have kept dead waiters in it), and the caller asks again.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/posix.h"

namespace fvprefetch {

/// One call of flock(LOCK_EX) that is on its way.
class FlockCall {
 public:
  virtual ~FlockCall() = default;
  /// 0, or errno; nullopt: it has not returned. Waits for it for at most `patience`.
  [[nodiscard]] virtual std::optional<int> result(std::chrono::milliseconds patience) = 0;
  /// After result() was there: the file, which is locked when it was 0.
  [[nodiscard]] virtual posix::Fd take() = 0;
};

/// Decides how to call, and remembers which file systems answer. One for each run; any thread.
class FlockCalls {
 public:
  struct Habits {
    /// How long a call may take before it counts as hanging. (A server that restarts makes clients
    /// wait for up to 90 s; until then the lease alone does.)
    std::chrono::milliseconds patience{10'000};
    /// Stand in the kernel's queue where that is to be trusted.
    bool may_queue = true;
    /// Threads that may stand there at once, each with a descriptor; who comes later asks again.
    std::size_t most_queued = 8;
    Wake* wake = nullptr;  ///< called when a queued call has returned; must outlive the calls
  };
  FlockCalls();  ///< usual habits
  explicit FlockCalls(Habits habits) : habits_(habits) {}

  enum class Way {
    kDirect,  ///< non-blocking, on this thread
    kThread,  ///< non-blocking, on another thread
    kNever    ///< has hung on this file system
  };
  [[nodiscard]] Way way(std::uint64_t device, const std::string& directory);
  [[nodiscard]] bool queues(std::uint64_t device, const std::string& directory);
  /// So long is waited, on the thread that asks, for a call that is made on another: most answer at
  /// once. Where one kernel has the file system only a busy machine takes longer, and that must not
  /// change the order of what is fetched; where there is a server, others are asked meanwhile.
  [[nodiscard]] std::chrono::milliseconds shortly(std::uint64_t device,
                                                  const std::string& directory);
  /// The same of any call in `directory`; as for one kernel until it is known. No I/O.
  [[nodiscard]] std::chrono::milliseconds shortly(const std::string& directory);
  /// A call there has not returned shortly: the next ones are not waited for as long.
  void is_late(const std::string& directory);
  /// Whether calls in `directory` may be made without a thread: one kernel has it to itself, and a
  /// call in it has returned. No I/O.
  [[nodiscard]] bool answers_at_once(const std::string& directory);
  /// A call in `directory` has returned. Looks what it lies on, and so may hang.
  void answered(const std::string& directory);
  /// What a call that was made on `device` came to.
  void answered(std::uint64_t device);
  void hung(std::uint64_t device);

  /// A lock that was queued for was let go, and others may queue for it still. Who came back for it
  /// before the first of them has woken up would have it again, time after time; and the kernel
  /// wakes the whole queue for that, which mixes it up. So just_let_go() tells him, for a moment,
  /// to begin() with a sign that the next one has it, and to stand behind the others.
  void let_go(const posix::FileInfo& file);
  [[nodiscard]] bool just_let_go(const posix::FileInfo& file);

  enum class Blocking { kNo, kYes };
  /// Begins the call on a thread. nullptr: no thread can be had. `sign`, where it is not empty, is
  /// a file that is there while somebody has the lock: it is waited for before the call, some
  /// milliseconds long.
  [[nodiscard]] std::unique_ptr<FlockCall> begin(posix::Fd fd, Blocking blocking,
                                                 std::string sign = {});

  [[nodiscard]] std::chrono::milliseconds patience() const { return habits_.patience; }

 private:
  struct Device {
    bool local = false;
    bool has_answered = false;
    bool has_hung = false;
    std::uint64_t let_go = 0;  ///< the last one's inode
    Clock::TimePoint let_go_at{};
  };
  Device& device(std::uint64_t id, const std::string& directory);

  Habits habits_;
  std::mutex mutex_;
  std::map<std::string, bool> directories_;  ///< where calls have returned: local; under mutex_
  std::map<std::uint64_t, Device> devices_;  ///< under mutex_
  /// Shared with the threads, which may outlive it.
  std::shared_ptr<std::atomic<std::size_t>> queued_ = std::make_shared<std::atomic<std::size_t>>(0);
};

}  // namespace fvprefetch
