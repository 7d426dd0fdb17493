#include "contract/collective_contract.h"

#include "contract/chain_contract.h"
#include "support/thread_collective.h"

namespace fvprefetch::testing {
namespace {

CollectiveHarness self() {
  return {"Self", [](const auto& body) { body(*make_self_collective("here")); }};
}

CollectiveHarness threads(int count) {
  return {"Threads" + std::to_string(count),
          [count](const auto& body) { run_ranks(two_to_a_node(count), body); }};
}

INSTANTIATE_TEST_SUITE_P(All, CollectiveContract,
                         ::testing::Values(self(), threads(1), threads(2), threads(3), threads(8)),
                         harness_name);
INSTANTIATE_TEST_SUITE_P(All, ChainContract,
                         ::testing::Values(self(), threads(1), threads(2), threads(3), threads(8)),
                         harness_name);

// The tests' own carrier: mistakes in a protocol must come out as errors, never as a hang.

TEST(ThreadCollective, RanksThatMeetInDifferentCollectivesAllFail) {
  run_ranks({"a", "b"}, [](Collective& ranks) {
    const bool ok = ranks.rank() == 0 ? ranks.quiet_wait().has_value() : ranks.max(1).has_value();
    EXPECT_FALSE(ok);
  });
}

TEST(ThreadCollective, WaitingForARankThatLeftFails) {
  run_ranks({"a", "b", "c"}, [](Collective& ranks) {
    if (ranks.rank() == 1) return;
    EXPECT_FALSE(ranks.quiet_wait());
  });
}

TEST(Chain, ARankThatLeavesIsAnErrorToAllAndNoHang) {
  run_ranks({"a", "b", "c"}, [](Collective& ranks) {
    if (ranks.rank() == 1) return;
    ChainOptions options = small_frames();
    options.patience = std::chrono::milliseconds(500);
    TestEnd mine(50'000, 1);
    EXPECT_TRUE(run_chain(ranks, mine.end, options).error);
  });
}

}  // namespace
}  // namespace fvprefetch::testing
