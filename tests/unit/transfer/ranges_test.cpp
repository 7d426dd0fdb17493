#include "transfer/ranges.h"

#include <gtest/gtest.h>

#include <string>

#include "support/matchers.h"

namespace fvprefetch {
namespace {

RangeSet set_of(std::initializer_list<Range> ranges) {
  RangeSet set;
  for (const Range& range : ranges) set.add(range);
  return set;
}

struct AddRow {
  std::string name;
  std::vector<Range> added;
  std::vector<Range> expected;
};
class RangesAdd : public ::testing::TestWithParam<AddRow> {};

TEST_P(RangesAdd, AreDisjointAndInOrder) {
  RangeSet set;
  for (const Range& range : GetParam().added) set.add(range);
  EXPECT_EQ(set.ranges(), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, RangesAdd,
    ::testing::Values(AddRow{"Nothing", {{5, 5}}, {}}, AddRow{"One", {{0, 5}}, {{0, 5}}},
                      AddRow{"Apart", {{0, 5}, {7, 9}}, {{0, 5}, {7, 9}}},
                      AddRow{"BeforeTheOthers", {{7, 9}, {0, 5}}, {{0, 5}, {7, 9}}},
                      AddRow{"Touching", {{0, 5}, {5, 9}}, {{0, 9}}},
                      AddRow{"TouchingFromBelow", {{5, 9}, {0, 5}}, {{0, 9}}},
                      AddRow{"ClosingAHole", {{0, 5}, {7, 9}, {5, 7}}, {{0, 9}}},
                      AddRow{"Within", {{0, 9}, {3, 4}}, {{0, 9}}},
                      AddRow{"Over", {{1, 2}, {3, 4}, {6, 7}, {0, 5}}, {{0, 5}, {6, 7}}},
                      AddRow{"Overlapping", {{0, 5}, {3, 8}}, {{0, 8}}}),
    testing::row_name<AddRow>);

TEST(Ranges, FrontIsHowFarItIsThereWithoutAHole) {
  EXPECT_EQ(RangeSet().front(), 0U);
  EXPECT_EQ(set_of({{3, 9}}).front(), 0U);
  EXPECT_EQ(set_of({{0, 4}, {5, 9}}).front(), 4U);
}

TEST(Ranges, CountsItsBytes) {
  EXPECT_EQ(set_of({{0, 4}, {5, 9}}).bytes(), 8U);
}

TEST(Ranges, TellsWhatIsMissing) {
  const RangeSet set = set_of({{2, 4}, {6, 8}});
  EXPECT_EQ(set.missing({0, 10}), (std::vector<Range>{{0, 2}, {4, 6}, {8, 10}}));
  EXPECT_EQ(set.missing({3, 7}), (std::vector<Range>{{4, 6}}));
  EXPECT_EQ(set.missing({6, 8}), std::vector<Range>{});
  EXPECT_EQ(set.missing({8, kNoEnd}), (std::vector<Range>{{8, kNoEnd}}));
}

TEST(Ranges, ForgetsWhatLiesBehindAnEnd) {
  RangeSet set = set_of({{0, 4}, {6, 9}});
  set.clip(7);
  EXPECT_EQ(set.ranges(), (std::vector<Range>{{0, 4}, {6, 7}}));
  set.clip(5);
  EXPECT_EQ(set.ranges(), (std::vector<Range>{{0, 4}}));
  set.clip(0);
  EXPECT_EQ(set.bytes(), 0U);
}

TEST(Ranges, HasARangeOnlyWhole) {
  const RangeSet set = set_of({{0, 4}, {6, 9}});
  EXPECT_TRUE(set.has({1, 4}));
  EXPECT_FALSE(set.has({3, 7}));
}

constexpr std::uint64_t kMiB = 1U << 20U;

struct ShareRow {
  std::string name;
  std::vector<Range> done;
  std::vector<Range> busy;
  std::optional<Share> expected;  // of 64 MiB, none smaller than 4
};
class NextShare : public ::testing::TestWithParam<ShareRow> {};

TEST_P(NextShare, IsWhatPaysMost) {
  RangeSet done;
  for (const Range& range : GetParam().done) done.add(range);
  EXPECT_EQ(next_share(done, 64 * kMiB, GetParam().busy, {16 * kMiB, 4 * kMiB}),
            GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, NextShare,
    ::testing::Values(
        ShareRow{"TheFirstPiece", {}, {}, Share{{0, 16 * kMiB}, std::nullopt}},
        ShareRow{"OfWhatIsMissing",
                 {{0, 8 * kMiB}},
                 {{8 * kMiB, 24 * kMiB}},
                 Share{{24 * kMiB, 40 * kMiB}, std::nullopt}},
        ShareRow{"WithAnEndThatIsNotWorthAPiece",
                 {{0, 45 * kMiB}},
                 {},
                 Share{{45 * kMiB, 64 * kMiB}, std::nullopt}},
        ShareRow{"TheBackHalf", {}, {{0, 64 * kMiB}}, Share{{32 * kMiB, 64 * kMiB}, 0}},
        ShareRow{"OfWhatIsLeft",
                 {{0, 32 * kMiB}},
                 {{32 * kMiB, 64 * kMiB}},
                 Share{{48 * kMiB, 64 * kMiB}, 0}},
        ShareRow{"OfTheLargest",
                 {},
                 {{0, 16 * kMiB}, {16 * kMiB, 64 * kMiB}},
                 Share{{40 * kMiB, 64 * kMiB}, 1}},
        ShareRow{"WhatNobodyIsAt",
                 {{0, 8 * kMiB}},
                 {{32 * kMiB, 64 * kMiB}},
                 Share{{8 * kMiB, 24 * kMiB}, std::nullopt}},
        ShareRow{"EvenWhenItIsSmall", {{1, 64 * kMiB}}, {}, Share{{0, 1}, std::nullopt}},
        ShareRow{
            "NotHalvesThatAreTooSmall", {{0, 57 * kMiB}}, {{57 * kMiB, 64 * kMiB}}, std::nullopt},
        ShareRow{"BeginningAtAPage",
                 {},
                 {{0, 64 * kMiB - 1}, {64 * kMiB - 1, 64 * kMiB}},
                 Share{{32 * kMiB - 4096, 64 * kMiB - 1}, 0}},
        ShareRow{"NothingOfAWholeFile", {{0, 64 * kMiB}}, {}, std::nullopt}),
    testing::row_name<ShareRow>);

}  // namespace
}  // namespace fvprefetch
