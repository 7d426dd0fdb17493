#include "cluster/second_process.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

namespace fvprefetch {
namespace {

TEST(SecondProcess, IsRankOneOfTwoOnThisHost) {
  auto second = SecondProcess::start("here", [](Collective& ranks) {
    (void)ranks.all_gather(std::to_string(ranks.rank()) + ranks.node() +
                           (ranks.node_leader() ? "L" : "-"));
    (void)ranks.broadcast("ignored");
    (void)ranks.max(7);
    (void)ranks.quiet_wait();
    (void)ranks.all_gather(std::to_string(::getpid()));
  });
  ASSERT_TRUE(second) << second.error().message;
  Collective& ranks = (*second)->ranks();
  EXPECT_EQ(ranks.size(), 2);
  EXPECT_EQ(ranks.nodes(), 1);
  EXPECT_TRUE(ranks.node_leader());
  EXPECT_EQ(ranks.all_gather("me").value(), (std::vector<std::string>{"me", "1here-"}));
  EXPECT_EQ(ranks.broadcast("told").value(), "told");
  EXPECT_EQ(ranks.max(3).value(), 7);
  EXPECT_TRUE(ranks.quiet_wait());
  EXPECT_NE(ranks.all_gather("").value()[1], std::to_string(::getpid()));
}

TEST(SecondProcess, MayHaveMuchToSayWhileTheFirstSaysMuch) {
  const std::string much(4U << 20U, 'x');
  auto second =
      SecondProcess::start("here", [&](Collective& ranks) { (void)ranks.all_gather(much + "1"); });
  ASSERT_TRUE(second);
  const auto told = (*second)->ranks().all_gather(much + "0");
  ASSERT_TRUE(told);
  EXPECT_EQ((*told)[1], much + "1");
}

TEST(SecondProcess, ThatHasGoneIsAnErrorAndNoHang) {
  auto second = SecondProcess::start("here", [](Collective&) {});
  ASSERT_TRUE(second);
  const auto told = (*second)->ranks().all_gather("");
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().code, ErrorCode::kInternal);
}

TEST(SecondProcess, EndsWithTheFirstThoughItIsBusy) {
  auto second = SecondProcess::start("here", [](Collective&) {
    for (;;) ::pause();
  });
  ASSERT_TRUE(second);
  second->reset();  // returns
}

}  // namespace
}  // namespace fvprefetch
