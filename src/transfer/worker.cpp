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
    {
      const std::lock_guard guard(mutex_);
      stopped_ = true;
    }
    posted_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  ThreadWorker(const ThreadWorker&) = delete;
  ThreadWorker& operator=(const ThreadWorker&) = delete;

  void post(std::function<void()> task) override {
    {
      const std::lock_guard guard(mutex_);
      tasks_.push_back(std::move(task));
      if (threads_.size() < std::min(most_, running_ + tasks_.size())) {
        threads_.emplace_back([this] { run(); });
      }
    }
    posted_.notify_one();  // with the mutex free, or the thread would wake up only to wait for it
  }

  void wait(Clock::TimePoint until, const std::stop_token& stop) override {
    std::unique_lock guard(mutex_);
    // A time that is "never" overflows in some implementations of wait_until.
    const auto bound = std::min(until, std::chrono::steady_clock::now() + std::chrono::hours(1));
    (void)task_ended_.wait_until(guard, stop, bound, [this] { return ended_; });
    ended_ = false;
  }

 private:
  void run() {
    std::unique_lock guard(mutex_);
    for (;;) {
      posted_.wait(guard, [this] { return stopped_ || !tasks_.empty(); });
      if (stopped_) return;
      std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      ++running_;
      guard.unlock();
      task();
      task = nullptr;  // what it holds goes before anybody hears of its end
      guard.lock();
      --running_;
      ended_ = true;
      task_ended_.notify_one();
    }
  }

  std::size_t most_;
  std::mutex mutex_;                        // guards what follows
  std::condition_variable posted_;          // one of the threads has something to do
  std::condition_variable_any task_ended_;  // for wait(): also ended by a stop token
  std::deque<std::function<void()>> tasks_;
  std::size_t running_ = 0;
  bool ended_ = false;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
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
