#include "prefetch/publisher.h"

#include "base/try.h"

namespace fvprefetch {

void Publisher::submit(std::size_t key, Work work) {
  ++open_;
  worker_->post([this, key, work = std::move(work), guards = std::exchange(guards_, {})] {
    Status status = guard(work);
    const std::lock_guard lock(mutex_);
    results_.emplace_back(key, std::move(status));
  });
}

void Publisher::let_go(std::unique_ptr<HeldLock> held, std::unique_ptr<Lock> lock) {
  guards_.push_back(std::make_shared<Guard>(Guard{std::move(lock), std::move(held)}));
}

void Publisher::flush() {
  if (guards_.empty()) return;
  worker_->post([guards = std::exchange(guards_, {})] {});  // they go with it
}

std::vector<std::pair<std::size_t, Status>> Publisher::take() {
  worker_->spur();
  const std::lock_guard lock(mutex_);
  open_ -= results_.size();
  return std::exchange(results_, {});
}

void Publisher::wait(std::chrono::milliseconds limit) {
  worker_->wait(std::chrono::steady_clock::now() + limit, {});
}

}  // namespace fvprefetch
