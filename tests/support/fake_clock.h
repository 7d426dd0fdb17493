// A Clock that stands still until it is told, or asked to sleep: then it is at once that time.
#pragma once

#include <vector>

#include "base/clock.h"

namespace fvprefetch::testing {

class FakeClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return now_; }

  using Clock::sleep_until;
  void sleep_until(TimePoint until, const std::stop_token& stop, Wake* /*wake*/) override {
    if (stop.stop_requested() || until <= now_) return;
    sleeps_.push_back(until - now_);
    now_ = until;
  }

  void advance(TimePoint::duration by) { now_ += by; }
  /// Every sleep so far, in order.
  [[nodiscard]] const std::vector<TimePoint::duration>& sleeps() const { return sleeps_; }

 private:
  TimePoint now_{std::chrono::hours(1)};  // not the epoch: what is "never" must not look like it
  std::vector<TimePoint::duration> sleeps_;
};

}  // namespace fvprefetch::testing
