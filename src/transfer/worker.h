// The one thread beside the engine's loop: what reads the disk again or waits for it (digests,
// syncing) runs there, so that the loop never waits while bytes arrive.
//
// A seam: tests run tasks at once, so that nothing depends on which thread was faster.
#pragma once

#include <functional>
#include <memory>
#include <stop_token>

#include "base/clock.h"

namespace fvprefetch {

class Worker {
 public:
  virtual ~Worker() = default;
  /// Runs `task`, which does not throw, after those posted before. From any thread, tasks included;
  /// never blocks. Whoever posts keeps at most one task of a kind in the queue.
  virtual void post(std::function<void()> task) = 0;
  /// Returns when a task has ended since the last call, at `until`, or when `stop` is asked.
  virtual void wait(Clock::TimePoint until, const std::stop_token& stop) = 0;
};

/// A thread of its own, begun by the first task. The destructor waits for the task that runs and
/// drops the others.
[[nodiscard]] std::unique_ptr<Worker> make_worker();

/// post() runs the task.
[[nodiscard]] std::unique_ptr<Worker> make_inline_worker();

}  // namespace fvprefetch
