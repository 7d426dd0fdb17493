#include "transfer/tuner.h"

#include <algorithm>
#include <cmath>

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;

// Twice the connections must bring this much more, four times as many the square of it, and so on:
// less is noise, and they cost the server, too.
constexpr double kPays = 1.15;
// Long enough for a rate, and for a connection over a long way to come up to speed.
constexpr milliseconds kShortestWindow(50);
constexpr milliseconds kLongestWindow(1000);
constexpr int kLatencies = 3;
// Over such a way a connection alone takes many round trips to come up to speed, and seldom fills
// it: the first step is to all that could be of use, and soon.
constexpr milliseconds kLongWay(15);
constexpr int kAllAtOnce = 16;
// Conditions change; but who has found nothing to gain twice in a row need not look as often.
constexpr std::chrono::seconds kLongestPatience(60);
// Less than this of what was found out shows that conditions have changed already.
constexpr double kBrokenIn = 0.5;
// A link that breaks in all the time must not be tried all the time.
constexpr milliseconds kBetweenTrials(500);

double growth_that_pays(int from, int to) {
  return std::pow(kPays, std::max(std::log2(static_cast<double>(to) / from), 1.0));
}

}  // namespace

int Tuner::wanted(const Sample& sample) {
  if (sample.running != running_) {
    // Files came or went, or what we asked for came true.
    const bool asked_for = phase_ == Phase::kTrial && sample.running > paid_;
    if (!asked_for && !(phase_ == Phase::kSettled && sample.running == paid_)) {
      phase_ = Phase::kBaseline;
    }
    running_ = sample.running;
    since_.reset();
  }
  if (phase_ == Phase::kSettled && sample.now >= settled_until_) {
    phase_ = Phase::kBaseline;
    since_.reset();
  }
  const int as_it_is = phase_ == Phase::kSettled ? paid_ : running_;
  if (!sample.all_deliver) {
    since_.reset();
    return as_it_is;
  }
  if (!since_) measure_anew(sample);
  const int latencies = phase_ == Phase::kBaseline ? 1 : kLatencies;
  const auto window = std::clamp<std::chrono::nanoseconds>(latencies * sample.latency,
                                                           kShortestWindow, kLongestWindow);
  const auto passed = sample.now - *since_;
  if (passed < window) return as_it_is;

  const double rate = static_cast<double>(sample.bytes - bytes_before_) /
                      std::chrono::duration<double>(passed).count();
  rate_of_one_ = rate / running_;
  switch (phase_) {
    case Phase::kBaseline:
      return try_more(sample, rate);
    case Phase::kTrial: {
      if (rate < rate_ * growth_that_pays(paid_, running_)) {
        if (running_ <= 4 * paid_) return settle(sample);
        since_.reset();  // fewer may pay
        return 4 * paid_;
      }
      patience_ = std::chrono::seconds(5);
      return try_more(sample, rate);
    }
    case Phase::kSettled:
      if (rate < rate_ * kBrokenIn && sample.now >= settled_at_least_until_) {
        return try_more(sample, rate);
      }
      measure_anew(sample);
      return as_it_is;
  }
  return as_it_is;
}

void Tuner::measure_anew(const Sample& sample) {
  since_ = sample.now;
  bytes_before_ = sample.bytes;
  worked_before_ = sample.worked;
}

// All connections share one thread: what it does not sleep is all that can be gained.
bool Tuner::can_pay(const Sample& sample, int connections) const {
  const double passed = std::chrono::duration<double>(sample.now - *since_).count();
  const double worked = std::chrono::duration<double>(sample.worked - worked_before_).count();
  return worked * growth_that_pays(running_, connections) <= passed;
}

int Tuner::try_more(const Sample& sample, double rate) {
  rate_ = rate;
  paid_ = running_;
  if (sample.most <= running_) {
    phase_ = Phase::kBaseline;
    // The window goes on: what could be of use may be known at the next look.
    if (sample.now - *since_ >= kLongestWindow) measure_anew(sample);
    return running_;
  }
  const bool far = sample.latency >= kLongWay && factor_ == 4;
  const int more = std::min(sample.most, (far ? kAllAtOnce : factor_) * running_);
  if (!can_pay(sample, more)) return settle(sample);
  phase_ = Phase::kTrial;
  since_.reset();
  return more;
}

int Tuner::settle(const Sample& sample) {
  phase_ = Phase::kSettled;
  since_.reset();
  settled_until_ = sample.now + patience_;
  settled_at_least_until_ = sample.now + kBetweenTrials;
  patience_ = std::min(patience_ * 2, kLongestPatience);
  factor_ = factor_ == 4 ? 2 : 4;  // the next time the other step
  return paid_;
}

}  // namespace fvprefetch
