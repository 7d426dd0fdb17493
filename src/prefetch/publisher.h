// Publishing beside the loop that downloads: a published file is synced three times, and a disk or
// a file server takes about as long for eight of those as for one. Letting go of its lock is half
// as many calls again.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cache/lock.h"
#include "fvprefetch/error.h"
#include "transfer/worker.h"

namespace fvprefetch {

class Publisher {
 public:
  using Work = std::function<Status()>;

  explicit Publisher(std::unique_ptr<Worker> worker) : worker_(std::move(worker)) {}

  /// `key` comes back with the result. What `work` throws is an error of it.
  void submit(std::size_t key, Work work);
  /// Submitted, and not yet taken.
  [[nodiscard]] std::size_t open() const { return open_; }
  /// What is done, without waiting.
  [[nodiscard]] std::vector<std::pair<std::size_t, Status>> take();
  /// Lets go of a lock that is held or waited for: after what is submitted next, or with flush().
  void let_go(std::unique_ptr<HeldLock> held, std::unique_ptr<Lock> lock);
  void flush();
  /// Blocks until something is done, `limit` at most.
  void wait(std::chrono::milliseconds limit);

 private:
  /// A lock that is let go of with the last copy of the pointer.
  struct Guard {
    std::unique_ptr<Lock> lock;
    std::unique_ptr<HeldLock> held;  // goes first
  };
  using Guards = std::vector<std::shared_ptr<Guard>>;

  std::size_t open_ = 0;  // of the calling thread, as the next
  Guards guards_;         // to be let go of
  std::mutex mutex_;      // guards results_
  std::vector<std::pair<std::size_t, Status>> results_;
  std::unique_ptr<Worker> worker_;  // last: its threads end before what they write to
};

}  // namespace fvprefetch
