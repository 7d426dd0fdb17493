// How many connections pay, found out by trying: there are four times as many (over a long way
// sixteen times) while the bytes per second of all files together grow with it, and as many as paid
// last when they do not. It is not even tried where the thread that serves them all is too busy for
// that growth. What was found out holds for a while, or until the bytes per second break in: a
// server that limits each connection often lets the first megabytes of it pass at once.
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
    /// Processor time so far of the thread that serves all connections; always 0: not measured.
    std::chrono::nanoseconds worked{0};
  };

  /// How many connections there should be now.
  [[nodiscard]] int wanted(const Sample& sample);
  /// What one connection brought of late, bytes per second; nullopt: not known yet.
  [[nodiscard]] std::optional<double> rate_of_one() const { return rate_of_one_; }

 private:
  enum class Phase { kBaseline, kTrial, kSettled };

  void measure_anew(const Sample& sample);
  [[nodiscard]] bool can_pay(const Sample& sample, int connections) const;
  int try_more(const Sample& sample, double rate);
  int settle(const Sample& sample);

  Phase phase_ = Phase::kBaseline;
  std::optional<Clock::TimePoint> since_;  ///< begin of the window
  std::uint64_t bytes_before_ = 0;
  std::chrono::nanoseconds worked_before_{0};
  int running_ = 0;
  int paid_ = 0;     ///< connections that did
  double rate_ = 0;  ///< bytes per second with those
  int factor_ = 4;   ///< of the next trial
  std::optional<double> rate_of_one_;
  Clock::TimePoint settled_until_{};
  Clock::TimePoint settled_at_least_until_{};
  std::chrono::seconds patience_{5};
};

}  // namespace fvprefetch
