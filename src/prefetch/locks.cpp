#include "prefetch/locks.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "base/posix.h"
#include "cache/layout.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;

constexpr unsigned kFastVideoMode = 0666;
constexpr milliseconds kFastVideoPatience{10'000};

FlockCalls::Habits habits(Wake& wake, bool in_real_time, std::size_t most_queued) {
  FlockCalls::Habits habits;
  habits.most_queued = most_queued;
  habits.may_queue = in_real_time;
  habits.wake = &wake;
  return habits;
}

}  // namespace

Locks::Shared::Shared(bool in_real_time, std::size_t most_queued)
    : calls(habits(wake, in_real_time, most_queued)) {}

Locks::Locks(const Options& options, EnvironmentLookup env, Holder self, Clock& clock,
             bool in_real_time, std::size_t most_queued)
    : options_(options),
      env_(std::move(env)),
      self_(std::move(self)),
      clock_(clock),
      in_real_time_(in_real_time),
      shared_(std::make_shared<Shared>(in_real_time, most_queued)),
      leases_(self_, LeaseTimes{options.lease_timeout}, clock,
              in_real_time ? LeaseKeeper::Heart::kThread : LeaseKeeper::Heart::kNone) {}

std::unique_ptr<Lock> Locks::of_destination(const std::string& path, unsigned mode,
                                            const std::set<std::string>& fastvideo) {
  using Need = ChainPart::Need;
  if (options_.lock == LockMode::kNone) return nullptr;
  if (options_.lock == LockMode::kLease) return answering(leases_.lease(path), path);
  std::vector<ChainPart> parts;
  for (const std::string& key : fastvideo) {
    const std::string& directory = temporary_directory();
    if (directory.empty()) break;
    if (auto lock = layout::fastvideo_lock(directory, key)) {
      // Before the lock timeout, which is an error: this lock is never one.
      const milliseconds patience = std::min(
          kFastVideoPatience, options_.lock_timeout.value_or(milliseconds(kFastVideoPatience)));
      parts.push_back({plain(*lock, kFastVideoMode), Need::kCourtesy, patience});
    }
  }
  if (options_.lock == LockMode::kFlock) {
    parts.push_back({plain(path, mode), Need::kRequired, {}});
  } else {
    parts.push_back({plain(path, mode), Need::kOneOf, {}});
    parts.push_back({answering(leases_.lease(path), path), Need::kOneOf, {}});
  }
  return make_chain(std::move(parts), clock_);
}

std::unique_ptr<Lock> Locks::of_blob(const std::string& path, unsigned mode) {
  const bool wanted = options_.lock == LockMode::kAuto || options_.lock == LockMode::kFlock;
  return wanted ? plain(path, mode) : nullptr;
}

std::unique_ptr<Lock> Locks::plain(const std::string& path, unsigned mode) {
  return answering(make_flock(path, mode, self_, shared_->calls), path);
}

std::unique_ptr<Lock> Locks::answering(std::unique_ptr<Lock> lock, const std::string& path) const {
  if (!in_real_time_) return lock;
  return make_answering(std::move(lock), posix::parent(path),
                        std::shared_ptr<FlockCalls>(shared_, &shared_->calls));
}

const std::string& Locks::temporary_directory() {
  if (!temporary_directory_) {
    temporary_directory_.emplace();
    for (const std::string& directory : environment::temporary_directories(env_)) {
      if (!posix::may_write(directory)) continue;
      temporary_directory_ = directory;
      break;
    }
  }
  return *temporary_directory_;
}

}  // namespace fvprefetch
