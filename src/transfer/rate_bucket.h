// A token bucket: how long to wait so that bytes come at most so fast, on average over a moment.
// Pure: the caller tells the time.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/clock.h"

namespace fvprefetch {

class RateBucket {
 public:
  RateBucket(std::uint64_t bytes_per_second, Clock::TimePoint now)
      : rate_(static_cast<double>(bytes_per_second)), filled_(now) {}

  void take(std::uint64_t bytes) { level_ -= static_cast<double>(bytes); }

  /// More was taken than there was, as of the last wait().
  [[nodiscard]] bool exhausted() const { return level_ < 0; }

  /// Until more may be taken; zero: now. What is not taken while nothing comes is kept for a tenth
  /// of a second and no longer: a pause must not be followed by a flood.
  [[nodiscard]] std::chrono::nanoseconds wait(Clock::TimePoint now) {
    constexpr double kKept = 0.1;
    level_ += rate_ * std::chrono::duration<double>(now - filled_).count();
    level_ = std::min(level_, rate_ * kKept);
    filled_ = now;
    if (level_ >= 0) return std::chrono::nanoseconds(0);
    return std::chrono::ceil<std::chrono::nanoseconds>(
        std::chrono::duration<double>(-level_ / rate_));
  }

 private:
  double rate_;
  double level_ = 0;  // bytes; below zero: taken in advance
  Clock::TimePoint filled_;
};

}  // namespace fvprefetch
