#include "cli/console.h"

#include <gtest/gtest.h>

#include "cli/signals.h"
#include "support/fake_clock.h"

namespace fvprefetch::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeClock;

class NarratorTest : public ::testing::Test {
 protected:
  Narrator::Speech say(const Event& event) { return narrator.on_event(event, clock.now(), 80); }
  std::size_t lines_of(const Event& event, int times, milliseconds apart) {
    std::size_t lines = 0;
    for (int i = 0; i < times; ++i) {
      lines += say(event).lines.size();
      clock.advance(apart);
    }
    return lines;
  }
  void use(ProgressStyle style, bool quiet = false, bool verbose = false) {
    narrator = Narrator({style, quiet, verbose});
  }

  FakeClock clock;
  Narrator narrator{{ProgressStyle::kLog, false, false}};
};

TEST_F(NarratorTest, ALogGetsAtMostOneProgressLinePerHalfMinute) {
  (void)say(FetchPlanned{2, 1000, true});
  // Ten minutes of events, five a second.
  EXPECT_LE(lines_of(BytesArrived{500, 1000, 1, 2}, 3000, milliseconds(200)), 20U);
}

TEST_F(NarratorTest, AProgressLineHasBytesAndFiles) {
  (void)say(FetchPlanned{2, 28'300'000'000, true});
  clock.advance(seconds(31));
  const auto speech = say(BytesArrived{3'200'000'000, 28'300'000'000, 1, 2});
  ASSERT_EQ(speech.lines.size(), 1U);
  EXPECT_NE(speech.lines[0].find("3.2 of 28.3 GB"), std::string::npos) << speech.lines[0];
  EXPECT_NE(speech.lines[0].find("1 of 2 files"), std::string::npos) << speech.lines[0];
  EXPECT_FALSE(speech.bar.has_value());
}

TEST_F(NarratorTest, AnUnknownSizeIsNotCalledZero) {
  const auto speech = say(FetchPlanned{1, 0, false});
  ASSERT_EQ(speech.lines.size(), 1U);
  EXPECT_EQ(speech.lines[0], "fetching 1 file");
}

TEST_F(NarratorTest, ABarFitsTheTerminal) {
  use(ProgressStyle::kBar);
  (void)say(FetchPlanned{2, 1000, true});
  for (const std::size_t columns : {20U, 40U, 80U, 200U}) {
    clock.advance(seconds(1));
    const auto speech = narrator.on_event(BytesArrived{500, 1000, 1, 2}, clock.now(), columns);
    ASSERT_TRUE(speech.bar.has_value());
    EXPECT_LT(speech.bar->size(), columns);
    EXPECT_TRUE(speech.lines.empty());
  }
}

TEST_F(NarratorTest, WaitingSaysOnWhomHowLongAndHowFar) {
  LockWaited event;
  event.entry = "w";
  event.path = "w.safetensors";
  event.holder = "node17 pid 4242 job 881";
  event.waited = seconds(180);
  event.bytes_done = 12'400'000'000;
  event.bytes_total = 28'300'000'000;
  const auto speech = say(event);
  ASSERT_EQ(speech.lines.size(), 1U);
  for (const char* part : {"node17 pid 4242 job 881", "12.4 of 28.3 GB", "3 min"}) {
    EXPECT_NE(speech.lines[0].find(part), std::string::npos) << speech.lines[0];
  }
}

TEST_F(NarratorTest, ManyFilesThatWaitDoNotFloodTheLog) {
  LockWaited event;
  event.holder = "node17 pid 4242";
  std::size_t lines = 0;
  for (int i = 0; i < 100; ++i) {
    event.path = "file" + std::to_string(i);
    lines += say(event).lines.size();
  }
  EXPECT_EQ(lines, 1U);
}

TEST_F(NarratorTest, AWarningIsSaidOnce) {
  EXPECT_EQ(lines_of(Warned{"w", "locks do not work here"}, 5, seconds(60)), 1U);
}

TEST_F(NarratorTest, QuietSaysNothing) {
  use(ProgressStyle::kLog, /*quiet=*/true);
  EXPECT_TRUE(say(FetchPlanned{2, 1000, true}).lines.empty());
  EXPECT_TRUE(say(Warned{"w", "x"}).lines.empty());
}

TEST_F(NarratorTest, VerboseNamesEveryFile) {
  EXPECT_TRUE(say(FileFinished{"w", "a.bin", 7}).lines.empty());
  use(ProgressStyle::kLog, false, /*verbose=*/true);
  EXPECT_EQ(say(FileFinished{"w", "a.bin", 7}).lines.size(), 1U);
}

TEST(Printable, TakesControlCharactersOfAServerAway) {
  EXPECT_EQ(printable("a\x1b[31mb\r").find_first_of("\x1b\r"), std::string::npos);
  EXPECT_EQ(printable("plain text"), "plain text");
}

TEST(SignalPolicy, TheFirstStopsAnEchoIsIgnoredAndALaterOneExits) {
  SignalPolicy policy;
  const Clock::TimePoint begin{};
  EXPECT_EQ(policy.on_signal(begin), SignalPolicy::Action::kStop);
  EXPECT_EQ(policy.on_signal(begin + milliseconds(200)), SignalPolicy::Action::kIgnore);
  EXPECT_EQ(policy.on_signal(begin + seconds(3)), SignalPolicy::Action::kExit);
}

}  // namespace
}  // namespace fvprefetch::cli
