#include "cli/console.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <unistd.h>

#include <array>

#include "base/posix.h"
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
  /// The bar of `event` after 10 s that brought 1.2 GB.
  std::string bar_of(std::size_t columns, BytesArrived event) {
    use(ProgressStyle::kBar);
    BytesArrived before = event;
    before.bytes_done -= 1'200'000'000;
    (void)narrator.on_event(before, clock.now(), columns);
    clock.advance(seconds(10));
    return narrator.on_event(event, clock.now(), columns).bar.value_or("<none>");
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

TEST_F(NarratorTest, ReadingAgainIsNotCalledFetchingAndARepairThatFollowsIs) {
  FetchPlanned reading{2, 1000, true};
  reading.work = Work::kVerifying;
  EXPECT_EQ(say(reading).lines, std::vector<std::string>{"verifying 2 files, 1.0 kB"});
  clock.advance(seconds(31));
  const auto speech = say(BytesArrived{500, 1000, 1, 2});
  ASSERT_EQ(speech.lines.size(), 1U);
  EXPECT_TRUE(speech.lines[0].starts_with("verified 50 %")) << speech.lines[0];
  EXPECT_EQ(say(FetchPlanned{1, 500, true}).lines,
            std::vector<std::string>{"fetching 1 file, 500 B"});
}

TEST_F(NarratorTest, CopyingToTheNodesHasARateOfItsOwn) {
  (void)say(FetchPlanned{1, 1'000'000, true});
  (void)say(BytesArrived{0, 1'000'000, 0, 1});
  clock.advance(seconds(2));
  (void)say(BytesArrived{1'000'000, 1'000'000, 1, 1});
  FetchPlanned copying{1, 1'000'000, true};
  copying.work = Work::kCopying;
  EXPECT_EQ(say(copying).lines, std::vector<std::string>{"copying to the nodes: 1 file, 1.0 MB"});
  clock.advance(seconds(31));
  const auto speech = say(BytesArrived{500'000, 1'000'000, 0, 1});
  ASSERT_EQ(speech.lines.size(), 1U);
  EXPECT_EQ(speech.lines[0], "copied to the nodes: 50 %, 500.0 kB of 1.0 MB");
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

TEST_F(NarratorTest, ABarNamesTheFileWithTheMostLeftToDo) {
  BytesArrived event{3'200'000'000, 28'300'000'000, 1, 4};
  event.arriving = {{"m", "small.bin", 0, 1'000'000},
                    {"m", "vae/big.bin", 5'000'000'000, 10'000'000'000},
                    {"m", "nearly.bin", 11'000'000'000, 12'000'000'000}};
  EXPECT_TRUE(bar_of(200, event).ends_with("  1 of 4 files  big.bin 50 %")) << bar_of(200, event);
}

TEST_F(NarratorTest, ABarTellsTheBytesOfAFileOfUnknownSize) {
  BytesArrived event{3'200'000'000, 0, 0, 1, false};
  event.arriving = {{"m", "a.bin", 3'200'000'000, std::nullopt}};
  EXPECT_EQ(bar_of(80, event), "3.2 GB  120.0 MB/s  a.bin 3.2 GB");
}

TEST_F(NarratorTest, ABarStaysWithItsFileWhileOthersHaveAboutAsMuchToDo) {
  use(ProgressStyle::kBar);
  BytesArrived event{100, 10'000, 0, 2};
  event.arriving = {{"m", "a.bin", 0, 1000}, {"m", "b.bin", 10, 1000}};
  const auto bar = [&](std::uint64_t bytes_of_a) {
    event.arriving[0].bytes_done = bytes_of_a;
    clock.advance(seconds(1));
    return say(event).bar.value_or("<none>");
  };
  EXPECT_TRUE(bar(0).ends_with("a.bin 0 %"));
  EXPECT_TRUE(bar(100).ends_with("a.bin 10 %"));
  EXPECT_TRUE(bar(500).ends_with("b.bin 1 %"));
}

TEST_F(NarratorTest, ANarrowTerminalLosesWholeFieldsTheLeastFirst) {
  BytesArrived event{3'200'000'000, 28'300'000'000, 1, 2};
  event.arriving = {{"m", "model.safetensors", 100, 1000}};
  const std::string drawing = "[===" + std::string(25, ' ') + "]";
  EXPECT_EQ(bar_of(120, event), " 11%  " + drawing +
                                    "  3.2 of 28.3 GB  120.0 MB/s  3 min 30 s left"
                                    "  1 of 2 files  model.safetensors 10 %");
  EXPECT_EQ(bar_of(80, event),
            " 11%  [=           ]  3.2 of 28.3 GB  120.0 MB/s  3 min 30 s left  1 of 2 files");
  EXPECT_EQ(bar_of(60, event), " 11%  3.2 of 28.3 GB  120.0 MB/s  3 min 30 s left");
  EXPECT_EQ(bar_of(40, event), " 11%  120.0 MB/s  3 min 30 s left");
  EXPECT_EQ(bar_of(20, event), " 11%  120.0 MB/s");
  EXPECT_EQ(bar_of(10, event), " 11%");
}

TEST_F(NarratorTest, ASecondLeftIsAWholeOne) {
  EXPECT_TRUE(bar_of(80, {1'200'000'000, 1'300'000'000, 0, 1}).ends_with("  1 s left"));
}

TEST_F(NarratorTest, AVerboseLogTellsOfEachFileAfterTheTotal) {
  use(ProgressStyle::kLog, false, /*verbose=*/true);
  BytesArrived event{0, 28'300'000'000, 0, 3};
  event.arriving = {{"m", "a.bin", 1'000'000'000, 10'000'000'000},
                    {"m", "b.bin", 0, std::nullopt},
                    {"m", "c.bin", 500, 1000}};
  EXPECT_TRUE(say(event).lines.empty());
  clock.advance(seconds(30));
  event.arriving[0].bytes_done = 4'000'000'000;
  event.arriving[1].bytes_done = 600'000'000;
  const auto first = say(event).lines;
  ASSERT_EQ(first.size(), 4U);
  EXPECT_TRUE(first[0].starts_with("fetched ")) << first[0];
  EXPECT_EQ(first[1], "`m`: a.bin, 4.0 of 10.0 GB, 100.0 MB/s, 1 min left");
  EXPECT_EQ(first[2], "`m`: b.bin, 600.0 MB, 20.0 MB/s");
  EXPECT_EQ(first[3], "`m`: c.bin, 500 B of 1.0 kB, 0 B/s");

  // Since the last report, not since the beginning; what is over is not told any more.
  clock.advance(seconds(30));
  event.arriving.resize(1);
  event.arriving[0].bytes_done = 9'940'000'000;
  const auto second = say(event).lines;
  ASSERT_EQ(second.size(), 2U);
  EXPECT_EQ(second[1], "`m`: a.bin, 9.9 of 10.0 GB, 198.0 MB/s, 1 s left");
}

TEST_F(NarratorTest, AFileThatBeginsAgainHasNoRateBelowZero) {
  use(ProgressStyle::kLog, false, /*verbose=*/true);
  BytesArrived event{0, 1000, 0, 1};
  event.arriving = {{"m", "a.bin", 900, 1000}};
  (void)say(event);
  clock.advance(seconds(20));
  event.arriving[0].bytes_done = 100;
  EXPECT_TRUE(say(event).lines.empty());
  clock.advance(seconds(10));
  event.arriving[0].bytes_done = 200;
  const auto lines = say(event).lines;
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[1], "`m`: a.bin, 200 B of 1.0 kB, 10 B/s, 1 min 20 s left");
}

TEST_F(NarratorTest, ALogThatIsNotVerboseTellsOfTheTotalAlone) {
  BytesArrived event{500, 1000, 0, 1};
  event.arriving = {{"m", "a.bin", 500, 1000}};
  (void)say(event);
  clock.advance(seconds(31));
  EXPECT_EQ(say(event).lines, std::vector<std::string>{"fetched 50 %, 500 B of 1.0 kB, 0 B/s"});
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

TEST_F(NarratorTest, AnInexactTotalPromisesNoEnd) {
  (void)say(FetchPlanned{1, 1'000'000, false});
  (void)say(BytesArrived{100'000, 1'000'000, 0, 1, false});
  clock.advance(seconds(31));
  const auto speech = say(BytesArrived{500'000, 1'000'000, 0, 1, false});
  ASSERT_EQ(speech.lines.size(), 1U);
  EXPECT_NE(speech.lines[0].find("at least"), std::string::npos) << speech.lines[0];
  EXPECT_EQ(speech.lines[0].find(" left"), std::string::npos) << speech.lines[0];
  EXPECT_EQ(speech.lines[0].find('%'), std::string::npos) << speech.lines[0];
  // The server has told the size.
  clock.advance(seconds(31));
  const auto later = say(BytesArrived{600'000, 2'000'000, 0, 1, true});
  ASSERT_EQ(later.lines.size(), 1U);
  EXPECT_NE(later.lines[0].find("30 %"), std::string::npos) << later.lines[0];
}

TEST_F(NarratorTest, ARetryIsCountedAndIsNoErrorLine) {
  (void)say(FetchPlanned{1, 1000, true});
  EXPECT_TRUE(say(FileRetried{"w", "w.bin", "connection reset", milliseconds(500)}).lines.empty());
  clock.advance(seconds(31));
  const auto speech = say(BytesArrived{500, 1000, 0, 1});
  ASSERT_EQ(speech.lines.size(), 1U);
  EXPECT_NE(speech.lines[0].find("1 retry"), std::string::npos) << speech.lines[0];
}

TEST(RateMeter, ForgetsBytesThatWereThrownAway) {
  RateMeter meter;
  const Clock::TimePoint begin{};
  meter.add(begin, 0);
  EXPECT_FALSE(meter.bytes_per_second().has_value());
  meter.add(begin + seconds(2), 2000);
  EXPECT_EQ(meter.bytes_per_second(), 1000.0);
  meter.add(begin + seconds(3), 10);
  EXPECT_FALSE(meter.bytes_per_second().has_value());
}

// What a Console writes to a pipe.
class ConsoleTest : public ::testing::Test {
 protected:
  ConsoleTest() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) ADD_FAILURE() << "no pipe";
    reader = posix::Fd(ends[0]);
    writer = posix::Fd(ends[1]);
  }
  std::string read_all() {
    writer = posix::Fd();
    std::string all;
    std::array<char, 4096> piece{};
    for (ssize_t n = 0; (n = ::read(reader.get(), piece.data(), piece.size())) > 0;) {
      all.append(piece.data(), static_cast<std::size_t>(n));
    }
    return all;
  }

  FakeClock clock;
  posix::Fd reader;
  posix::Fd writer;
};

TEST_F(ConsoleTest, AnErrorIsFollowedByItsHintEvenWhenQuiet) {
  {
    Console console(writer.get(), {}, {ProgressStyle::kLog, /*quiet=*/true, false}, clock);
    console.note("not said");
    console.error(fail(ErrorCode::kUsage, "no manifest", "give one").value());
  }
  EXPECT_EQ(read_all(), "fvprefetch: error: no manifest\nhint: give one\n");
}

TEST_F(ConsoleTest, ForeignWordsBeginNoLine) {
  {
    Console console(writer.get(), {}, {}, clock);
    console.note("a\nb");
    console.failure("a\nb");
    console.on_event(Warned{"e", "a\nb"});
    console.error(fail(ErrorCode::kPermission, "a\nb", "c\nd").value());
    console.error(fail(ErrorCode::kUsage, "m.json:1:1: a\nm.json:2:1: b", "c").value());
  }
  EXPECT_EQ(read_all(),
            "fvprefetch: a\\nb\nfvprefetch: a\\nb\nfvprefetch: warning: `e`: a\\nb\n"
            "fvprefetch: error: a\\nb\nhint: c\\nd\n"
            "fvprefetch: error: m.json:1:1: a\nm.json:2:1: b\nhint: c\n");
}

TEST_F(ConsoleTest, TheBarIsTakenAwayBeforeALineAndAtTheEnd) {
  {
    Console console(writer.get(), {true, false}, {ProgressStyle::kBar, false, false}, clock);
    console.on_event(BytesArrived{500, 1000, 0, 1});
    console.note("a line");
    clock.advance(seconds(1));
    console.on_event(BytesArrived{600, 1000, 0, 1});
  }
  const std::string written = read_all();
  EXPECT_NE(written.find("\r\x1b[Kfvprefetch: a line\n"), std::string::npos) << written;
  EXPECT_TRUE(written.ends_with("\r\x1b[K")) << written;
}

TEST_F(ConsoleTest, APipeThatNobodyReadsHoldsNothingUp) {
  const std::string filler(4096, 'x');
  ::fcntl(writer.get(), F_SETFL, O_NONBLOCK);
  while (::write(writer.get(), filler.data(), filler.size()) > 0) {
  }
  ::fcntl(writer.get(), F_SETFL, 0);  // blocking, as standard error is
  Console console(writer.get(), {}, {ProgressStyle::kLog, false, /*verbose=*/true}, clock);
  console.on_event(FileFinished{"w", "w.bin", 7});  // ends: that is the assertion
  std::string all = read_all();
  EXPECT_EQ(all.find("w.bin"), std::string::npos);
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
