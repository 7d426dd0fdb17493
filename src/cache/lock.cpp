#include "cache/lock.h"

#include <algorithm>

#include "base/printable.h"

namespace fvprefetch {
namespace {

// A wait that is over before a person would wonder is not worth a line.
constexpr std::chrono::seconds kFirstSay{2};
constexpr std::chrono::seconds kFirstSayOfNobody{5};
constexpr std::chrono::microseconds kShortestInterval{1'000};
constexpr std::chrono::microseconds kLongestInterval{1'000'000};
// Whoever waits finds out at the latest after this part of the wait more.
constexpr int kPartOfTheWait = 8;

}  // namespace

std::string Holder::describe() const {
  std::string text = host.empty() ? "" : host + " ";
  text += "pid " + std::to_string(pid);
  if (!user.empty()) text += " user " + user;
  if (!job.empty()) text += " job " + job + (step.empty() ? "" : "." + step);
  if (!since.empty()) text += ", since " + since;
  return escaped(text);  // a record may be anybody's
}

LockWait::LockWait(Limits limits, Clock::TimePoint now)
    : limits_(limits),
      begin_(now),
      last_progress_(now),
      next_say_(now + kFirstSay),
      random_(std::random_device{}()) {}

LockWait::Step LockWait::step(Clock::TimePoint now, std::uint64_t holder_bytes, bool knows_holder) {
  // Fewer bytes are progress as well: another holder, or an attempt begun anew.
  if (holder_bytes != holder_bytes_) last_progress_ = now;
  holder_bytes_ = holder_bytes;

  const auto allowed = limits_.timeout ? *limits_.timeout : limits_.no_progress;
  const Clock::TimePoint counted_from = limits_.timeout ? begin_ : last_progress_;
  const auto used = now - counted_from;

  Step step;
  step.timed_out = used >= allowed;
  step.say = now >= next_say_ && (knows_holder || now >= begin_ + kFirstSayOfNobody);
  if (step.say) next_say_ = now + limits_.say_every;

  const auto interval = std::clamp(
      std::chrono::duration_cast<std::chrono::microseconds>(now - begin_) / kPartOfTheWait,
      kShortestInterval, kLongestInterval);
  // Jitter in [1/2, 1]: the tasks of a job that began together must not ask together.
  std::uniform_int_distribution<std::int64_t> jitter(interval.count() / 2, interval.count());
  Clock::TimePoint::duration pause = std::chrono::microseconds(jitter(random_));
  if (!step.timed_out) pause = std::min<Clock::TimePoint::duration>(pause, allowed - used);
  step.next_try = now + pause;
  return step;
}

std::chrono::milliseconds LockWait::waited(Clock::TimePoint now) const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(now - begin_);
}

}  // namespace fvprefetch
