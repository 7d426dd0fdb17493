#include "cache/lock.h"

#include <gtest/gtest.h>
#include <sys/file.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <utility>

#include "cache/flock_call.h"
#include "support/fake_clock.h"
#include "support/matchers.h"
#include "support/temp_dir.h"
#include "support/thread_tail.h"

namespace fvprefetch {
namespace {

using namespace std::chrono_literals;
using testing::FakeClock;
using testing::row_name;

struct Described {
  const char* name;
  Holder holder;
  const char* text;
};
const Described kHolders[] = {
    {"all_is_known",
     {"node17", 4242, "881", "2026-11-24T12:03:11Z", "", ""},
     "node17 pid 4242 job 881, since 2026-11-24T12:03:11Z"},
    {"no_job",
     {"node17", 4242, "", "2026-11-24T12:03:11Z", "", ""},
     "node17 pid 4242, since 2026-11-24T12:03:11Z"},
    {"only_a_process", {"", 4242, "", "", "", ""}, "pid 4242"},
    {"user_and_step",
     {"node17", 4242, "881", "2026-11-24T12:03:11Z", "ada", "0"},
     "node17 pid 4242 user ada job 881.0, since 2026-11-24T12:03:11Z"},
};
class HolderText : public ::testing::TestWithParam<Described> {};
TEST_P(HolderText, SaysWhatIsKnown) {
  EXPECT_EQ(GetParam().holder.describe(), GetParam().text);
}
INSTANTIATE_TEST_SUITE_P(Rows, HolderText, ::testing::ValuesIn(kHolders), row_name<Described>);

// One wait on a clock that jumps from try to try; the holder shows `bytes`.
class Wait {
 public:
  explicit Wait(LockWait::Limits limits = {}) : wait_(limits, clock_.now()) {}

  LockWait::Step step(std::uint64_t bytes = 0, bool knows_holder = true) {
    return wait_.step(clock_.now(), bytes, knows_holder);
  }
  LockWait::Step step_after(FakeClock::TimePoint::duration by, std::uint64_t bytes = 0) {
    clock_.advance(by);
    return step(bytes);
  }
  void advance(FakeClock::TimePoint::duration by) { clock_.advance(by); }
  [[nodiscard]] std::chrono::milliseconds waited() const { return wait_.waited(clock_.now()); }
  [[nodiscard]] FakeClock::TimePoint now() const { return clock_.now(); }

 private:
  FakeClock clock_;
  LockWait wait_;
};

TEST(LockWait, TriesAgainWithinAMillisecondAtFirst) {
  Wait wait;
  const auto pause = wait.step().next_try - wait.now();
  EXPECT_GE(pause, 500us);
  EXPECT_LE(pause, 1ms);
}

TEST(LockWait, IntervalGrowsToASecondAndNoFurther) {
  Wait wait;
  LockWait::Step step = wait.step();
  for (int i = 0; i < 200; ++i) step = wait.step_after(step.next_try - wait.now(), 1);
  const auto pause = step.next_try - wait.now();
  EXPECT_GE(pause, 500ms);
  EXPECT_LE(pause, 1s);
}

TEST(LockWait, WhoeverWaitsFindsOutWithinAnEighthOfTheWaitMore) {
  Wait wait;
  (void)wait.step();
  const auto step = wait.step_after(800ms);
  EXPECT_GE(step.next_try - wait.now(), 50ms);
  EXPECT_LE(step.next_try - wait.now(), 100ms);
}

TEST(LockWait, TwoWaitersDoNotAskTogether) {
  Wait one;
  Wait other;
  int together = 0;
  for (int i = 0; i < 30; ++i) {
    if (one.step().next_try - one.now() == other.step().next_try - other.now()) ++together;
  }
  EXPECT_LT(together, 15);
}

TEST(LockWait, SaysNothingOfAShortWait) {
  Wait wait;
  EXPECT_FALSE(wait.step().say);
  EXPECT_FALSE(wait.step_after(1999ms).say);
}

TEST(LockWait, SaysItAfterTwoSecondsAndThenOnceAMinute) {
  Wait wait;
  EXPECT_TRUE(wait.step_after(2s).say);
  EXPECT_FALSE(wait.step().say);
  EXPECT_FALSE(wait.step_after(59s).say);
  EXPECT_TRUE(wait.step_after(1s).say);
}

TEST(LockWait, SaysItLaterWhileNobodyKnowsTheHolder) {
  Wait wait;
  wait.advance(2s);
  EXPECT_FALSE(wait.step(0, false).say);
  EXPECT_TRUE(wait.step(0, true).say);
}

TEST(LockWait, SaysAfterFiveSecondsThatTheHolderIsNotKnown) {
  Wait wait;
  wait.advance(4'999ms);
  EXPECT_FALSE(wait.step(0, false).say);
  wait.advance(1ms);
  EXPECT_TRUE(wait.step(0, false).say);
  wait.advance(59s);
  EXPECT_FALSE(wait.step(0, true).say);
}

TEST(LockWait, SaysItAsOftenAsItIsTold) {
  LockWait::Limits limits;
  limits.say_every = 5s;
  Wait wait(limits);
  EXPECT_TRUE(wait.step_after(2s).say);
  EXPECT_TRUE(wait.step_after(5s).say);
}

TEST(LockWait, GivenTimeoutIsAbsolute) {
  LockWait::Limits limits;
  limits.timeout = 10s;
  Wait wait(limits);
  EXPECT_FALSE(wait.step_after(9999ms, 1).timed_out);
  EXPECT_TRUE(wait.step_after(1ms, 2).timed_out);  // however fast the holder is
}

TEST(LockWait, TimeoutOfZeroIsOverAtOnce) {
  LockWait::Limits limits;
  limits.timeout = 0ms;
  EXPECT_TRUE(Wait(limits).step().timed_out);
}

TEST(LockWait, LastTryComesAtTheTimeoutAndNotLater) {
  LockWait::Limits limits;
  limits.timeout = 10s;
  Wait wait(limits);
  for (int i = 0; i < 30; ++i) (void)wait.step();
  const auto step = wait.step_after(9900ms);
  EXPECT_FALSE(step.timed_out);
  EXPECT_LE(step.next_try - wait.now(), 100ms);
}

TEST(LockWait, LargestTimeoutNeverEnds) {
  LockWait::Limits limits;
  limits.timeout = 24h * 365 * 200;
  Wait wait(limits);
  EXPECT_FALSE(wait.step_after(24h * 365).timed_out);
}

TEST(LockWait, WithoutATimeoutProgressOfTheHolderIsWaitedFor) {
  Wait wait;
  std::uint64_t bytes = 0;
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(wait.step_after(29min, ++bytes).timed_out);
  }
}

TEST(LockWait, HalfAnHourWithoutProgressIsTheEnd) {
  Wait wait;
  EXPECT_FALSE(wait.step_after(10min, 5).timed_out);
  EXPECT_FALSE(wait.step_after(29min, 5).timed_out);
  EXPECT_TRUE(wait.step_after(1min, 5).timed_out);
}

TEST(LockWait, NextHolderThatBeginsAnewIsProgress) {
  Wait wait;
  EXPECT_FALSE(wait.step_after(20min, 500).timed_out);
  EXPECT_FALSE(wait.step_after(20min, 3).timed_out);
  EXPECT_FALSE(wait.step_after(20min, 3).timed_out);
}

TEST(LockWait, TellsHowLongItHasWaited) {
  Wait wait;
  (void)wait.step_after(1500ms);
  EXPECT_EQ(wait.waited(), 1500ms);
}

TEST(FlockCalls, TakesTheLockWhenNoSignOfAnotherOneShows) {
  const testing::TempDir dir;
  FlockCalls calls;
  auto file = posix::open_lock_file(dir / "x.lock", 0664);
  ASSERT_TRUE(file);
  const auto call = calls.begin(std::move(file->fd), FlockCalls::Blocking::kYes, dir / "x.lease");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->result(10s), 0);
}

TEST(FlockCalls, QueuesBehindWhoeverHasPutUpTheSign) {
  const testing::TempDir dir;
  FlockCalls calls;
  const auto held = posix::open_lock_file(dir / "x.lock", 0664);
  ASSERT_TRUE(held);
  ASSERT_EQ(::flock(held->fd.get(), LOCK_EX), 0);
  std::ofstream(dir / "x.lease") << "held";
  auto file = posix::open_lock_file(dir / "x.lock", 0664);
  ASSERT_TRUE(file);
  const auto call = calls.begin(std::move(file->fd), FlockCalls::Blocking::kYes, dir / "x.lease");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->result(20ms), std::nullopt);
  ASSERT_EQ(::flock(held->fd.get(), LOCK_UN), 0);
  EXPECT_EQ(call->result(10s), 0);
}

// Of the first call on a thread that tells when all of it has ended.
class LockWithATail final : public Lock {
 public:
  explicit LockWithATail(std::shared_ptr<std::atomic<bool>> ended) : ended_(std::move(ended)) {}
  Result<std::unique_ptr<HeldLock>> try_acquire() override {
    testing::give_thread_a_tail(ended_);
    return fail(ErrorCode::kInternal, "told");
  }
  std::string describe_holder() const override { return "nobody"; }
  std::string kind() const override { return "test"; }

 private:
  std::shared_ptr<std::atomic<bool>> ended_;
};

TEST(AnsweringLock, ReturnsWhenAllOfTheThreadHasEnded) {
  const testing::TempDir dir;
  const auto ended = std::make_shared<std::atomic<bool>>(false);
  const auto lock = make_answering(std::make_unique<LockWithATail>(ended), dir.path(),
                                   std::make_shared<FlockCalls>());
  const auto told = lock->try_acquire();
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().message, "told");
  EXPECT_TRUE(*ended);
}

TEST(FlockCalls, RememberForAMomentWhatWasLetGo) {
  FlockCalls calls;
  posix::FileInfo file;
  file.device = 7;
  file.inode = 8;
  EXPECT_FALSE(calls.just_let_go(file));
  calls.let_go(file);
  posix::FileInfo other = file;
  other.inode = 9;
  EXPECT_FALSE(calls.just_let_go(other));
}

}  // namespace
}  // namespace fvprefetch
