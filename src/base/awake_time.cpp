#include "base/awake_time.h"

#include <chrono>

namespace fvprefetch {

Clock::TimePoint AwakeTime::now() {
  constexpr std::chrono::seconds kSuspended(2);  // no turn of a loop takes so long
  const Clock::TimePoint now = std::chrono::steady_clock::now();
  if (last_ && now - *last_ > kSuspended) suspended_ += now - *last_;
  last_ = now;
  return now - suspended_;
}

}  // namespace fvprefetch
