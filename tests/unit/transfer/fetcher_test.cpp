#include "transfer/fetcher.h"

#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "support/fake_clock.h"
#include "support/matchers.h"
#include "support/scripted_transport.h"
#include "transfer/redirect.h"

namespace fvprefetch {
namespace {

using std::chrono::seconds;
using testing::Answer;
using testing::FailsWith;
using testing::FakeClock;
using testing::IsOk;
using testing::ScriptedTransport;

constexpr auto kUrl = "https://hub/api/models/a";

class FetcherTest : public ::testing::Test {
 protected:
  Result<Response> fetch() {
    Request request;
    request.url = kUrl;
    return make_fetcher(*transport, clock, options, random, stop.get_token(), [] { return SIGINT; })
        ->fetch(request);
  }
  [[nodiscard]] seconds since_begin() const {
    return std::chrono::duration_cast<seconds>(clock.now() - begin);
  }

  FakeClock clock;
  Clock::TimePoint begin = clock.now();
  ScriptedTransport wire{clock};
  std::unique_ptr<Transport> transport = follow_redirects(wire);
  std::mt19937 random{1};
  EngineOptions options;
  std::stop_source stop;
};

TEST_F(FetcherTest, AnAnswerThatDripsIsToldOfAfterTwoSecondsThenEveryThirty) {
  Answer answer(200);
  for (int i = 0; i < 40; ++i) answer.pause(seconds(1)).body(std::string(2048, ' '));
  wire.on(kUrl, answer);
  std::vector<std::string> told;
  Request request;
  request.url = kUrl;
  const auto response =
      make_fetcher(*transport, clock, options, random, stop.get_token(), {}, {},
                   [&](const std::string& address, std::chrono::milliseconds waited) {
                     told.push_back(address + " " + std::to_string(waited.count()));
                   })
          ->fetch(request);
  ASSERT_TRUE(IsOk(response));
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told[0], std::string(kUrl) + " 2000");
  EXPECT_EQ(told[1], std::string(kUrl) + " 32000");
}

TEST_F(FetcherTest, ReturnsHeadAndBody) {
  wire.on(kUrl, Answer(200).header("x-repo-commit", "ab").body("{\"id\":").body("1}"));
  const auto response = fetch();
  ASSERT_TRUE(IsOk(response));
  EXPECT_EQ(response->head.status, 200);
  EXPECT_EQ(response->head.header("x-repo-commit"), "ab");
  EXPECT_EQ(response->body, "{\"id\":1}");
}

TEST_F(FetcherTest, FollowsRedirects) {
  wire.on(kUrl, Answer(307).header("location", "/api/models/org/a").body("moved"));
  wire.on("https://hub/api/models/org/a", Answer(200).body("x"));
  const auto response = fetch();
  ASSERT_TRUE(IsOk(response));
  EXPECT_EQ(response->body, "x");
  EXPECT_EQ(response->head.url, "https://hub/api/models/org/a");
}

TEST_F(FetcherTest, ReturnsA404AsAValueAtOnce) {
  wire.on(kUrl, Answer(404).body("{\"error\":\"no\"}"));
  const auto response = fetch();
  ASSERT_TRUE(IsOk(response));
  EXPECT_EQ(response->head.status, 404);
  EXPECT_EQ(response->body, "{\"error\":\"no\"}");
  EXPECT_EQ(wire.sent().size(), 1U);
}

TEST_F(FetcherTest, KeepsTheBodyOfTheLastAttemptOnly) {
  wire.on(kUrl, Answer(200).body("half").cut());
  wire.on(kUrl, Answer(200).body("whole"));
  const auto response = fetch();
  ASSERT_TRUE(IsOk(response));
  EXPECT_EQ(response->body, "whole");
}

TEST_F(FetcherTest, WaitsAsLongAsTheServerAskedFor) {
  wire.on(kUrl, Answer(429).header("ratelimit", "\"api\";r=0;t=55"));
  wire.on(kUrl, Answer(200));
  ASSERT_TRUE(IsOk(fetch()));
  EXPECT_EQ(since_begin(), seconds(55));
}

TEST_F(FetcherTest, ReturnsA503AsAValueAfterItsRetries) {
  options.retries = 2;
  for (int i = 0; i < 3; ++i) wire.on(kUrl, Answer(503).body("down"));
  const auto response = fetch();
  ASSERT_TRUE(IsOk(response));
  EXPECT_EQ(response->head.status, 503);
  EXPECT_EQ(wire.sent().size(), 3U);
}

TEST_F(FetcherTest, FailsWithRateLimitedRatherThanWaitBeyondTheDeadline) {
  options.deadline = begin + seconds(30);
  wire.on(kUrl, Answer(429).header("retry-after", "300"));
  const auto response = fetch();
  ASSERT_TRUE(FailsWith(response, ErrorCode::kRateLimited));
  EXPECT_EQ(response.error().retry_after, seconds(300));
  EXPECT_EQ(since_begin(), seconds(0));
}

TEST_F(FetcherTest, FailsWithNetworkWhenNobodyAnswers) {
  options.retries = 1;
  for (int i = 0; i < 2; ++i) wire.on(kUrl, Answer::none(TransportFailure::kConnect));
  const auto response = fetch();
  ASSERT_TRUE(FailsWith(response, ErrorCode::kNetwork));
  EXPECT_EQ(response.error().subject, kUrl);
}

TEST_F(FetcherTest, EndsARequestAtTheDeadline) {
  options.deadline = begin + seconds(10);
  wire.on(kUrl, Answer(200).body("half").stall());
  const auto response = fetch();
  ASSERT_TRUE(FailsWith(response, ErrorCode::kNetwork));
  EXPECT_EQ(since_begin(), seconds(10));
  EXPECT_EQ(wire.running(), 0U);
}

TEST_F(FetcherTest, EndsWithTheSignalThatStoppedIt) {
  wire.on(kUrl, Answer(200).body("half").then([&] { stop.request_stop(); }).stall());
  const auto response = fetch();
  ASSERT_FALSE(response);
  EXPECT_EQ(exit_code(response.error().code), 128 + SIGINT);
  EXPECT_EQ(since_begin(), seconds(0));
  EXPECT_EQ(wire.running(), 0U);
}

TEST_F(FetcherTest, SendsNothingOnceStopped) {
  stop.request_stop();
  EXPECT_FALSE(fetch());
  EXPECT_TRUE(wire.sent().empty());
}

TEST_F(FetcherTest, RefusesABodyThatIsNoSmallDocument) {
  bool read_on = false;
  Answer endless(200);
  for (int i = 0; i < 65; ++i) endless.body(std::string(1U << 20U, 'x'));
  wire.on(kUrl, endless.then([&] { read_on = true; }));
  const auto response = fetch();
  ASSERT_TRUE(FailsWith(response, ErrorCode::kNetwork));
  EXPECT_FALSE(read_on);
  EXPECT_EQ(wire.sent().size(), 1U);
}

}  // namespace
}  // namespace fvprefetch
