#include "prefetch/step.h"

#include <utility>

#include "base/environment.h"
#include "base/posix.h"
#include "base/try.h"

namespace fvprefetch {
namespace {

/// A record that is on its way shows within this time after its lease was let go.
constexpr std::chrono::seconds kGrace(5);

}  // namespace

bool caches_may_be_shared(const Session& session) {
  const std::string hub = environment::hub_cache(session.env(), session.options().hf_cache_dir);
  return !posix::is_local(posix::existing_part(session.eval_cache())) &&
         !posix::is_local(posix::existing_part(hub));
}

StepMeeting::StepMeeting(Session& session, const std::string& step, std::string title, int rank,
                         Role role)
    : session_(session),
      root_(session.eval_cache()),
      files_(root_, step),
      title_(std::move(title)),
      rank_(rank),
      may_begin_(role == Role::kPreferred),
      keeper_(session.holder(), LeaseTimes{session.options().lease_timeout}, session.clock(),
              session.in_real_time() ? LeaseKeeper::Heart::kThread : LeaseKeeper::Heart::kNone) {}

bool StepMeeting::may_write() const {
  return posix::may_write(posix::existing_part(files_.directory()));
}

Result<bool> StepMeeting::try_to_lead() {
  if (held_) return true;
  look_afresh();
  if (std::exchange(may_begin_, false)) {
    FVP_TRY(held_, keeper_.lease(files_.lock())->try_acquire());
    if (held_) return true;
  }
  if (!lease_) lease_ = keeper_.awaited_lease(files_.lock());
  FVP_TRY(held_, lease_->try_acquire());
  if (held_) return true;
  const bool led = lease_->held_by_other();
  if (led) free_since_.reset();
  if (!led && was_led_ && !free_since_) free_since_ = session_.clock().now();
  was_led_ = was_led_ || led;
  return false;
}

bool StepMeeting::is_abandoned() const {
  return free_since_ && session_.clock().now() - *free_since_ >= kGrace;
}

Status StepMeeting::wait() {
  const Clock::TimePoint now = session_.clock().now();
  if (!wait_) {
    LockWait::Limits limits;
    limits.timeout = session_.options().lock_timeout;
    wait_.emplace(limits, now);
  }
  const std::uint64_t progress = lease_->holder_progress();
  const LockWait::Step step = wait_->step(now, progress);
  if (step.say || step.timed_out) {
    const std::string leader =
        is_led() ? lease_->describe_holder() : "rank 0, which has not been heard of yet";
    const std::chrono::milliseconds waited = wait_->waited(now);
    if (step.timed_out) {
      return fail(ErrorCode::kLockTimeout,
                  "waited " + std::to_string(waited.count() / 1000) + " s for the result of " +
                      title_ + ", held by " + leader,
                  "raise --lock-timeout (FVPREFETCH_LOCK_TIMEOUT), or end the holder");
    }
    LockWaited event;
    event.path = "the result of " + title_;
    event.holder = leader;
    event.waited = waited;
    event.bytes_done = progress;
    session_.emit(event);
  }
  session_.clock().sleep_until(step.next_try, session_.options().stop);
  if (auto stop = session_.must_stop()) return fail(*std::move(stop));
  return {};
}

std::optional<Report> StepMeeting::record() const {
  look_afresh();
  const std::string path = files_.record();
  const auto text = posix::read_small(path);
  if (!text || !*text) return std::nullopt;
  // A record is always a file of its own, so that its inode and time tell it from an earlier one.
  const auto info = posix::lstat(path);
  if (!info || !*info) return std::nullopt;
  seen_ = std::to_string((*info)->inode) + " " + std::to_string((*info)->mtime_ns) + "\n";
  const auto taken = posix::read_small(files_.taken(rank_));
  if (taken && *taken && **taken == seen_) return std::nullopt;
  auto report = report_from_json(**text);
  return report ? std::optional(*std::move(report)) : std::nullopt;
}

void StepMeeting::note_taken() const {
  const std::string temp = layout::UrlFile(root_, "").temporary(posix::random_tag());
  if (!posix::make_directories(posix::parent(temp))) return;
  (void)posix::replace_text(temp, files_.taken(rank_), seen_);
}

void StepMeeting::forget_record() const {
  (void)posix::remove_file(files_.record());
}

Status StepMeeting::tell(const Report& report) const {
  const std::string temp = layout::UrlFile(root_, "").temporary(posix::random_tag());
  FVP_CHECK_OK(posix::make_directories(posix::parent(temp)));
  FVP_CHECK_OK(posix::make_directories(files_.directory()));
  Status told = posix::replace_text(temp, files_.record(), to_json(report) + "\n");
  if (!told) (void)posix::remove_file(temp);
  return told;
}

// The first of a job finds nothing of all this, and remembers that: of each level anew.
void StepMeeting::look_afresh() const {
  std::string seen;
  for (;;) {
    std::string there = posix::existing_part(files_.directory());
    if (there == seen) return;
    posix::look_afresh(there);
    if (there == files_.directory()) return;
    seen = std::move(there);
  }
}

}  // namespace fvprefetch
