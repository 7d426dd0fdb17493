#include "base/clock.h"

#include <gtest/gtest.h>

#include <regex>
#include <thread>

namespace fvprefetch {
namespace {

TEST(RealClock, SleepsUntilTheTimeHasCome) {
  const auto until = real_clock().now() + std::chrono::milliseconds(5);
  real_clock().sleep_until(until, {});
  EXPECT_GE(real_clock().now(), until);
}

TEST(RealClock, DoesNotSleepAfterAStop) {
  std::stop_source source;
  source.request_stop();
  // A sleep of a year would be a test that ends by the runner's own limit.
  const auto until = real_clock().now() + std::chrono::hours(24 * 365);
  real_clock().sleep_until(until, source.get_token());
  EXPECT_LT(real_clock().now(), until);
}

TEST(RealClock, NoticesAStopFromAnotherThread) {
  std::stop_source source;
  std::jthread other([&source] { source.request_stop(); });
  const auto until = real_clock().now() + std::chrono::hours(24 * 365);
  real_clock().sleep_until(until, source.get_token());
  EXPECT_LT(real_clock().now(), until);
}

TEST(Rfc3339, WritesUtcWithSeconds) {
  EXPECT_EQ(rfc3339(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(rfc3339(951'827'696), "2000-02-29T12:34:56Z");
}

TEST(Rfc3339, NowHasTheSameForm) {
  EXPECT_TRUE(std::regex_match(rfc3339_now(), std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")));
}

}  // namespace
}  // namespace fvprefetch
