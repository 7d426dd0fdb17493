#include "prefetch/hash_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <stop_token>
#include <system_error>
#include <thread>

#include "base/try.h"

namespace fvprefetch {

namespace {

/// More would not make one disk faster, and a login node is not ours alone.
constexpr std::size_t kMostThreads = 8;
constexpr std::chrono::milliseconds kTick{200};

class Pool {
 public:
  Pool(const std::vector<HashJob>& jobs, const Session& session)
      : jobs_(jobs), session_(session), order_(jobs.size()) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::size_t a, std::size_t b) { return jobs_[a].size > jobs_[b].size; });
    results_.resize(jobs.size(), fail(ErrorCode::kInternal, "not read"));
  }

  HashResults run(const std::function<void(std::uint64_t, std::size_t)>& tell) {
    stopped_ = session_.must_stop();  // before the first byte is read
    {
      std::vector<std::jthread> workers;
      const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
      const std::size_t count = std::min({cores, kMostThreads, jobs_.size()});
      workers.reserve(count);
      try {
        while (workers.size() < count) {
          workers.emplace_back([this](const std::stop_token& given_up) { work(given_up); });
        }
      } catch (const std::system_error&) {
        // With fewer threads it takes longer.
      }
      if (workers.empty()) {
        work_here(tell);
      } else {
        watch(tell);
      }
    }
    tell(bytes_, done_);
    return {std::move(results_), bytes_, std::move(stopped_)};
  }

 private:
  void work(const std::stop_token& given_up) {
    const StopCheck must_stop = [&]() -> std::optional<Error> {
      // The thread that made us is on its way out by an exception.
      if (given_up.stop_requested()) return fail(ErrorCode::kInternal, "given up").value();
      const std::lock_guard lock(mutex_);
      return stopped_;
    };
    hash(must_stop, [this](std::uint64_t bytes) { bytes_ += bytes; });
  }

  /// No thread can be had: the calling one does the work, and what watch() does.
  void work_here(const std::function<void(std::uint64_t, std::size_t)>& tell) {
    const StopCheck must_stop = [this] {
      if (!stopped_) stopped_ = session_.must_stop();
      return stopped_;
    };
    Clock::TimePoint next = session_.clock().now() + kTick;
    hash(must_stop, [&](std::uint64_t bytes) {
      bytes_ += bytes;
      if (session_.clock().now() < next) return;
      next = session_.clock().now() + kTick;
      tell(bytes_, done_);
    });
  }

  void hash(const StopCheck& must_stop, const ReadMeter& meter) {
    for (std::size_t i = next_++; i < order_.size(); i = next_++) {
      const HashJob& job = jobs_[order_[i]];
      Result<HashedFile> hashed = guard([&]() -> Result<HashedFile> {
        if (std::optional<Error> stop = must_stop()) return fail(*std::move(stop));
        return hash_file(job.path, job.kind, must_stop, meter);
      });
      const std::lock_guard lock(mutex_);
      results_[order_[i]] = std::move(hashed);
      ++done_;
      changed_.notify_one();
    }
  }

  /// The calling thread's part: notices that the run has to stop, and tells how far it is.
  void watch(const std::function<void(std::uint64_t, std::size_t)>& tell) {
    std::unique_lock lock(mutex_);
    const auto all_done = [this] { return done_ == jobs_.size(); };
    while (!all_done()) {
      if (stopped_) {
        changed_.wait(lock, all_done);
        break;
      }
      (void)changed_.wait_for(lock, session_.options().stop, kTick, all_done);
      if (!all_done()) stopped_ = session_.must_stop();
      const std::size_t done = done_;
      lock.unlock();
      tell(bytes_, done);
      lock.lock();
    }
  }

  const std::vector<HashJob>& jobs_;
  const Session& session_;
  std::vector<std::size_t> order_;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::uint64_t> bytes_{0};
  std::mutex mutex_;  // guards everything below
  std::condition_variable_any changed_;
  std::vector<Result<HashedFile>> results_;
  std::size_t done_ = 0;
  std::optional<Error> stopped_;
};

}  // namespace

HashResults hash_all(const std::vector<HashJob>& jobs, const Session& session,
                     const std::function<void(std::uint64_t, std::size_t)>& tell) {
  return Pool(jobs, session).run(tell);
}

}  // namespace fvprefetch
