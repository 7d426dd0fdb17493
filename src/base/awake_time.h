// Patience with other processes, in which a suspension of this one does not count.
#pragma once

#include <optional>

#include "base/clock.h"

namespace fvprefetch {

/// Time for waits that are given up when another process is silent for too long: without those in
/// which this process itself did not run (it was suspended, with the others perhaps). To be asked
/// several times a second.
class AwakeTime {
 public:
  [[nodiscard]] Clock::TimePoint now();

 private:
  std::optional<Clock::TimePoint> last_;
  Clock::TimePoint::duration suspended_{};
};

}  // namespace fvprefetch
