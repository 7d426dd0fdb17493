// A lock whose file system may not answer: each call that may hang is made on a thread of its own,
// which is left behind when it does.
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "base/try.h"
#include "cache/lock.h"

namespace fvprefetch {
namespace {

using Held = std::unique_ptr<HeldLock>;
using std::chrono::milliseconds;

// To say who holds it takes a look at the file system, too: at the first try, and then so often.
constexpr milliseconds kDescribeEvery{1'000};

// Shared with the thread, which may outlive the lock.
struct Shared {
  std::shared_ptr<FlockCalls> calls;  // before `lock`, which uses it
  std::string directory;
  std::mutex using_lock;  // held over the call; taken by threads that may be left behind
  std::unique_ptr<Lock> lock;

  std::mutex mutex;  // no I/O under it
  std::condition_variable returned;
  bool under_way = false;              // under mutex
  bool abandoned = false;              // under mutex
  std::optional<Result<Held>> result;  // under mutex
  std::uint64_t progress = 0;          // under mutex, as are the others
  std::string kind;
  std::string holder;                 // as last seen; empty: not seen yet
  Clock::TimePoint describe_after{};  // real time
};

void call(const std::shared_ptr<Shared>& shared) noexcept {
  Result<Held> result = guard([&]() -> Result<Held> {
    const std::lock_guard using_lock(shared->using_lock);
    auto held = shared->lock->try_acquire();
    shared->calls->answered(shared->directory);
    return held;
  });
  const std::lock_guard using_lock(shared->using_lock);
  const std::uint64_t progress = shared->lock->holder_progress();
  std::string kind = shared->lock->kind();
  const bool held_by_other = result && !*result;
  const bool describe = held_by_other && Clock::TimePoint::clock::now() >= shared->describe_after;
  std::string holder = describe ? shared->lock->describe_holder() : "";
  const std::unique_lock guard(shared->mutex);
  if (describe) {
    shared->holder = std::move(holder);
    shared->describe_after = Clock::TimePoint::clock::now() + kDescribeEvery;
  }
  shared->under_way = false;
  shared->progress = progress;
  shared->kind = std::move(kind);
  // Nobody waits any more; what was taken is let go, here where that may take its time.
  if (!shared->abandoned) shared->result = std::move(result);
  shared->returned.notify_all();
}

class AnsweringLock final : public Lock {
 public:
  AnsweringLock(std::unique_ptr<Lock> lock, std::string directory,
                std::shared_ptr<FlockCalls> calls)
      : shared_(std::make_shared<Shared>()) {
    shared_->calls = std::move(calls);
    shared_->directory = std::move(directory);
    shared_->kind = lock->kind();
    shared_->lock = std::move(lock);
  }
  AnsweringLock(const AnsweringLock&) = delete;
  AnsweringLock& operator=(const AnsweringLock&) = delete;
  ~AnsweringLock() override {
    std::unique_lock guard(shared_->mutex);
    shared_->abandoned = true;
    if (!thread_.joinable()) return;
    if (shared_->under_way) {
      thread_.detach();
      return;
    }
    guard.unlock();
    thread_.join();
  }

  [[nodiscard]] Result<Held> try_acquire() override {
    if (direct_) return shared_->lock->try_acquire();
    if (!is_under_way() && shared_->calls->answers_at_once(shared_->directory)) {
      const std::unique_lock using_lock(shared_->using_lock, std::try_to_lock);
      if (using_lock) {  // else the thread has not ended yet
        direct_ = true;
        return shared_->lock->try_acquire();
      }
    }
    std::unique_lock guard(shared_->mutex);
    if (!shared_->under_way && !shared_->result) {
      shared_->under_way = true;
      asked_ = Clock::TimePoint::clock::now();
      try {
        thread_ = std::thread(call, shared_);
      } catch (const std::system_error&) {
        // No thread can be had: rather a call that may hang than none.
        shared_->under_way = false;
        guard.unlock();
        const std::lock_guard using_lock(shared_->using_lock);
        return shared_->lock->try_acquire();
      }
    }
    (void)shared_->returned.wait_for(guard, shared_->calls->shortly(shared_->directory),
                                     [this] { return shared_->result.has_value(); });
    if (shared_->result) {
      Result<Held> result = *std::exchange(shared_->result, std::nullopt);
      guard.unlock();
      thread_.join();  // see within.h
      return result;
    }
    shared_->calls->is_late(shared_->directory);
    if (Clock::TimePoint::clock::now() - asked_ < shared_->calls->patience()) return nullptr;
    return fail(ErrorCode::kInternal,
                "cannot lock in " + shared_->directory + ": no answer for " +
                    std::to_string(shared_->calls->patience().count() / 1000) + " s",
                "the file system does not answer");
  }

  [[nodiscard]] std::string describe_holder() const override {
    if (direct_) return shared_->lock->describe_holder();
    const std::lock_guard guard(shared_->mutex);
    if (!shared_->holder.empty()) return shared_->holder;
    return "an unknown holder: the file system of " + shared_->directory + " does not answer";
  }
  [[nodiscard]] bool knows_holder() const override {
    if (direct_) return shared_->lock->knows_holder();
    const std::lock_guard guard(shared_->mutex);
    return !shared_->holder.empty();
  }
  [[nodiscard]] std::uint64_t holder_progress() const override {
    if (direct_) return shared_->lock->holder_progress();
    const std::lock_guard guard(shared_->mutex);
    return shared_->progress;
  }
  [[nodiscard]] std::string kind() const override {
    if (direct_) return shared_->lock->kind();
    const std::lock_guard guard(shared_->mutex);
    return shared_->kind;
  }

 private:
  [[nodiscard]] bool is_under_way() const {
    const std::lock_guard guard(shared_->mutex);
    return shared_->under_way || shared_->result;
  }

  std::shared_ptr<Shared> shared_;
  std::thread thread_;        ///< that makes the call, until its result is taken
  bool direct_ = false;       ///< from now on: one kernel has the file system, and has answered
  Clock::TimePoint asked_{};  ///< real time, as it is a real call
};

}  // namespace

std::unique_ptr<Lock> make_answering(std::unique_ptr<Lock> lock, std::string directory,
                                     std::shared_ptr<FlockCalls> calls) {
  return std::make_unique<AnsweringLock>(std::move(lock), std::move(directory), std::move(calls));
}

}  // namespace fvprefetch
