// Publishing beside the loop that downloads: a published file is synced three times, and a disk or
// a file server takes about as long for eight of those as for one.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch {

class Publisher {
 public:
  using Work = std::function<Status()>;

  /// 0 threads: submit() does the work itself (tests, whose clock stands still meanwhile).
  explicit Publisher(std::size_t threads);
  ~Publisher();  ///< waits for what is under way, and does what was submitted
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  /// `key` comes back with the result. What `work` throws is an error of it.
  void submit(std::size_t key, Work work);
  /// Submitted, and not yet taken.
  [[nodiscard]] std::size_t open() const { return open_; }
  /// What is done, without waiting.
  [[nodiscard]] std::vector<std::pair<std::size_t, Status>> take();
  /// Blocks until something is done, `limit` at most.
  void wait(std::chrono::milliseconds limit);

 private:
  void serve(const std::stop_token& stop);

  std::size_t threads_;
  std::size_t open_ = 0;  // of the calling thread
  std::mutex mutex_;      // guards what follows
  std::condition_variable_any submitted_;
  std::condition_variable_any done_;
  std::deque<std::pair<std::size_t, Work>> queue_;
  std::vector<std::pair<std::size_t, Status>> results_;
  std::vector<std::jthread> workers_;  // last: joined before the rest goes
};

}  // namespace fvprefetch
