#include "transfer/worker.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

namespace fvprefetch {
namespace {

class ThreadWorker final : public Worker {
 public:
  void post(std::function<void()> task) override {
    const std::lock_guard guard(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_all();
    if (!thread_.joinable()) {
      thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
    }
  }

  void wait(Clock::TimePoint until, const std::stop_token& stop) override {
    std::unique_lock guard(mutex_);
    // A time that is "never" overflows in some implementations of wait_until.
    const auto bound = std::min(until, std::chrono::steady_clock::now() + std::chrono::hours(1));
    (void)changed_.wait_until(guard, stop, bound, [this] { return ended_; });
    ended_ = false;
  }

 private:
  void run(const std::stop_token& stop) {
    std::unique_lock guard(mutex_);
    while (changed_.wait(guard, stop, [this] { return !tasks_.empty(); })) {
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      guard.unlock();
      if (stop.stop_requested()) return;
      task();
      guard.lock();
      ended_ = true;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;  // guards tasks_ and ended_
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> tasks_;
  bool ended_ = false;
  std::jthread thread_;  // last: ends before what it uses
};

class InlineWorker final : public Worker {
 public:
  void post(std::function<void()> task) override { task(); }
  void wait(Clock::TimePoint /*until*/, const std::stop_token& /*stop*/) override {}
};

}  // namespace

std::unique_ptr<Worker> make_worker() {
  return std::make_unique<ThreadWorker>();
}

std::unique_ptr<Worker> make_inline_worker() {
  return std::make_unique<InlineWorker>();
}

}  // namespace fvprefetch
