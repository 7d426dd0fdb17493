#include "prefetch/publisher.h"

#include "base/try.h"

namespace fvprefetch {

Publisher::Publisher(std::size_t threads) : threads_(threads) {}

Publisher::~Publisher() {
  for (std::jthread& worker : workers_) worker.request_stop();
}

void Publisher::submit(std::size_t key, Work work) {
  ++open_;
  if (threads_ == 0) {
    Status status = guard(work);
    results_.emplace_back(key, std::move(status));
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    queue_.emplace_back(key, std::move(work));
  }
  // Made when they are needed: most runs publish a few large files, or none.
  if (workers_.size() < std::min(threads_, open_)) {
    workers_.emplace_back([this](const std::stop_token& stop) { serve(stop); });
  }
  submitted_.notify_one();
}

std::vector<std::pair<std::size_t, Status>> Publisher::take() {
  const std::lock_guard lock(mutex_);
  open_ -= results_.size();
  return std::exchange(results_, {});
}

void Publisher::wait(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  (void)done_.wait_for(lock, limit, [this] { return !results_.empty(); });
}

void Publisher::serve(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  for (;;) {
    (void)submitted_.wait(lock, stop, [this] { return !queue_.empty(); });
    if (queue_.empty()) return;
    auto [key, work] = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    Status status = guard(work);
    lock.lock();
    results_.emplace_back(key, std::move(status));
    done_.notify_one();
  }
}

}  // namespace fvprefetch
