#include "transfer/worker.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace fvprefetch {
namespace {

class ThreadWorker final : public Worker {
 public:
  ThreadWorker(std::size_t threads, Patience patience) : most_(threads), patience_(patience) {
    threads_.reserve(most_);
  }
  ~ThreadWorker() override {
    {
      const std::lock_guard guard(mutex_);
      stopped_ = true;
    }
    posted_.notify_all();
    // Without the mutex, which the tasks may want: there are no new threads once it has stopped.
    for (std::thread& thread : threads_) thread.join();
  }
  ThreadWorker(const ThreadWorker&) = delete;
  ThreadWorker& operator=(const ThreadWorker&) = delete;

  void post(std::function<void()> task) override {
    bool wake = false;
    {
      const std::lock_guard guard(mutex_);
      if (stopped_) return;
      tasks_.push_back({std::move(task), std::chrono::steady_clock::now()});
      wake = (running_ + called_ == 0 || is_overdue()) && call_one();
    }
    if (wake) posted_.notify_one();  // with the mutex free, or it would wake up only to wait for it
  }

  void spur() override {
    std::unique_lock guard(mutex_);
    call_for_overdue();
    if (must_work_here()) take(guard);
  }

  void wait(Clock::TimePoint until, const std::stop_token& stop) override {
    std::unique_lock guard(mutex_);
    // A time that is "never" overflows in some implementations of wait_until.
    const auto bound = std::min(until, std::chrono::steady_clock::now() + std::chrono::hours(1));
    while (!ended_ && !stop.stop_requested()) {
      if (must_work_here()) {
        take(guard);
        continue;
      }
      const Clock::TimePoint now = std::chrono::steady_clock::now();
      if (now >= bound) break;
      // When it is over, what is queued now is overdue.
      const bool may_call = !tasks_.empty() && running_ + called_ < most_;
      const auto next = may_call ? std::min(bound, now + patience_) : bound;
      (void)task_ended_.wait_until(guard, stop, next, [this] { return ended_; });
      call_for_overdue();
    }
    ended_ = false;
  }

 private:
  struct Task {
    std::function<void()> run;
    Clock::TimePoint posted;
  };

  // The next six: under the mutex.

  [[nodiscard]] bool is_overdue() const {
    return !tasks_.empty() && std::chrono::steady_clock::now() >= tasks_.front().posted + patience_;
  }

  /// Whether a sleeping thread must be woken for it; begins one where there is none.
  [[nodiscard]] bool call_one() {
    if (stopped_ || running_ + called_ == most_) return false;
    const bool sleeps = threads_.size() > running_ + called_;
    if (!sleeps && !begin_thread()) return false;
    ++called_;
    return sleeps;
  }

  /// False: no more can be had. The others, or who waits, will come to what is queued.
  [[nodiscard]] bool begin_thread() {
    try {
      threads_.emplace_back([this] { run(); });
      return true;
    } catch (const std::system_error&) {
      return false;
    }
  }

  /// There is a task, and no thread to run it.
  [[nodiscard]] bool must_work_here() const { return threads_.empty() && !tasks_.empty(); }

  void call_for_overdue() {
    if (is_overdue() && call_one()) posted_.notify_one();
  }

  void run() {
    std::unique_lock guard(mutex_);
    while (true) {
      posted_.wait(guard, [this] { return stopped_ || called_ > 0; });
      if (stopped_) return;
      --called_;
      while (!tasks_.empty() && !stopped_) take(guard);
    }
  }

  void take(std::unique_lock<std::mutex>& guard) {
    std::function<void()> task = std::move(tasks_.front().run);
    tasks_.pop_front();
    ++running_;
    call_for_overdue();
    guard.unlock();
    task();
    task = nullptr;  // what it holds goes before anybody hears of its end
    guard.lock();
    --running_;
    ended_ = true;
    task_ended_.notify_one();
  }

  std::size_t most_;
  Patience patience_;
  std::mutex mutex_;                        // guards what follows
  std::condition_variable posted_;          // one of the threads has something to do
  std::condition_variable_any task_ended_;  // for wait(): also ended by a stop token
  std::deque<Task> tasks_;
  std::size_t running_ = 0;
  std::size_t called_ = 0;  // threads that were woken and have not looked yet
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

std::unique_ptr<Worker> make_worker(std::size_t threads, Patience patience) {
  return std::make_unique<ThreadWorker>(threads, patience);
}

std::unique_ptr<Worker> make_inline_worker() {
  return std::make_unique<InlineWorker>();
}

}  // namespace fvprefetch
