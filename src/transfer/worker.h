// Threads beside a loop that must not wait: what reads the disk again or waits for it (digests,
// syncing, publishing) runs there, while bytes arrive.
//
// A seam: tests run tasks at once, so that nothing depends on which thread was faster.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <stop_token>

#include "base/clock.h"

namespace fvprefetch {

class Worker {
 public:
  virtual ~Worker() = default;
  /// Runs `task`, which does not throw; begins it after those posted before. From any thread, tasks
  /// included, and while the worker is destroyed, which drops it; never blocks. Whoever posts keeps
  /// the queue short.
  virtual void post(std::function<void()> task) = 0;
  /// Has another thread begin what has waited for longer than it should; post() and wait() do so,
  /// too. Does not block while there is a thread (make_worker).
  virtual void spur() {}
  /// Returns when a task has ended since the last call, at `until`, or when `stop` is asked.
  virtual void wait(Clock::TimePoint until, const std::stop_token& stop) = 0;
};

/// How long a task may wait for a thread that is at work before another one begins it. To wake a
/// thread costs about as much as the shortest tasks take.
using Patience = std::chrono::milliseconds;

/// Up to `threads` of its own, begun when there are tasks for them; with one, tasks run in order.
/// Where the system gives fewer, those work; where it gives none, wait() and spur() run one task
/// each on the calling thread. The destructor waits for those that run and drops the others.
[[nodiscard]] std::unique_ptr<Worker> make_worker(std::size_t threads = 1, Patience patience = {});

/// post() runs the task.
[[nodiscard]] std::unique_ptr<Worker> make_inline_worker();

}  // namespace fvprefetch
