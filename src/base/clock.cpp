#include "base/clock.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <thread>

namespace fvprefetch {
namespace {

class RealClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return std::chrono::steady_clock::now(); }

  using Clock::sleep_until;
  void sleep_until(TimePoint until, const std::stop_token& stop, Wake* wake) override {
    // Short naps instead of a condition variable with a stop callback: a stop may be asked from a
    // place where no callback can run (a signal's way into the program). Ten a second: who waits
    // for a lock for hours must not be seen in `top`.
    constexpr auto kNap = std::chrono::milliseconds(100);
    while (!stop.stop_requested()) {
      const TimePoint at = now();
      if (at >= until) return;
      const auto nap = std::min<Clock::TimePoint::duration>(kNap, until - at);
      if (wake == nullptr) {
        std::this_thread::sleep_for(nap);
      } else if (wake->wait_for(nap)) {
        return;
      }
    }
  }

  [[nodiscard]] std::chrono::nanoseconds thread_time() const override {
    timespec used{};
    (void)::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);  // Linux has it: cannot fail
    return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
  }
};

}  // namespace

void Wake::up() {
  {
    const std::lock_guard guard(mutex_);
    up_ = true;
  }
  called_.notify_one();
}

bool Wake::wait_for(std::chrono::nanoseconds time) {
  std::unique_lock guard(mutex_);
  const bool called = called_.wait_for(guard, time, [this] { return up_; });
  up_ = false;
  return called;
}

Clock& real_clock() {
  static RealClock clock;
  return clock;
}

std::int64_t wall_clock_ns() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

std::string rfc3339_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  return rfc3339(now);
}

std::string rfc3339(std::int64_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm utc{};
  if (::gmtime_r(&time, &utc) == nullptr) return {};
  std::array<char, 32> text{};
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return {text.data(), length};
}

}  // namespace fvprefetch
