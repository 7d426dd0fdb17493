#include "transfer/tuner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "transfer/rate_bucket.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A link whose rate depends on the number of connections.
class Link {
 public:
  explicit Link(std::function<double(int)> rate) : rate_(std::move(rate)) {}

  void run(milliseconds time) {
    constexpr milliseconds kStep(20);
    for (milliseconds passed(0); passed < time; passed += kStep) {
      sample_.now += kStep;
      sample_.bytes += static_cast<std::uint64_t>(rate_(sample_.running) * 0.02);
      sample_.worked += std::chrono::duration_cast<std::chrono::nanoseconds>(kStep * busy);
      sample_.most = std::max(most, sample_.running);
      sample_.running = tuner_.wanted(sample_);
      highest = std::max(highest, sample_.running);
    }
  }
  [[nodiscard]] int running() const { return sample_.running; }
  void set_running(int running) { sample_.running = running; }
  Tuner::Sample& sample() { return sample_; }
  [[nodiscard]] std::optional<double> rate_of_one() const { return tuner_.rate_of_one(); }

  int most = 8;
  int highest = 1;
  int trials = 0;
  double busy = 0;  // the thread that serves it

 private:
  std::function<double(int)> rate_;
  Tuner tuner_;
  Tuner::Sample sample_{Clock::TimePoint(std::chrono::hours(1)), 0, 1, 8, true, {}, {}};
};

constexpr double kRate = 40e6;

TEST(Tuner, AddsConnectionsWhileTheyPay) {
  Link link([](int connections) { return connections * kRate; });
  link.run(seconds(1));
  EXPECT_EQ(link.running(), 8);
}

TEST(Tuner, KeepsOneWhereMoreBringNothing) {
  Link link([](int) { return kRate; });
  link.run(seconds(1));
  EXPECT_EQ(link.running(), 1);
  EXPECT_EQ(link.highest, 4);
}

TEST(Tuner, GoesBackToWhatPaidLast) {
  Link link([](int connections) { return std::min(connections, 4) * kRate; });
  link.run(seconds(2));
  EXPECT_EQ(link.running(), 4);
  EXPECT_EQ(link.highest, 8);
}

TEST(Tuner, GoesBackWhereMoreBringLess) {
  Link link([](int connections) { return kRate / connections; });
  link.run(seconds(1));
  EXPECT_EQ(link.running(), 1);
}

TEST(Tuner, DoesNotTryWhatItsThreadCouldNotServe) {
  Link link([](int) { return kRate; });
  link.busy = 0.8;
  link.run(seconds(1));
  EXPECT_EQ(link.highest, 1);
}

TEST(Tuner, TriesFewerWhereItsThreadCouldServeThose) {
  Link link([](int) { return kRate; });
  link.busy = 0.8;
  link.run(seconds(7));
  EXPECT_EQ(link.highest, 2);
}

TEST(Tuner, TriesWhereItsThreadSleepsLongEnough) {
  Link link([](int connections) { return connections * kRate; });
  link.busy = 0.7;
  link.run(seconds(1));
  EXPECT_EQ(link.running(), 8);
}

TEST(Tuner, StaysBelowWhatIsOfUse) {
  Link link([](int connections) { return connections * kRate; });
  link.most = 3;
  link.run(seconds(1));
  EXPECT_EQ(link.running(), 3);
}

TEST(Tuner, LooksAgainAfterAWhile) {
  double pays_from = 2;
  Link link(
      [&](int connections) { return connections >= pays_from ? kRate : connections * kRate; });
  pays_from = 1;
  link.run(seconds(1));
  ASSERT_EQ(link.running(), 1);
  pays_from = 100;
  link.run(seconds(7));
  EXPECT_EQ(link.running(), 8);
}

TEST(Tuner, JudgesNoConnectionThatHasNotBegunToDeliver) {
  Link link([](int) { return kRate; });
  link.run(milliseconds(80));
  ASSERT_EQ(link.running(), 4);
  link.sample().all_deliver = false;
  link.run(seconds(5));
  EXPECT_EQ(link.running(), 4);
}

TEST(Tuner, TakesLongerOverALongWay) {
  Link link([](int connections) { return connections * kRate; });
  link.sample().latency = milliseconds(100);
  link.run(milliseconds(100));
  EXPECT_EQ(link.running(), 1);
  link.run(milliseconds(60));
  EXPECT_EQ(link.running(), 8);  // all at once, since each step takes long
}

TEST(Tuner, GoesBackAfterATrialOverALongWayToo) {
  Link link([](int connections) { return std::min(connections, 1) * kRate; });
  link.sample().latency = milliseconds(100);
  link.run(milliseconds(160));
  ASSERT_EQ(link.running(), 8);
  link.run(milliseconds(700));
  EXPECT_EQ(link.running(), 1);
}

TEST(Tuner, TriesFewerWhenAllAtOnceDoNotPay) {
  Link link([](int connections) { return connections > 1 ? 1.4 * kRate : kRate; });
  link.sample().latency = milliseconds(100);
  link.run(milliseconds(160));
  ASSERT_EQ(link.running(), 8);
  link.run(milliseconds(2000));
  EXPECT_EQ(link.running(), 4);
}

TEST(Tuner, TellsWhatOneConnectionBrings) {
  Link link([](int connections) { return std::min(connections, 4) * kRate; });
  EXPECT_EQ(link.rate_of_one(), std::nullopt);
  link.run(seconds(2));
  EXPECT_NEAR(*link.rate_of_one(), kRate, 0.01 * kRate);
}

TEST(Tuner, LooksAgainAtOnceWhereTheRateBreaksIn) {
  // The first bytes of a connection come as fast as the link is, the others do not.
  bool at_first = true;
  Link link([&](int connections) { return at_first ? 20 * kRate : connections * kRate; });
  link.run(milliseconds(700));
  ASSERT_EQ(link.running(), 1);
  at_first = false;
  link.run(milliseconds(400));
  EXPECT_EQ(link.running(), 8);
}

TEST(Tuner, DoesNotTryAllTheTimeWhereTheRateGoesUpAndDown) {
  int turn = 0;
  Link link([&](int) { return ++turn % 10 < 5 ? kRate : 0.1 * kRate; });
  for (int i = 0; i < 200; ++i) {
    const int before = link.running();
    link.run(milliseconds(20));
    if (link.running() > before) ++link.trials;
  }
  EXPECT_LE(link.trials, 16);  // 4 s, two steps each half second
}

TEST(Tuner, AStepThatBroughtNothingIsFollowedByASmallerOne) {
  Link link([](int connections) { return connections == 1 ? kRate : 1.2 * kRate; });
  link.run(seconds(1));
  ASSERT_EQ(link.running(), 1);
  link.run(seconds(7));
  EXPECT_EQ(link.running(), 2);
}

TEST(Tuner, BeginsAnewWhenFilesHaveEnded) {
  Link link([](int connections) { return std::min(connections, 8) * kRate; });
  link.set_running(8);
  link.run(seconds(1));
  ASSERT_EQ(link.running(), 8);
  link.set_running(1);
  link.run(seconds(1));
  EXPECT_EQ(link.running(), 8);
}

// --- the rate limit ------------------------------------------------------------------------------

const Clock::TimePoint kBegin{std::chrono::hours(1)};

TEST(RateBucket, LetsTheFirstBytesPass) {
  RateBucket bucket(1000, kBegin);
  EXPECT_EQ(bucket.wait(kBegin).count(), 0);
}

TEST(RateBucket, WaitsForWhatWasTakenInAdvance) {
  RateBucket bucket(1000, kBegin);
  bucket.take(500);
  EXPECT_EQ(bucket.wait(kBegin), milliseconds(500));
  EXPECT_EQ(bucket.wait(kBegin + milliseconds(200)), milliseconds(300));
  EXPECT_EQ(bucket.wait(kBegin + milliseconds(500)).count(), 0);
}

TEST(RateBucket, KeepsNoMoreThanATenthOfASecond) {
  RateBucket bucket(1000, kBegin);
  EXPECT_EQ(bucket.wait(kBegin + seconds(60)).count(), 0);
  bucket.take(600);
  EXPECT_EQ(bucket.wait(kBegin + seconds(60)), milliseconds(500));
}

TEST(RateBucket, HoldsTheRateOverAllThatWasTaken) {
  RateBucket bucket(1000, kBegin);
  Clock::TimePoint now = kBegin;
  for (int i = 0; i < 100; ++i) {
    bucket.take(37);
    now += bucket.wait(now);
  }
  EXPECT_EQ(std::chrono::round<milliseconds>(now - kBegin), milliseconds(3700));
}

}  // namespace
}  // namespace fvprefetch
