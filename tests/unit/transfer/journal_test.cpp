#include "transfer/journal.h"

#include <gtest/gtest.h>

#include <string>

#include "support/matchers.h"

namespace fvprefetch {
namespace {

Journal example() {
  Journal journal;
  journal.size = 100;
  journal.digest = "sha256:ab";
  journal.address = "cd";
  journal.etag = "\"v1\"";
  journal.total = 100;
  journal.done.add({0, 50});
  journal.done.add({70, 80});
  journal.durable.add({0, 40});
  journal.boot = "boot";
  journal.owner = ProcessName{"host", "boot", "pid:[1]", 42, 4711};
  return journal;
}

TEST(Journal, ComesBackAsItWasWritten) {
  const Journal wrote = example();
  const auto read = parse_journal(to_text(wrote));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->size, wrote.size);
  EXPECT_EQ(read->digest, wrote.digest);
  EXPECT_EQ(read->address, wrote.address);
  EXPECT_EQ(read->etag, wrote.etag);
  EXPECT_EQ(read->total, wrote.total);
  EXPECT_EQ(read->done.ranges(), wrote.done.ranges());
  EXPECT_EQ(read->durable.ranges(), wrote.durable.ranges());
  EXPECT_EQ(read->boot, wrote.boot);
  EXPECT_EQ(read->owner, wrote.owner);
}

TEST(Journal, NeedsNeitherSizeNorOwner) {
  Journal wrote = example();
  wrote.size.reset();
  wrote.total.reset();
  wrote.owner.reset();
  const auto read = parse_journal(to_text(wrote));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->size, std::nullopt);
  EXPECT_EQ(read->total, std::nullopt);
  EXPECT_EQ(read->owner, std::nullopt);
}

TEST(Journal, ReliesOnWhatWasNotSyncedOnlyUnderTheSameKernel) {
  const Journal journal = example();
  EXPECT_EQ(journal.reliable("boot").bytes(), 60U);
  EXPECT_EQ(journal.reliable("another").bytes(), 40U);
}

TEST(Journal, ReliesOnNothingUnsyncedWhereTheKernelIsUnknown) {
  Journal journal = example();
  journal.boot.clear();
  EXPECT_EQ(journal.reliable("").bytes(), 40U);
}

struct BadRow {
  std::string name;
  std::string from;  // what of the right text is replaced
  std::string to;
};
class BadJournal : public ::testing::TestWithParam<BadRow> {};

TEST_P(BadJournal, IsNone) {
  std::string text = to_text(example());
  const std::size_t at = text.find(GetParam().from);
  ASSERT_NE(at, std::string::npos) << text;
  text.replace(at, GetParam().from.size(), GetParam().to);
  EXPECT_FALSE(parse_journal(text)) << text;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, BadJournal,
    ::testing::Values(BadRow{"OfAnotherVersion", "\"version\":1", "\"version\":2"},
                      BadRow{"WithoutVersion", "\"version\":1,", ""},
                      BadRow{"WithoutRanges", "\"done\"", "\"did\""},
                      BadRow{"NegativeRange", "[0,50]", "[-1,50]"},
                      BadRow{"BackwardRange", "[0,50]", "[50,0]"},
                      BadRow{"EmptyRange", "[0,50]", "[50,50]"},
                      BadRow{"RangeOfThree", "[0,50]", "[0,50,60]"},
                      BadRow{"RangeOfText", "[0,50]", "[\"0\",50]"},
                      BadRow{"HugeNumber", "[0,50]", "[0,99999999999999999999999]"},
                      BadRow{"SizeAsText", "\"size\":100", "\"size\":\"100\""},
                      BadRow{"OwnerAsText", "\"owner\":{", "\"owner\":7,\"x\":{"},
                      BadRow{"OwnerWithoutPid", "\"pid\":42", "\"pid\":null"},
                      BadRow{"CutOff", "\"boot\",\"pid_namespace\"", ""}),
    testing::row_name<BadRow>);

TEST(Journal, IsNoOtherText) {
  EXPECT_FALSE(parse_journal(""));
  EXPECT_FALSE(parse_journal("[]"));
  EXPECT_FALSE(parse_journal("null"));
  EXPECT_FALSE(parse_journal(std::string("\0\0\0", 3)));
}

}  // namespace
}  // namespace fvprefetch
