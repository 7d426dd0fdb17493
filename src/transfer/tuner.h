// How many connections pay, found out by trying: their number is doubled while the bytes per second
// of all files together grow with it, and goes back to the last one that paid when they do not.
// Pure: the caller measures and acts.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace fvprefetch {

class Tuner {
 public:
  struct Sample {
    Clock::TimePoint now;
    std::uint64_t bytes = 0;   ///< received so far, over all connections that there ever were
    int running = 0;           ///< connections
    int most = 0;              ///< as many could be of use now
    bool all_deliver = false;  ///< each of them has brought its first byte
    std::chrono::nanoseconds latency{0};  ///< the longest time that a first byte took
  };

  /// How many connections there should be now.
  [[nodiscard]] int wanted(const Sample& sample);

 private:
  enum class Phase { kBaseline, kTrial, kSettled };

  void measure_anew(const Sample& sample);
  int settle(const Sample& sample, int at);

  Phase phase_ = Phase::kBaseline;
  std::optional<Clock::TimePoint> since_;  ///< begin of the window
  std::uint64_t bytes_before_ = 0;
  int running_ = 0;
  int paid_ = 0;     ///< connections that did
  double rate_ = 0;  ///< bytes per second with those
  Clock::TimePoint settled_until_{};
  std::chrono::seconds patience_{5};
};

}  // namespace fvprefetch
