#include "transfer/worker.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace fvprefetch {
namespace {

class ThreadWorker final : public Worker {
 public:
  explicit ThreadWorker(std::size_t threads) : most_(threads) {}
  ~ThreadWorker() override {
    for (std::jthread& thread : threads_)
      thread.request_stop();  // all, before the first is awaited
  }
  ThreadWorker(const ThreadWorker&) = delete;
  ThreadWorker& operator=(const ThreadWorker&) = delete;

  void post(std::function<void()> task) override {
    const std::lock_guard guard(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_all();
    if (threads_.size() < std::min(most_, running_ + tasks_.size())) {
      threads_.emplace_back([this](const std::stop_token& stop) { run(stop); });
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
      ++running_;
      guard.unlock();
      if (stop.stop_requested()) return;
      task();
      guard.lock();
      --running_;
      ended_ = true;
      changed_.notify_all();
    }
  }

  std::size_t most_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> tasks_;
  std::size_t running_ = 0;
  bool ended_ = false;
  std::vector<std::jthread> threads_;  // last: end before what they use
};

class InlineWorker final : public Worker {
 public:
  void post(std::function<void()> task) override { task(); }
  void wait(Clock::TimePoint /*until*/, const std::stop_token& /*stop*/) override {}
};

}  // namespace

std::unique_ptr<Worker> make_worker(std::size_t threads) {
  return std::make_unique<ThreadWorker>(threads);
}

std::unique_ptr<Worker> make_inline_worker() {
  return std::make_unique<InlineWorker>();
}

}  // namespace fvprefetch
