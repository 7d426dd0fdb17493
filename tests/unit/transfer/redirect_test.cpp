#include "transfer/redirect.h"

#include <gtest/gtest.h>

#include <string>

#include "support/fake_clock.h"
#include "support/matchers.h"
#include "support/scripted_transport.h"

namespace fvprefetch {
namespace {

using testing::Answer;
using testing::FakeClock;
using testing::ScriptedTransport;

class Recorder : public BodySink {
 public:
  bool on_head(const ResponseHead& head) override {
    heads.push_back(head);
    return true;
  }
  bool on_body(const BodyPiece& piece) override {
    body.append(reinterpret_cast<const char*>(piece.data.data()), piece.data.size());
    return true;
  }
  std::vector<ResponseHead> heads;
  std::string body;
};

Answer redirect(int status, const std::string& location) {
  return Answer(status).header("location", location).body("<a href=there>moved</a>");
}

class Redirect : public ::testing::Test {
 protected:
  Completion fetch(const std::string& url) {
    Request request;
    request.url = url;
    request.headers = {{"Range", "bytes=5-"}};
    request.credential = {Secret("token"), {"https://hub:443"}};
    const TransferId id = transport->start(request, sink);
    for (const Completion& completion : transport->poll(clock.now(), {})) {
      EXPECT_EQ(completion.id, id);
      return completion;
    }
    ADD_FAILURE() << "no completion";
    return {};
  }

  FakeClock clock;
  ScriptedTransport wire{clock};
  std::unique_ptr<Transport> transport = follow_redirects(wire);
  Recorder sink;
};

struct StatusRow {
  int status;
  bool followed;
};
class RedirectStatus : public Redirect, public ::testing::WithParamInterface<StatusRow> {};

TEST_P(RedirectStatus, IsFollowedOrNot) {
  wire.on("https://hub/a", redirect(GetParam().status, "/b"));
  if (GetParam().followed) wire.on("https://hub/b", Answer::whole("file"));
  const Completion completion = fetch("https://hub/a");
  EXPECT_EQ(completion.head.status, GetParam().followed ? 200 : GetParam().status);
  EXPECT_EQ(wire.sent().size(), GetParam().followed ? 2U : 1U);
}

INSTANTIATE_TEST_SUITE_P(Rows, RedirectStatus,
                         ::testing::Values(StatusRow{300, false}, StatusRow{301, true},
                                           StatusRow{302, true}, StatusRow{303, true},
                                           StatusRow{304, false}, StatusRow{305, false},
                                           StatusRow{307, true}, StatusRow{308, true}),
                         [](const auto& row) { return std::to_string(row.param.status); });

TEST_F(Redirect, ShowsTheSinkTheLastResponseOnly) {
  wire.on("https://hub/a", redirect(302, "https://cdn/b"));
  wire.on("https://cdn/b", Answer::whole("file"));
  const Completion completion = fetch("https://hub/a");
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].status, 200);
  EXPECT_EQ(sink.heads[0].url, "https://cdn/b");
  EXPECT_EQ(sink.body, "file");
  EXPECT_EQ(completion.requests, 2U);
}

TEST_F(Redirect, KeepsMethodHeadersAndStallTimeout) {
  wire.on("https://hub/a", redirect(307, "/b"));
  wire.on("https://hub/b", Answer(200));
  Request request;
  request.method = Request::Method::kHead;
  request.url = "https://hub/a";
  request.headers = {{"Range", "bytes=5-"}};
  request.stall_timeout = std::chrono::seconds(3);
  transport->start(request, sink);
  ASSERT_EQ(transport->poll(clock.now(), {}).size(), 1U);
  ASSERT_EQ(wire.sent().size(), 2U);
  EXPECT_EQ(wire.sent()[1].request.method, Request::Method::kHead);
  EXPECT_EQ(wire.sent()[1].header("Range"), "bytes=5-");
  EXPECT_EQ(wire.sent()[1].request.stall_timeout, std::chrono::seconds(3));
}

TEST_F(Redirect, ShowsTheTokenToItsOwnOriginOnly) {
  wire.on("https://hub/a", redirect(302, "/moved"));
  wire.on("https://hub/moved", redirect(302, "https://cdn/b"));
  wire.on("https://cdn/b", Answer::whole("file"));
  fetch("https://hub/a");
  ASSERT_EQ(wire.sent().size(), 3U);
  EXPECT_TRUE(wire.sent()[0].with_token);
  EXPECT_TRUE(wire.sent()[1].with_token);
  EXPECT_FALSE(wire.sent()[2].with_token);
}

struct OriginRow {
  std::string name;
  std::string location;
};
class RedirectOrigin : public Redirect, public ::testing::WithParamInterface<OriginRow> {};

TEST_P(RedirectOrigin, IsNotTheTokensOne) {
  wire.on("https://hub/a", redirect(302, GetParam().location));
  wire.on(GetParam().location, Answer::whole("file"));
  fetch("https://hub/a");
  ASSERT_EQ(wire.sent().size(), 2U);
  EXPECT_FALSE(wire.sent()[1].with_token);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, RedirectOrigin,
    ::testing::Values(OriginRow{"OtherPort", "https://hub:8443/b"},
                      OriginRow{"LongerHost", "https://hub.evil.example/b"},
                      OriginRow{"SubdomainOfIt", "https://cdn.hub/b"},
                      OriginRow{"HostInTheQuery", "https://evil.example/?next=hub"},
                      OriginRow{"HostAsUser", "https://hub:443@evil.example/b"}),
    testing::row_name<OriginRow>);

TEST_F(Redirect, ResolvesARelativeLocationWithItsQuery) {
  wire.on("https://hub/org/repo/resolve/main/f",
          redirect(307, "/api/resolve-cache/f?x=&etag=%22ab%22"));
  wire.on("https://hub/api/resolve-cache/f?x=&etag=%22ab%22", Answer::whole("file"));
  EXPECT_EQ(fetch("https://hub/org/repo/resolve/main/f").head.status, 200);
}

TEST_F(Redirect, RefusesToLeaveHttps) {
  wire.on("https://hub/a", redirect(302, "http://hub/a?signature=secret"));
  const Completion completion = fetch("https://hub/a");
  EXPECT_EQ(completion.failure, TransportFailure::kProtocol);
  EXPECT_EQ(completion.detail, "redirect from https to http://hub/a refused");
  EXPECT_EQ(wire.sent().size(), 1U);
  EXPECT_TRUE(sink.heads.empty());
}

TEST_F(Redirect, RefusesOtherSchemes) {
  wire.on("https://hub/a", redirect(302, "file:///etc/passwd"));
  EXPECT_EQ(fetch("https://hub/a").failure, TransportFailure::kProtocol);
  EXPECT_EQ(wire.sent().size(), 1U);
}

TEST_F(Redirect, GoesFromHttpToHttps) {
  wire.on("http://hub/a", redirect(301, "https://hub/a"));
  wire.on("https://hub/a", Answer::whole("file"));
  EXPECT_EQ(fetch("http://hub/a").failure, TransportFailure::kNone);
  EXPECT_EQ(sink.body, "file");
}

TEST_F(Redirect, FollowsTenAndNoMore) {
  for (int i = 0; i <= 10; ++i) {
    wire.on("https://hub/" + std::to_string(i), redirect(302, "/" + std::to_string(i + 1)));
  }
  const Completion completion = fetch("https://hub/0");
  EXPECT_EQ(completion.failure, TransportFailure::kProtocol);
  EXPECT_EQ(completion.detail, "more than 10 redirects");
  EXPECT_EQ(completion.requests, 11U);
  EXPECT_EQ(transport->requests(), 11U);
}

TEST_F(Redirect, SendsItsCookiesOnInTheSameChainOnly) {
  wire.on("https://hub/a", redirect(302, "/b").cookie("one"));
  wire.on("https://hub/b", Answer::whole("file"));
  wire.on("https://hub/a", Answer::whole("file"));
  fetch("https://hub/a");
  fetch("https://hub/a");
  ASSERT_EQ(wire.sent().size(), 3U);
  EXPECT_EQ(wire.sent()[1].request.cookies, std::vector<std::string>{"one"});
  EXPECT_TRUE(wire.sent()[2].request.cookies.empty());
  ASSERT_EQ(sink.heads.size(), 2U);
  EXPECT_TRUE(sink.heads[0].by_cookies);
  EXPECT_FALSE(sink.heads[1].by_cookies);
}

TEST_F(Redirect, TakesARedirectWithoutALocationForTheAnswer) {
  wire.on("https://hub/a", Answer(302).body("where?"));
  const Completion completion = fetch("https://hub/a");
  EXPECT_EQ(completion.failure, TransportFailure::kNone);
  EXPECT_EQ(completion.head.status, 302);
  EXPECT_EQ(sink.body, "where?");
}

TEST_F(Redirect, DoesNotReadAnEndlessBodyOfARedirect) {
  Answer endless = redirect(302, "/b");
  for (int i = 0; i < 3; ++i) endless.body(std::string(40'000, 'x'));
  bool read_to_the_end = false;
  endless.then([&] { read_to_the_end = true; });
  wire.on("https://hub/a", endless);
  wire.on("https://hub/b", Answer::whole("file"));
  EXPECT_EQ(fetch("https://hub/a").head.status, 200);
  EXPECT_FALSE(read_to_the_end);
}

TEST_F(Redirect, FollowsARedirectWhoseBodyIsCut) {
  wire.on("https://hub/a", redirect(302, "/b").cut());
  wire.on("https://hub/b", Answer::whole("file"));
  EXPECT_EQ(fetch("https://hub/a").failure, TransportFailure::kNone);
}

TEST_F(Redirect, CancelsTheHopThatIsUnderWay) {
  wire.on("https://hub/a", redirect(302, "/b"));
  wire.on("https://hub/b", Answer(200).body("half").stall());
  Request request;
  request.url = "https://hub/a";
  const TransferId id = transport->start(request, sink);
  ASSERT_TRUE(transport->poll(clock.now(), {}).empty());
  ASSERT_EQ(wire.running(), 1U);
  transport->cancel(id);
  EXPECT_EQ(wire.running(), 0U);
}

}  // namespace
}  // namespace fvprefetch
