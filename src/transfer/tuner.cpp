#include "transfer/tuner.h"

#include <algorithm>

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;

// Twice the connections must bring this much more, four times as many the square of it: less is
// noise, and they cost the server, too.
constexpr double kPays = 1.15;
// Long enough for a rate, and for a connection over a long way to come up to speed.
constexpr milliseconds kShortestWindow(50);
constexpr milliseconds kLongestWindow(1000);
constexpr int kLatencies = 3;
// Conditions change; but who has found nothing to gain twice in a row need not look as often.
constexpr std::chrono::seconds kLongestPatience(60);
// Less than this of what was found out shows that conditions have changed already.
constexpr double kBrokenIn = 0.5;
// A link that breaks in all the time must not be tried all the time.
constexpr milliseconds kBetweenTrials(500);

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
  const auto window = std::clamp<std::chrono::nanoseconds>(kLatencies * sample.latency,
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
      const bool doubled = running_ <= 2 * paid_;
      if (rate < rate_ * kPays * (doubled ? 1 : kPays)) return settle(sample);
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
  phase_ = Phase::kTrial;
  since_.reset();
  return std::min(sample.most, factor_ * running_);
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
