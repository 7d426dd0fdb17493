// A call on a thread of its own, which may be late.
#include "base/within.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>

#include "support/thread_tail.h"

namespace fvprefetch {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

TEST(Within, GivesWhatTheCallReturns) {
  EXPECT_EQ(within(hours(1), [] { return 7; }), 7);
  EXPECT_EQ(within(hours(1), []() -> int { throw std::runtime_error("no"); }), std::nullopt);
}

TEST(Within, LeavesALateCallBehind) {
  const auto hold = std::make_shared<std::promise<void>>();
  EXPECT_EQ(within(milliseconds(10),
                   [wait = hold->get_future().share()] {
                     wait.wait();
                     return 7;
                   }),
            std::nullopt);
  hold->set_value();
}

TEST(Within, ReturnsWhenAllOfTheThreadHasEnded) {
  const auto ended = std::make_shared<std::atomic<bool>>(false);
  const auto work = [ended] {
    testing::give_thread_a_tail(ended);
    return 7;
  };
  EXPECT_EQ(within(hours(1), work), 7);
  EXPECT_TRUE(*ended);
}

}  // namespace
}  // namespace fvprefetch
