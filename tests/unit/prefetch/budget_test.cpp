// How much of the system a run takes where little may be open.
#include <gtest/gtest.h>

#include <limits>

#include "prefetch/session.h"

namespace fvprefetch {
namespace {

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

TEST(Budget, IsWhatTheOptionsAskForWhereMuchMayBeOpen) {
  Options options;
  options.max_active = 32;
  options.connections = 6;
  for (const std::size_t descriptors : {std::size_t{100'000}, kUnlimited}) {
    const Budget budget = budget_for(options, descriptors);
    EXPECT_EQ(budget.files, 32U);
    EXPECT_EQ(budget.connections, 6);
    EXPECT_EQ(budget.sockets, 0U);
  }
}

TEST(Budget, FitsIntoWhatMayBeOpenAndNeverIsNothing) {
  Options options;
  for (std::size_t descriptors = 0; descriptors < 2000; ++descriptors) {
    const Budget budget = budget_for(options, descriptors);
    ASSERT_GE(budget.files, 1U);
    ASSERT_LE(budget.files, static_cast<std::size_t>(options.max_active));
    ASSERT_GE(budget.connections, 1);
    ASSERT_LE(budget.connections, options.connections);
    const std::size_t sockets = budget.files * static_cast<std::size_t>(budget.connections);
    if (descriptors >= 32) {
      ASSERT_LE(budget.files * 9 + sockets, descriptors) << descriptors;
    }
    if (budget.sockets > 0) {
      ASSERT_GE(budget.sockets, sockets);
    }
  }
}

}  // namespace
}  // namespace fvprefetch
