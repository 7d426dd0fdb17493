#include "prefetch/locks.h"

#include <utility>
#include <vector>

#include "base/posix.h"
#include "cache/layout.h"

namespace fvprefetch {
namespace {

constexpr unsigned kFastVideoMode = 0666;

FlockCalls::Habits habits(Wake& wake, bool in_real_time, std::size_t most_queued) {
  FlockCalls::Habits habits;
  habits.most_queued = most_queued;
  habits.may_queue = in_real_time;
  habits.wake = &wake;
  return habits;
}

}  // namespace

Locks::Locks(const Options& options, EnvironmentLookup env, Holder self, Clock& clock,
             bool in_real_time, std::size_t most_queued)
    : options_(options),
      env_(std::move(env)),
      self_(std::move(self)),
      calls_(habits(wake_, in_real_time, most_queued)),
      leases_(self_, LeaseTimes{options.lease_timeout}, clock,
              in_real_time ? LeaseKeeper::Heart::kThread : LeaseKeeper::Heart::kNone) {}

std::unique_ptr<Lock> Locks::of_destination(const std::string& path, unsigned mode,
                                            const std::set<std::string>& fastvideo) {
  using Need = ChainPart::Need;
  if (options_.lock == LockMode::kNone) return nullptr;
  if (options_.lock == LockMode::kLease) return leases_.lease(path);
  std::vector<ChainPart> parts;
  for (const std::string& key : fastvideo) {
    const std::string& directory = temporary_directory();
    if (directory.empty()) break;
    if (auto lock = layout::fastvideo_lock(directory, key)) {
      parts.push_back({plain(*lock, kFastVideoMode), Need::kCourtesy});
    }
  }
  if (options_.lock == LockMode::kFlock) {
    parts.push_back({plain(path, mode), Need::kRequired});
  } else {
    parts.push_back({plain(path, mode), Need::kOneOf});
    parts.push_back({leases_.lease(path), Need::kOneOf});
  }
  return make_chain(std::move(parts));
}

std::unique_ptr<Lock> Locks::of_blob(const std::string& path, unsigned mode) {
  const bool wanted = options_.lock == LockMode::kAuto || options_.lock == LockMode::kFlock;
  return wanted ? plain(path, mode) : nullptr;
}

std::unique_ptr<Lock> Locks::plain(const std::string& path, unsigned mode) {
  return make_flock(path, mode, self_, calls_);
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
