#include "cache/flock_call.h"

#include <sys/file.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <system_error>
#include <thread>
#include <utility>

namespace fvprefetch {
namespace {

// Shared by the caller and the thread; whoever is last closes the file, and with it the lock.
struct Shared {
  std::mutex mutex;
  std::condition_variable returned;
  posix::Fd fd;               // the thread's until `result` is there
  std::optional<int> result;  // under mutex
  bool abandoned = false;     // under mutex
};

constexpr std::chrono::milliseconds kUntilOthersHaveIt{5};
constexpr std::chrono::milliseconds kServer{50};
constexpr std::chrono::milliseconds kOneKernel{1'000};

void wait_for(const std::string& sign) {
  constexpr std::chrono::microseconds kPause{100};
  Clock& clock = real_clock();
  const auto end = clock.now() + kUntilOthersHaveIt;
  while (!posix::exists(sign) && clock.now() < end) clock.sleep_until(clock.now() + kPause, {});
}

void call(const std::shared_ptr<Shared>& shared, int operation, const std::string& sign, Wake* wake,
          std::atomic<std::size_t>& queued) noexcept {
  if (!sign.empty()) wait_for(sign);
  int result = 0;
  while (::flock(shared->fd.get(), operation) != 0) {
    if (errno == EINTR) continue;
    result = errno;
    break;
  }
  if (operation == LOCK_EX) --queued;
  const std::lock_guard guard(shared->mutex);
  shared->result = result;
  // A child that was forked meanwhile shares the lock; closing our descriptor would leave it.
  if (shared->abandoned && result == 0) (void)::flock(shared->fd.get(), LOCK_UN);
  shared->returned.notify_all();
  // Under the mutex: who abandons the call may take `wake` with him afterwards.
  if (wake != nullptr && !shared->abandoned) wake->up();
}

class ThreadCall final : public FlockCall {
 public:
  ThreadCall(std::shared_ptr<Shared> shared, std::thread thread)
      : shared_(std::move(shared)), thread_(std::move(thread)) {}
  ThreadCall(const ThreadCall&) = delete;
  ThreadCall& operator=(const ThreadCall&) = delete;
  ~ThreadCall() override {
    std::unique_lock guard(shared_->mutex);
    shared_->abandoned = true;
    if (shared_->result == 0 && shared_->fd) (void)::flock(shared_->fd.get(), LOCK_UN);
    if (!shared_->result) {
      thread_.detach();
      return;
    }
    guard.unlock();
    thread_.join();  // see within.h
  }

  [[nodiscard]] std::optional<int> result(std::chrono::milliseconds patience) override {
    std::unique_lock guard(shared_->mutex);
    (void)shared_->returned.wait_for(guard, patience,
                                     [this] { return shared_->result.has_value(); });
    return shared_->result;
  }

  [[nodiscard]] posix::Fd take() override {
    const std::lock_guard guard(shared_->mutex);
    return std::move(shared_->fd);
  }

 private:
  std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace

FlockCalls::FlockCalls() = default;

FlockCalls::Device& FlockCalls::device(std::uint64_t id, const std::string& directory) {
  const auto [known, is_new] = devices_.try_emplace(id);
  if (is_new) known->second.local = posix::is_local(directory);
  return known->second;
}

FlockCalls::Way FlockCalls::way(std::uint64_t id, const std::string& directory) {
  const std::lock_guard guard(mutex_);
  const Device& known = device(id, directory);
  if (known.has_hung) return Way::kNever;
  return known.local && known.has_answered ? Way::kDirect : Way::kThread;
}

bool FlockCalls::queues(std::uint64_t id, const std::string& directory) {
  const std::lock_guard guard(mutex_);
  return habits_.may_queue && *queued_ < habits_.most_queued && device(id, directory).local;
}

std::chrono::milliseconds FlockCalls::shortly(std::uint64_t id, const std::string& directory) {
  const std::lock_guard guard(mutex_);
  return device(id, directory).local ? kOneKernel : kServer;
}

std::chrono::milliseconds FlockCalls::shortly(const std::string& directory) {
  const std::lock_guard guard(mutex_);
  const auto known = directories_.find(directory);
  return known == directories_.end() || known->second ? kOneKernel : kServer;
}

void FlockCalls::is_late(const std::string& directory) {
  const std::lock_guard guard(mutex_);
  directories_.try_emplace(directory, false);
}

bool FlockCalls::answers_at_once(const std::string& directory) {
  const std::lock_guard guard(mutex_);
  const auto known = directories_.find(directory);
  return known != directories_.end() && known->second;
}

void FlockCalls::answered(const std::string& directory) {
  if (answers_at_once(directory)) return;
  const bool local = posix::is_local(directory);
  const std::lock_guard guard(mutex_);
  directories_[directory] = local;
}

void FlockCalls::answered(std::uint64_t id) {
  const std::lock_guard guard(mutex_);
  devices_[id].has_answered = true;
}

void FlockCalls::hung(std::uint64_t id) {
  const std::lock_guard guard(mutex_);
  devices_[id].has_hung = true;
}

void FlockCalls::let_go(const posix::FileInfo& file) {
  const std::lock_guard guard(mutex_);
  Device& known = devices_[file.device];
  known.let_go = file.inode;
  known.let_go_at = Clock::TimePoint::clock::now();
}

bool FlockCalls::just_let_go(const posix::FileInfo& file) {
  const std::lock_guard guard(mutex_);
  const Device& known = devices_[file.device];
  return known.let_go == file.inode &&
         Clock::TimePoint::clock::now() - known.let_go_at < kUntilOthersHaveIt;
}

std::unique_ptr<FlockCall> FlockCalls::begin(posix::Fd fd, Blocking blocking, std::string sign) {
  auto shared = std::make_shared<Shared>();
  shared->fd = std::move(fd);
  const bool waits = blocking == Blocking::kYes;
  if (waits) ++*queued_;
  std::thread thread;
  try {
    thread = std::thread([shared, waits, sign = std::move(sign),
                          wake = waits ? habits_.wake : nullptr, queued = queued_] {
      call(shared, waits ? LOCK_EX : LOCK_EX | LOCK_NB, sign, wake, *queued);
    });
  } catch (const std::system_error&) {
    if (waits) --*queued_;
    return nullptr;
  }
  return std::make_unique<ThreadCall>(std::move(shared), std::move(thread));
}

}  // namespace fvprefetch
