#include "transfer/rate_limit.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/fake_clock.h"
#include "support/scripted_transport.h"

namespace fvprefetch {
namespace {

using std::chrono::seconds;
using testing::Answer;
using testing::FakeClock;
using testing::ScriptedTransport;

class Ignorer : public BodySink {
 public:
  bool on_head(const ResponseHead& head) override {
    status = head.status;
    return true;
  }
  bool on_body(const BodyPiece& /*piece*/) override { return true; }
  int status = 0;
};

class RateLimit : public ::testing::Test {
 protected:
  TransferId ask(const std::string& url) {
    Request request;
    request.url = url;
    return transport->start(request, sink);
  }
  void deadline_in(seconds time) {
    transport = obey_rate_limits(wire, clock, clock.now() + time, random);
  }

  FakeClock clock;
  std::mt19937 random{1};
  ScriptedTransport wire{clock};
  std::unique_ptr<Transport> transport =
      obey_rate_limits(wire, clock, Clock::TimePoint::max(), random);
  Ignorer sink;
  const Clock::TimePoint begin = clock.now();
};

TEST_F(RateLimit, WhoHasNoPatienceIsAnsweredAtOnce) {
  wire.on("https://hub/a", Answer(503).header("retry-after", "3600"));
  (void)ask("https://hub/a");
  ASSERT_EQ(transport->poll(Clock::TimePoint::max(), {}).size(), 1U);
  Request request;
  request.url = "https://hub/b";
  request.patience = seconds(5);
  (void)transport->start(request, sink);
  const auto refused = transport->poll(Clock::TimePoint::max(), {});
  ASSERT_EQ(refused.size(), 1U);
  EXPECT_EQ(refused[0].head.status, 503);
  EXPECT_EQ(refused[0].head.header("retry-after"), "3600");
  EXPECT_EQ(clock.now(), begin);
  EXPECT_EQ(wire.sent().size(), 1U);
}

TEST_F(RateLimit, AfterA429NobodyAsksThatServerUntilItsTime) {
  wire.on("https://hub/a", Answer(429).header("ratelimit", R"("api";r=0;t=55)"));
  wire.on("https://hub/b", Answer::whole("b"));
  wire.on("https://hub/c", Answer::whole("c"));
  ask("https://hub/a");
  const auto refused = transport->poll(begin + seconds(1), {});
  ASSERT_EQ(refused.size(), 1U);
  EXPECT_EQ(refused[0].head.status, 429);  // its owner decides what becomes of it

  ask("https://hub/b");
  ask("https://hub/c");
  EXPECT_TRUE(transport->poll(begin + seconds(54), {}).empty());
  EXPECT_EQ(wire.sent().size(), 1U);
  std::size_t answered = 0;
  while (answered < 2) {
    const auto done = transport->poll(begin + seconds(60), {});
    ASSERT_FALSE(done.empty());
    answered += done.size();
    EXPECT_GE(clock.now(), begin + seconds(55));
  }
  EXPECT_EQ(wire.sent().size(), 3U);
}

TEST_F(RateLimit, OtherServersAreAskedMeanwhile) {
  wire.on("https://hub/a", Answer(429).header("retry-after", "55"));
  wire.on("https://cdn/b", Answer::whole("b"));
  ask("https://hub/a");
  (void)transport->poll(begin + seconds(1), {});
  ask("https://cdn/b");
  const auto done = transport->poll(begin + seconds(1), {});
  ASSERT_EQ(done.size(), 1U);
  EXPECT_EQ(done[0].head.status, 200);
}

TEST_F(RateLimit, A429WithoutATimeClosesNothing) {
  wire.on("https://hub/a", Answer(429));
  wire.on("https://hub/b", Answer::whole("b"));
  ask("https://hub/a");
  (void)transport->poll(begin + seconds(1), {});
  ask("https://hub/b");
  EXPECT_EQ(transport->poll(begin + seconds(1), {}).size(), 1U);
}

TEST_F(RateLimit, WhatWouldWaitBeyondTheDeadlineIsToldSoAtOnce) {
  deadline_in(seconds(30));
  wire.on("https://hub/a", Answer(429).header("retry-after", "55"));
  ask("https://hub/a");
  (void)transport->poll(begin + seconds(1), {});
  clock.advance(seconds(15));
  const TransferId id = ask("https://hub/b");
  const auto done = transport->poll(begin + seconds(29), {});
  ASSERT_EQ(done.size(), 1U);
  EXPECT_EQ(done[0].id, id);
  EXPECT_EQ(done[0].head.status, 429);
  EXPECT_EQ(done[0].head.header("retry-after"), "40");  // what is left of it
  EXPECT_EQ(sink.status, 429);
  EXPECT_EQ(clock.now(), begin + seconds(15));
  EXPECT_EQ(transport->requests(), 1U);
}

TEST_F(RateLimit, ARequestThatWaitsCanBeCancelled) {
  wire.on("https://hub/a", Answer(429).header("retry-after", "55"));
  ask("https://hub/a");
  (void)transport->poll(begin + seconds(1), {});
  transport->cancel(ask("https://hub/b"));
  EXPECT_TRUE(transport->poll(begin + seconds(100), {}).empty());
  EXPECT_EQ(wire.sent().size(), 1U);
}

TEST_F(RateLimit, AStopEndsTheWait) {
  wire.on("https://hub/a", Answer(429).header("retry-after", "55"));
  ask("https://hub/a");
  (void)transport->poll(begin + seconds(1), {});
  ask("https://hub/b");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(transport->poll(begin + seconds(100), stop.get_token()).empty());
  EXPECT_LT(clock.now(), begin + seconds(55));
}

}  // namespace
}  // namespace fvprefetch
