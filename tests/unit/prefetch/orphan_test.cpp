// What is an orphan: a table of the rules, and what can be seen of real files.
#include "prefetch/orphan.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/clock.h"
#include "support/matchers.h"
#include "support/temp_dir.h"
#include "transfer/journal.h"

namespace fvprefetch {
namespace {

using testing::IsOk;
using testing::TempDir;

constexpr std::int64_t kHour = std::int64_t{3600} * 1'000'000'000;
constexpr std::int64_t kNow = 500'000 * kHour;

Signs signs(bool data, bool journal, bool legible, std::int64_t hours,
            std::optional<Liveness> owner = std::nullopt) {
  Signs made;
  made.data = data;
  made.journal = journal;
  made.legible = legible;
  made.changed_ns = kNow - hours * kHour;
  made.owner = owner;
  return made;
}

struct Row {
  const char* name;
  Signs signs;
  Fate fate;
};
const Row kRows[] = {
    {"nothing_there", signs(false, false, false, 100), Fate::kNothing},
    {"data_alone_old", signs(true, false, false, 25), Fate::kUseless},
    {"data_alone_young", signs(true, false, false, 23), Fate::kYoung},
    {"a_day_to_the_hour", signs(true, false, false, 24), Fate::kUseless},
    {"journal_alone_old", signs(false, true, true, 25), Fate::kUseless},
    {"journal_alone_young", signs(false, true, true, 1), Fate::kYoung},
    {"journal_alone_of_the_living", signs(false, true, true, 900, Liveness::kAlive), Fate::kInUse},
    {"both_let_go", signs(true, true, true, 25), Fate::kUnfinished},
    {"both_let_go_young", signs(true, true, true, 23), Fate::kYoung},
    {"owner_gone", signs(true, true, true, 25, Liveness::kGone), Fate::kUnfinished},
    {"owner_gone_young", signs(true, true, true, 23, Liveness::kGone), Fate::kYoung},
    {"owner_lives", signs(true, true, true, 9000, Liveness::kAlive), Fate::kInUse},
    {"owner_elsewhere_old", signs(true, true, true, 25, Liveness::kUnknown), Fate::kUnfinished},
    {"owner_elsewhere_young", signs(true, true, true, 23, Liveness::kUnknown), Fate::kYoung},
    {"illegible_journal_old", signs(true, true, false, 25), Fate::kUseless},
    {"illegible_journal_young", signs(true, true, false, 23), Fate::kYoung},
    {"of_the_future", signs(true, false, false, -1), Fate::kYoung},
    {"without_a_time", signs(true, false, false, 500'000), Fate::kYoung},
};
class Rules : public ::testing::TestWithParam<Row> {};
TEST_P(Rules, DecideWhatIsAnOrphan) {
  EXPECT_EQ(judge(GetParam().signs, kNow), GetParam().fate);
}
INSTANTIATE_TEST_SUITE_P(Rows, Rules, ::testing::ValuesIn(kRows), testing::row_name<Row>);

// Sets the time of a file to `hours` ago.
void age(const std::string& path, int hours) {
  const auto then = std::filesystem::file_time_type::clock::now() - std::chrono::hours(hours);
  std::filesystem::last_write_time(path, then);
}

class Looking : public ::testing::Test {
 protected:
  Leftover made(int data_hours, int journal_hours, std::optional<ProcessName> owner) {
    Leftover leftover;
    leftover.data = dir_.write("a.00c0ffee.fvprefetch-part", "half");
    Journal journal;
    journal.owner = std::move(owner);
    leftover.journal = dir_.write("journal", to_text(journal));
    age(leftover.data, data_hours);
    age(leftover.journal, journal_hours);
    return leftover;
  }
  static Fate fate_of(const Leftover& leftover) {
    const auto seen = look_at(leftover);
    EXPECT_TRUE(IsOk(seen));
    return seen ? judge(*seen, wall_clock_ns()) : Fate::kNothing;
  }

  TempDir dir_;
};

TEST_F(Looking, TheLaterChangeOfTheTwoCounts) {
  EXPECT_EQ(fate_of(made(30, 1, std::nullopt)), Fate::kYoung);
  EXPECT_EQ(fate_of(made(1, 30, std::nullopt)), Fate::kYoung);
  EXPECT_EQ(fate_of(made(30, 30, std::nullopt)), Fate::kUnfinished);
}

TEST_F(Looking, TheOwnerIsAskedAfter) {
  EXPECT_EQ(fate_of(made(900, 900, this_process())), Fate::kInUse);
  ProcessName gone = this_process();
  ++gone.started;  // the pid was given again
  EXPECT_EQ(fate_of(made(30, 30, gone)), Fate::kUnfinished);
  ProcessName elsewhere = this_process();
  elsewhere.boot = "another kernel";
  EXPECT_EQ(fate_of(made(30, 30, elsewhere)), Fate::kUnfinished);
  EXPECT_EQ(fate_of(made(30, 23, elsewhere)), Fate::kYoung);
}

TEST_F(Looking, AJournalThatCannotBeReadIsNone) {
  Leftover leftover = made(30, 30, std::nullopt);
  dir_.write("journal", R"({"version": 99})");
  age(leftover.journal, 30);
  EXPECT_EQ(fate_of(leftover), Fate::kUseless);
}

TEST_F(Looking, NeitherLinksNorDirectoriesAreOurs) {
  const std::string outside = dir_.write("outside", "precious");
  age(outside, 900);
  Leftover leftover;
  leftover.data = dir_ / "link.00c0ffee.fvprefetch-part";
  ASSERT_EQ(::symlink(outside.c_str(), leftover.data.c_str()), 0);
  leftover.journal = dir_ / "folder";
  ASSERT_EQ(::mkdir(leftover.journal.c_str(), 0777), 0);
  age(leftover.journal, 900);
  EXPECT_EQ(fate_of(leftover), Fate::kNothing);
}

TEST_F(Looking, ALinkOnItsWayIsOurs) {
  Leftover leftover;
  leftover.kind = Leftover::Kind::kTemporary;
  leftover.data = dir_ / "00c0ffee";
  ASSERT_EQ(::symlink("nowhere", leftover.data.c_str()), 0);
  EXPECT_EQ(fate_of(leftover), Fate::kYoung);  // its own time, not that of what it leads to
}

TEST_F(Looking, TheFileSystemIsAskedForTheTimeAndTheProbeIsGone) {
  const std::string probe = dir_ / "00c0ffee";
  const std::int64_t before = wall_clock_ns();
  const std::int64_t now = careful_now(probe);
  EXPECT_LE(now, wall_clock_ns());
  EXPECT_GT(now, before - kHour);
  EXPECT_EQ(dir_.files(), std::vector<std::string>{});
  EXPECT_GT(careful_now(dir_ / "no/such/folder"), before - kHour);
}

}  // namespace
}  // namespace fvprefetch
