#include "transfer/tuner.h"

#include <algorithm>

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;

// Twice the connections must bring this much more: less is noise, and they cost the server, too.
constexpr double kPays = 1.15;
// Long enough for a rate, and for a connection over a long way to come up to speed.
constexpr milliseconds kShortestWindow(100);
constexpr milliseconds kLongestWindow(1000);
constexpr int kLatencies = 6;
// Conditions change; but who has found nothing to gain twice in a row need not look as often.
constexpr std::chrono::seconds kLongestPatience(60);

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
  if (phase_ == Phase::kSettled) {
    if (sample.now < settled_until_) return paid_;
    phase_ = Phase::kBaseline;
    since_.reset();
  }
  if (!sample.all_deliver) {
    since_.reset();
    return running_;
  }
  if (!since_) measure_anew(sample);
  const auto window = std::clamp<std::chrono::nanoseconds>(kLatencies * sample.latency,
                                                           kShortestWindow, kLongestWindow);
  const auto passed = sample.now - *since_;
  if (passed < window) return running_;

  const double rate = static_cast<double>(sample.bytes - bytes_before_) /
                      std::chrono::duration<double>(passed).count();
  if (phase_ == Phase::kTrial && rate < rate_ * kPays) return settle(sample, paid_);
  if (phase_ == Phase::kTrial) patience_ = std::chrono::seconds(5);
  rate_ = rate;
  paid_ = running_;
  if (sample.most <= running_) {
    measure_anew(sample);
    return running_;
  }
  phase_ = Phase::kTrial;
  since_.reset();
  return std::min(sample.most, 2 * running_);
}

void Tuner::measure_anew(const Sample& sample) {
  since_ = sample.now;
  bytes_before_ = sample.bytes;
}

int Tuner::settle(const Sample& sample, int at) {
  phase_ = Phase::kSettled;
  settled_until_ = sample.now + patience_;
  patience_ = std::min(patience_ * 2, kLongestPatience);
  return at;
}

}  // namespace fvprefetch
