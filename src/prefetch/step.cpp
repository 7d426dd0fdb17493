#include "prefetch/step.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/environment.h"
#include "base/posix.h"
#include "base/try.h"
#include "prefetch/error_json.h"

namespace fvprefetch {
namespace {

/// A record that is on its way shows within this time after its lease was let go.
constexpr std::chrono::seconds kGrace(5);
constexpr std::chrono::milliseconds kLook(50);
/// In front of an error, in the place of a manifest: no text begins so.
constexpr char kNoManifest = '\x18';

// By rename, so that a reader finds the whole text or none.
Status leave(const Session& session, const layout::StepFiles& files, const std::string& path,
             const std::string& text) {
  const std::string temp = layout::UrlFile(session.eval_cache(), "").temporary(posix::random_tag());
  FVP_CHECK_OK(posix::make_directories(posix::parent(temp)));
  FVP_CHECK_OK(posix::make_directories(files.directory()));
  Status left = posix::replace_text(temp, path, text);
  if (!left) (void)posix::remove_file(temp);
  return left;
}

Result<std::string> manifest_or_error(std::string text) {
  if (text.empty() || text.front() != kNoManifest) return text;
  const auto why = nlohmann::json::parse(text.substr(1), nullptr, /*allow_exceptions=*/false);
  if (!why.is_object()) return fail(ErrorCode::kInternal, "rank 0 could not read the manifest");
  return fail(error_from_json(why));
}

}  // namespace

Result<std::string> leave_manifest(const Session& session, const std::string& step,
                                   const std::function<Result<std::string>()>& read) {
  const layout::StepFiles files(session.eval_cache(), step);
  (void)posix::remove_file(files.manifest());  // of an earlier run of that name
  auto text = read();
  const std::string left =
      text ? *text : std::string(1, kNoManifest) + error_to_json(text.error()).dump();
  (void)leave(session, files, files.manifest(), left);
  return text;
}

Result<std::string> await_manifest(const Session& session, const std::string& step, int rank,
                                   std::chrono::milliseconds patience) {
  using std::chrono::milliseconds;
  const layout::StepFiles files(session.eval_cache(), step);
  const auto none = [&](const std::string& why) {
    Error error;
    error.code = ErrorCode::kNetwork;
    error.reason = kNoManifestCame;
    error.message = "rank 0 has passed on no manifest from its standard input" + why;
    error.hint = "give the manifest's path, or raise --rank-timeout";
    return fail(std::move(error));
  };
  if (!posix::may_write(posix::existing_part(files.directory()))) {
    return none(": nothing can be written in " + session.eval_cache());
  }
  Clock& clock = session.clock();
  const Clock::TimePoint begin = clock.now();
  Clock::TimePoint say = begin + std::chrono::seconds(2);
  milliseconds pause(20);
  for (;;) {
    posix::look_afresh(posix::existing_part(files.directory()));
    const auto info = posix::lstat(files.manifest());
    const std::string id = info && *info ? std::to_string((*info)->inode) + " " +
                                               std::to_string((*info)->mtime_ns) + "\n"
                                         : "";
    const auto taken = posix::read_private(files.taken(rank));
    if (!id.empty() && !(taken && *taken && **taken == id)) {
      FVP_TRY(auto text, posix::read_private(files.manifest()));
      if (text) {
        (void)leave(session, files, files.taken(rank), id);
        return manifest_or_error(*std::move(text));
      }
    }
    if (auto stop = session.must_stop()) return fail(*std::move(stop));
    const Clock::TimePoint now = clock.now();
    if (now - begin > patience) {
      return none(" for " + std::to_string(patience.count() / 1000) + " s");
    }
    if (now >= say) {
      say = now + std::chrono::seconds(30);
      session.emit(Waiting{"rank 0 to read the manifest from its standard input",
                           std::chrono::duration_cast<milliseconds>(now - begin)});
    }
    clock.sleep_until(now + pause, session.options().stop);
    pause = std::min(pause * 2, milliseconds(500));
  }
}

void note_without_mpi(const Session& session, const std::string& step, int rank,
                      const std::string& line) {
  const layout::StepFiles files(session.eval_cache(), step);
  (void)leave(session, files, files.without_mpi(rank), line);
}

std::vector<std::string> notes_without_mpi(const Session& session, const std::string& step) {
  const layout::StepFiles files(session.eval_cache(), step);
  std::vector<std::string> notes;
  const auto names = posix::list(files.directory());
  if (!names) return notes;
  for (const std::string& name : *names) {
    if (!files.is_without_mpi(name)) continue;
    auto text = posix::read_private(files.directory() + "/" + name);
    if (text && *text) notes.push_back(**std::move(text));
  }
  return notes;
}

bool caches_may_be_shared(const Session& session) {
  const std::string hub = environment::hub_cache(session.env(), session.options().hf_cache_dir);
  return !posix::is_local(posix::existing_part(session.eval_cache())) &&
         !posix::is_local(posix::existing_part(hub));
}

StepMeeting::StepMeeting(Session& session, const std::string& step, std::string title, int rank,
                         Role role, std::optional<std::chrono::milliseconds> lead_after)
    : session_(session),
      root_(session.eval_cache()),
      files_(root_, step),
      title_(std::move(title)),
      rank_(rank),
      may_begin_(role == Role::kPreferred),
      lead_after_(lead_after),
      begin_(session.clock().now()),
      keeper_(session.holder(), LeaseTimes{session.options().lease_timeout}, session.clock(),
              session.in_real_time() ? LeaseKeeper::Heart::kThread : LeaseKeeper::Heart::kNone) {}

bool StepMeeting::may_write() const {
  return posix::may_write(posix::existing_part(files_.directory()));
}

Result<bool> StepMeeting::try_to_lead() {
  if (held_) return true;
  look_afresh();
  if (lead_after_ && !was_led_ && session_.clock().now() - begin_ >= *lead_after_) {
    may_begin_ = true;
  }
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
  const LockWait::Step step = wait_->step(now, progress, !is_led() || lease_->knows_holder());
  if (step.say || step.timed_out) {
    const std::chrono::milliseconds waited = wait_->waited(now);
    if (!is_led() && !step.timed_out) {
      const auto alone_after = lead_after_.value_or(session_.options().lease_timeout);
      session_.emit(Waiting{"rank 0 of " + title_ +
                                ", which has not come yet (this rank goes on by itself " +
                                std::to_string(alone_after.count() / 1000) + " s after it came)",
                            waited});
    }
    const std::string leader = is_led() ? lease_->describe_holder() : "rank 0, which has not come";
    if (step.timed_out) {
      return fail(ErrorCode::kLockTimeout,
                  "waited " + std::to_string(waited.count() / 1000) + " s for the result of " +
                      title_ + ", held by " + leader,
                  "raise --lock-timeout (FVPREFETCH_LOCK_TIMEOUT), or end the holder");
    }
    if (is_led()) {
      LockWaited event;
      event.path = "the result of " + title_;
      event.holder = leader;
      event.waited = waited;
      event.bytes_done = progress;
      session_.emit(event);
    }
  }
  session_.clock().sleep_until(step.next_try, session_.options().stop);
  if (auto stop = session_.must_stop()) return fail(*std::move(stop));
  return {};
}

std::optional<Report> StepMeeting::record() const {
  look_afresh();
  const std::string path = files_.record();
  const auto text = posix::read_private(path);
  if (!text || !*text) return std::nullopt;
  // A record is always a file of its own, so that its inode and time tell it from an earlier one.
  const auto info = posix::lstat(path);
  if (!info || !*info) return std::nullopt;
  seen_ = std::to_string((*info)->inode) + " " + std::to_string((*info)->mtime_ns) + "\n";
  const auto taken = posix::read_private(files_.taken(rank_));
  if (taken && *taken && **taken == seen_) return std::nullopt;
  auto report = report_from_json(**text);
  return report ? std::optional(*std::move(report)) : std::nullopt;
}

std::optional<Report> StepMeeting::record_that_is_coming() const {
  const Clock::TimePoint until = session_.clock().now() + std::chrono::seconds(2);
  for (;;) {
    if (auto report = record()) return report;
    if (session_.clock().now() >= until) return std::nullopt;
    session_.clock().sleep_until(session_.clock().now() + kLook, {});
  }
}

void StepMeeting::wait_for_others(int ranks) const {
  constexpr int kMost = 512;  // each of them lists what all have left
  if (ranks > kMost) return;
  const Clock::TimePoint until = session_.clock().now() + std::chrono::seconds(5);
  while (session_.clock().now() < until) {
    posix::look_afresh(files_.directory());
    const auto names = posix::list(files_.directory());
    if (!names) return;
    const auto taken = std::count_if(names->begin(), names->end(), [&](const std::string& name) {
      return files_.is_taken(name);
    });
    if (taken >= ranks) return;
    session_.clock().sleep_until(session_.clock().now() + kLook, {});
  }
}

void StepMeeting::note_taken() const {
  const std::string temp = layout::UrlFile(root_, "").temporary(posix::random_tag());
  if (!posix::make_directories(posix::parent(temp))) return;
  if (!posix::make_directories(files_.directory())) return;
  (void)posix::replace_text(temp, files_.taken(rank_), seen_);
}

void StepMeeting::forget_record() const {
  (void)posix::remove_file(files_.record());
  const auto names = posix::list(files_.directory());
  if (!names) return;
  for (const std::string& name : *names) {
    if (files_.is_taken(name)) (void)posix::remove_file(files_.directory() + "/" + name);
  }
}

Status StepMeeting::tell(const Report& report) const {
  return leave(session_, files_, files_.record(), to_json(report) + "\n");
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
