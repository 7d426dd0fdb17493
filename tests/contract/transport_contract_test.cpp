// What every Transport must do: libcurl against a server on loopback, and the scripted transport
// that the tests of everything above rely on. Below the suite: what only libcurl can get wrong.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

#include "support/fake_clock.h"
#include "support/scripted_transport.h"
#include "support/temp_dir.h"
#include "support/wire_server.h"
#include "transfer/curl_transport.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Answer;
using testing::FakeClock;
using testing::ScriptedTransport;
using testing::TempDir;
using testing::WireServer;

// The proxies of whoever runs the tests are not theirs.
class NoProxies : public ::testing::Environment {
 public:
  void SetUp() override {
    for (const char* name : {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY",
                             "ALL_PROXY", "NO_PROXY"}) {
      ::unsetenv(name);
    }
  }
};
[[maybe_unused]] const auto* const no_proxies =
    ::testing::AddGlobalTestEnvironment(new NoProxies);  // owned by googletest

// A transport and somebody who answers it.
class World {
 public:
  virtual ~World() = default;
  virtual Transport& transport() = 0;
  virtual Clock& clock() = 0;
  /// The address of `path`, which will be answered once with `answer`.
  virtual std::string serve(const std::string& path, Answer answer) = 0;
  virtual std::string origin() = 0;
  /// Whether the last request of `path` had the token with it.
  virtual bool saw_token(const std::string& path) = 0;
};

class CurlWorld final : public World {
 public:
  Transport& transport() override { return *transport_; }
  Clock& clock() override { return real_clock(); }
  std::string serve(const std::string& path, Answer answer) override {
    return server_.serve(path, std::move(answer));
  }
  std::string origin() override { return server_.origin(); }
  bool saw_token(const std::string& path) override {
    const auto heads = server_.heads(path);
    return !heads.empty() &&
           heads.back().find("Authorization: Bearer token\r\n") != std::string::npos;
  }

 private:
  WireServer server_;
  std::unique_ptr<Transport> transport_ = make_curl_transport({{}, "fvprefetch-test/1"});
};

class ScriptedWorld final : public World {
 public:
  Transport& transport() override { return transport_; }
  Clock& clock() override { return clock_; }
  std::string serve(const std::string& path, Answer answer) override {
    transport_.on(origin() + path, std::move(answer));
    return origin() + path;
  }
  std::string origin() override { return "http://127.0.0.1:80"; }
  bool saw_token(const std::string& path) override {
    return transport_.sent().back().request.url == origin() + path &&
           transport_.sent().back().with_token;
  }

 private:
  FakeClock clock_;
  ScriptedTransport transport_{clock_};
};

// Less than a transport reads at a time, a few times as much, and far more.
constexpr std::size_t kBodySizes[] = {8, 40U << 10U, 700'001};

// Writes down what comes, and refuses or throws where it is told to.
class Recorder : public BodySink {
 public:
  bool on_head(const ResponseHead& head) override {
    EXPECT_FALSE(completed) << "a head after the completion";
    EXPECT_TRUE(body.empty()) << "a head after the body";
    heads.push_back(head);
    return !refuse_head;
  }
  bool on_body(const BodyPiece& piece) override {
    const auto data = piece.data;
    EXPECT_FALSE(completed) << "a body after the completion";
    EXPECT_FALSE(heads.empty()) << "a body before the head";
    EXPECT_FALSE(data.empty());
    if (keeps && piece.kept) kept.emplace_back(body.size(), piece);
    body.append(reinterpret_cast<const char*>(data.data()), data.size());
    if (on_bytes) on_bytes();
    return !refuse_body;
  }
  std::vector<ResponseHead> heads;
  std::string body;
  bool keeps = false;
  std::vector<std::pair<std::size_t, BodyPiece>> kept;  // and where in the body they were
  bool refuse_head = false;
  bool refuse_body = false;
  bool completed = false;
  std::function<void()> on_bytes;
};

Request get(const std::string& url) {
  Request request;
  request.url = url;
  return request;
}

// The completion of the only transfer that runs. The bound is for a broken transport only.
Completion complete(Transport& transport, Clock& clock, Recorder& sink) {
  const auto bound = clock.now() + seconds(60);
  do {
    for (Completion& completion : transport.poll(bound, {})) {
      sink.completed = true;
      return std::move(completion);
    }
  } while (clock.now() < bound);
  ADD_FAILURE() << "no completion";
  return {};
}

Answer with_length(const std::string& body, int status = 200) {
  return Answer(status).header("content-length", std::to_string(body.size())).body(body);
}

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<World>()> make;
  friend void PrintTo(const Implementation& one, std::ostream* out) { *out << one.name; }
};

class TransportContract : public ::testing::TestWithParam<Implementation> {
 protected:
  Completion fetch(const Request& request) {
    last_id = transport.start(request, sink);
    return complete(transport, world->clock(), sink);
  }
  Completion fetch(const std::string& path, Answer answer) {
    return fetch(get(world->serve(path, std::move(answer))));
  }

  std::unique_ptr<World> world = GetParam().make();
  Transport& transport = world->transport();
  Recorder sink;
  TransferId last_id = 0;
};

INSTANTIATE_TEST_SUITE_P(
    All, TransportContract,
    ::testing::Values(Implementation{"Curl", [] { return std::make_unique<CurlWorld>(); }},
                      Implementation{"Scripted", [] { return std::make_unique<ScriptedWorld>(); }}),
    [](const auto& row) { return row.param.name; });

TEST_P(TransportContract, DeliversTheHeadOnceAndThenTheBody) {
  const Completion completion = fetch("/a", with_length("the body"));
  EXPECT_EQ(completion.id, last_id);
  EXPECT_EQ(completion.failure, TransportFailure::kNone);
  EXPECT_EQ(completion.detail, "");
  EXPECT_EQ(completion.head.status, 200);
  EXPECT_EQ(completion.requests, 1U);
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].status, 200);
  EXPECT_EQ(sink.heads[0].content_length(), 8U);
  EXPECT_EQ(sink.body, "the body");
}

TEST_P(TransportContract, TellsTheAddressThatAnswered) {
  fetch("/a?x=1", with_length("x"));
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].url, world->origin() + "/a?x=1");
}

TEST_P(TransportContract, DeliversTheHeadOfAnEmptyBody) {
  const Completion completion = fetch("/a", Answer(200).header("content-length", "0"));
  EXPECT_EQ(completion.failure, TransportFailure::kNone);
  EXPECT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.body, "");
}

TEST_P(TransportContract, DeliversTheHeadOfAnswersThatHaveNoBody) {
  const Completion completion = fetch("/a", Answer(304).header("etag", "\"v1\""));
  EXPECT_EQ(completion.failure, TransportFailure::kNone);
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].header("etag"), "\"v1\"");
}

TEST_P(TransportContract, AsksForTheHeadOnly) {
  Request request = get(world->serve("/a", with_length("the body")));
  request.method = Request::Method::kHead;
  const Completion completion = fetch(request);
  EXPECT_EQ(completion.failure, TransportFailure::kNone);
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].content_length(), 8U);
  EXPECT_EQ(sink.body, "");
}

TEST_P(TransportContract, DoesNotJudgeAStatus) {
  const Completion completion = fetch("/a", with_length("no such file", 404));
  EXPECT_EQ(completion.failure, TransportFailure::kNone);
  EXPECT_EQ(completion.head.status, 404);
  EXPECT_EQ(sink.body, "no such file");
}

TEST_P(TransportContract, DoesNotFollowARedirect) {
  const Completion completion =
      fetch("/a", with_length("moved", 302).header("location", world->origin() + "/b"));
  EXPECT_EQ(completion.head.status, 302);
  EXPECT_EQ(completion.head.header("location"), world->origin() + "/b");
  EXPECT_EQ(transport.requests(), 1U);
}

TEST_P(TransportContract, DoesNotTryAgain) {
  const std::string url = world->serve("/a", with_length("busy", 503));
  world->serve("/a", with_length("the body"));
  EXPECT_EQ(fetch(get(url)).head.status, 503);
  EXPECT_EQ(transport.requests(), 1U);
}

TEST_P(TransportContract, CompletesACutBodyAsCut) {
  const Completion completion =
      fetch("/a", Answer(200).header("content-length", "99").body("half of it").cut());
  EXPECT_EQ(completion.failure, TransportFailure::kCut);
  EXPECT_NE(completion.detail, "");
  EXPECT_EQ(completion.head.status, 200);
  EXPECT_EQ(sink.body, "half of it");
}

TEST_P(TransportContract, CompletesAConnectionWithoutAnAnswerAsCut) {
  const Completion completion = fetch("/a", Answer::none(TransportFailure::kCut));
  EXPECT_EQ(completion.failure, TransportFailure::kCut);
  EXPECT_EQ(completion.head.status, 0);
  EXPECT_EQ(completion.head.url, world->origin() + "/a");
  EXPECT_TRUE(sink.heads.empty());
}

TEST_P(TransportContract, EndsATransferThatIsSilentForTooLong) {
  Request request =
      get(world->serve("/a", Answer(200).header("content-length", "99").body("half").stall()));
  request.stall_timeout = milliseconds(300);
  const Completion completion = fetch(request);
  EXPECT_EQ(completion.failure, TransportFailure::kStalled);
  EXPECT_EQ(sink.body, "half");
}

TEST_P(TransportContract, EndsATransferThatOnlyTrickles) {
  Answer answer(200);
  answer.header("content-length", "9999");
  for (int i = 0; i < 40; ++i) answer.body("x").pause(milliseconds(50));
  Request request = get(world->serve("/a", answer));
  request.stall_timeout = milliseconds(400);
  EXPECT_EQ(fetch(request).failure, TransportFailure::kStalled);
  EXPECT_GE(sink.body.size(), 1U);
  EXPECT_LT(sink.body.size(), 40U);
}

TEST_P(TransportContract, LetsATransferThatIsSlowButNotThatSlowComeToItsEnd) {
  Answer answer(200);
  const std::string piece(500, 'x');
  answer.header("content-length", std::to_string(12 * piece.size()));
  for (int i = 0; i < 12; ++i) answer.body(piece).pause(milliseconds(100));
  Request request = get(world->serve("/a", answer));
  request.stall_timeout = milliseconds(1000);  // less than all of it takes
  EXPECT_EQ(fetch(request).failure, TransportFailure::kNone);
  EXPECT_EQ(sink.body.size(), 12 * piece.size());
}

TEST_P(TransportContract, EndsATransferWhoseServerNeverAnswers) {
  Request request = get(world->serve("/a", Answer::none(TransportFailure::kStalled)));
  request.stall_timeout = milliseconds(300);
  EXPECT_EQ(fetch(request).failure, TransportFailure::kStalled);
  EXPECT_TRUE(sink.heads.empty());
}

TEST_P(TransportContract, EndsATransferWhoseSinkRefusesTheHead) {
  sink.refuse_head = true;
  const Completion completion = fetch("/a", with_length("the body"));
  EXPECT_EQ(completion.failure, TransportFailure::kRefusedBySink);
  EXPECT_EQ(completion.head.status, 200);
  EXPECT_EQ(sink.body, "");
}

TEST_P(TransportContract, EndsATransferWhoseSinkRefusesTheBody) {
  for (const std::size_t size : kBodySizes) {
    sink = Recorder();
    sink.refuse_body = true;
    const Completion completion =
        fetch("/a" + std::to_string(size), with_length(std::string(size, 'x')));
    EXPECT_EQ(completion.failure, TransportFailure::kRefusedBySink) << size;
  }
}

TEST_P(TransportContract, DeliversEveryByteOfABodyInItsPlace) {
  for (const std::size_t size : kBodySizes) {
    sink = Recorder();
    std::string body(size, '\0');
    for (std::size_t i = 0; i < size; ++i) body[i] = static_cast<char>('a' + i / 1000 % 26);
    EXPECT_EQ(fetch("/a" + std::to_string(size), with_length(body)).failure,
              TransportFailure::kNone);
    EXPECT_TRUE(sink.body == body) << size;
  }
}

TEST_P(TransportContract, ForgetsACancelledTransfer) {
  const TransferId id = transport.start(get(world->serve("/a", with_length("the body"))), sink);
  transport.cancel(id);
  Recorder other;
  transport.start(get(world->serve("/b", with_length("another"))), other);
  EXPECT_NE(complete(transport, world->clock(), other).id, id);
  EXPECT_TRUE(transport.poll(world->clock().now(), {}).empty());
  EXPECT_TRUE(sink.heads.empty());
}

TEST_P(TransportContract, RunsSeveralTransfersAtOnce) {
  constexpr int kTransfers = 5;
  std::vector<Recorder> sinks(kTransfers);
  std::map<TransferId, Recorder*> running;
  for (int i = 0; i < kTransfers; ++i) {
    const std::string path = "/" + std::to_string(i);
    auto& one = sinks[static_cast<std::size_t>(i)];
    running[transport.start(get(world->serve(path, with_length("body of " + path))), one)] = &one;
  }
  const auto bound = world->clock().now() + seconds(60);
  while (!running.empty() && world->clock().now() < bound) {
    for (const Completion& completion : transport.poll(bound, {})) {
      EXPECT_EQ(completion.failure, TransportFailure::kNone);
      EXPECT_EQ(running.erase(completion.id), 1U) << "completed twice, or never begun";
    }
  }
  EXPECT_TRUE(running.empty());
  for (int i = 0; i < kTransfers; ++i) {
    EXPECT_EQ(sinks[static_cast<std::size_t>(i)].body, "body of /" + std::to_string(i));
  }
  EXPECT_EQ(transport.requests(), 5U);
}

TEST_P(TransportContract, ReturnsFromPollWhenTheTimeIsOver) {
  transport.start(get(world->serve("/a", Answer::none(TransportFailure::kStalled))), sink);
  const auto until = world->clock().now() + milliseconds(20);
  EXPECT_TRUE(transport.poll(until, {}).empty());
  EXPECT_GE(world->clock().now(), until);
}

TEST_P(TransportContract, ReturnsFromPollWhenStopped) {
  std::stop_source stop;
  sink.on_bytes = [&] { stop.request_stop(); };
  transport.start(
      get(world->serve("/a", Answer(200).header("content-length", "99").body("half").stall())),
      sink);
  EXPECT_TRUE(transport.poll(Clock::TimePoint::max(), stop.get_token()).empty());
  EXPECT_EQ(sink.body, "half");
}

TEST_P(TransportContract, ReturnsFromPollAtOnceWhenNothingRuns) {
  EXPECT_TRUE(transport.poll(Clock::TimePoint::max(), {}).empty());
}

TEST_P(TransportContract, ShowsTheTokenToItsOrigin) {
  Request request = get(world->serve("/a", with_length("x")));
  request.credential = {Secret("token"), {"https://other:443", world->origin()}};
  fetch(request);
  EXPECT_TRUE(world->saw_token("/a"));
}

TEST_P(TransportContract, ShowsTheTokenToNoOtherOrigin) {
  Request request = get(world->serve("/a", with_length("x")));
  request.credential = {Secret("token"), {"https://127.0.0.1:443", world->origin() + "1"}};
  fetch(request);
  EXPECT_FALSE(world->saw_token("/a"));
}

TEST_P(TransportContract, CompletesWhatIsNoUrlWithoutARequest) {
  const Completion completion = fetch(get("ftp://127.0.0.1/a"));
  EXPECT_EQ(completion.id, last_id);
  EXPECT_EQ(completion.failure, TransportFailure::kUrl);
  EXPECT_EQ(completion.requests, 0U);
  EXPECT_EQ(transport.requests(), 0U);
}

TEST_P(TransportContract, ForgetsACancelledTransferThatWasNoUrl) {
  transport.cancel(transport.start(get("ftp://127.0.0.1/a"), sink));
  EXPECT_TRUE(transport.poll(world->clock().now(), {}).empty());
}

// --- libcurl alone -------------------------------------------------------------------------------

std::size_t open_descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++count;
  }
  return count;
}

// An environment variable for the time of a test.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* before = ::getenv(name)) before_ = before;
    ::setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (before_) {
      ::setenv(name_, before_->c_str(), 1);
    } else {
      ::unsetenv(name_);
    }
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

class CurlTransportTest : public ::testing::Test {
 protected:
  Completion fetch(const Request& request) {
    transport->start(request, sink);
    return complete(*transport, real_clock(), sink);
  }
  Completion fetch_bytes(const std::string& bytes) {
    return fetch(get(server.serve_bytes("/a", bytes)));
  }
  // Lower case: "\r\nuser-agent: x\r\n".
  std::string request_head(const std::string& path = "/a") {
    const auto heads = server.heads(path);
    std::string head = heads.empty() ? "" : heads.back();
    for (char& c : head) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return head;
  }

  WireServer server;
  std::unique_ptr<Transport> transport = make_curl_transport({{}, "fvprefetch-test/1"});
  Recorder sink;
};

TEST_F(CurlTransportTest, OpensNothingBeforeTheFirstRequest) {
  const std::size_t before = open_descriptors();
  const auto another = make_curl_transport({{}, "fvprefetch-test/1"});
  EXPECT_TRUE(another->poll(real_clock().now(), {}).empty());
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(CurlTransportTest, AsksOverHttp11ForUnencodedBytesInItsOwnName) {
  fetch(get(server.serve("/a", with_length("x"))));
  const std::string head = request_head();
  EXPECT_EQ(head.find("get /a http/1.1\r\n"), 0U);
  EXPECT_NE(head.find("\r\naccept-encoding: identity\r\n"), std::string::npos);
  EXPECT_NE(head.find("\r\nuser-agent: fvprefetch-test/1\r\n"), std::string::npos);
}

TEST_F(CurlTransportTest, SendsTheHeadersOfTheRequest) {
  Request request = get(server.serve("/a", with_length("x")));
  request.headers = {{"Range", "bytes=5-"}, {"If-Range", "\"v1\""}};
  fetch(request);
  EXPECT_NE(request_head().find("\r\nrange: bytes=5-\r\n"), std::string::npos);
  EXPECT_NE(request_head().find("\r\nif-range: \"v1\"\r\n"), std::string::npos);
}

TEST_F(CurlTransportTest, DoesNotLetAHeaderSmuggleAnother) {
  Request request = get(server.serve("/a", with_length("x")));
  request.headers = {{"X-Trace", "1\r\nHost: evil"}};
  EXPECT_EQ(fetch(request).failure, TransportFailure::kUrl);
  EXPECT_TRUE(server.heads("/a").empty());
}

TEST_F(CurlTransportTest, DoesNotReadNetrc) {
  const TempDir home;
  std::ofstream(home.path() + "/.netrc") << "machine 127.0.0.1 login me password secret\n";
  const Variable variable("HOME", home.path());
  fetch(get(server.serve("/a", with_length("x"))));
  EXPECT_EQ(request_head().find("authorization"), std::string::npos);
}

TEST_F(CurlTransportTest, GoesThroughTheProxyOfTheEnvironment) {
  const Variable proxy("http_proxy", server.origin());
  server.serve("http://host.invalid/a", with_length("by proxy"));
  EXPECT_EQ(fetch(get("http://host.invalid/a")).failure, TransportFailure::kNone);
  EXPECT_EQ(sink.body, "by proxy");
}

TEST_F(CurlTransportTest, DoesNotGoThroughTheProxyWhereNoProxySaysSo) {
  const Variable proxy("http_proxy", "http://127.0.0.1:1");
  const Variable no_proxy("no_proxy", "127.0.0.1");
  EXPECT_EQ(fetch(get(server.serve("/a", with_length("x")))).failure, TransportFailure::kNone);
}

TEST_F(CurlTransportTest, TellsAProxyThatRefusesFromAServerThatDoes) {
  const Variable proxy("HTTPS_PROXY", server.origin());
  server.serve("host.invalid:443", Answer(407).header("content-length", "0"));
  const Completion completion = fetch(get("https://host.invalid/a"));
  EXPECT_EQ(completion.failure, TransportFailure::kProxy);
  EXPECT_EQ(completion.head.status, 0);
  EXPECT_TRUE(sink.heads.empty());
}

TEST_F(CurlTransportTest, SaysNothingOfAProxysPassword) {
  const Variable proxy("http_proxy", "nonsense://me:secret@127.0.0.1:1");
  const Completion completion = fetch(get("http://host.invalid/a"));
  EXPECT_NE(completion.failure, TransportFailure::kNone);
  EXPECT_NE(completion.detail, "");
  EXPECT_EQ(completion.detail.find("secret"), std::string::npos);
}

TEST_F(CurlTransportTest, CompletesARefusedConnectionAsSuch) {
  std::string gone;
  {
    const WireServer closed;
    gone = closed.origin() + "/a";
  }
  EXPECT_EQ(fetch(get(gone)).failure, TransportFailure::kConnect);
}

TEST_F(CurlTransportTest, CompletesATrustStoreThatCannotBeReadAsATlsFailure) {
  CurlOptions options;
  options.trust.file = "/does/not/exist.pem";
  transport = make_curl_transport(options);
  const std::string url = "https" + server.origin().substr(4) + "/a";
  EXPECT_EQ(fetch(get(url)).failure, TransportFailure::kTls);
}

TEST_F(CurlTransportTest, CompletesWhatIsNoTlsAsAFailedConnection) {
  server.serve_bytes("/a", "");
  const std::string url = "https" + server.origin().substr(4) + "/a";
  Request request = get(url);
  request.stall_timeout = milliseconds(300);  // neither side says anything that the other knows
  const TransportFailure failure = fetch(request).failure;
  EXPECT_TRUE(failure == TransportFailure::kConnect || failure == TransportFailure::kStalled);
}

TEST_F(CurlTransportTest, BringsEveryByteUnderARateLimit) {
  CurlOptions options;
  options.limit_rate = 4U << 20U;
  transport = make_curl_transport(options);
  const std::string body(1U << 20U, 'x');
  EXPECT_EQ(fetch(get(server.serve("/a", with_length(body)))).failure, TransportFailure::kNone);
  EXPECT_EQ(sink.body.size(), body.size());
}

TEST_F(CurlTransportTest, DoesNotTakeItsOwnPausesForASilentServer) {
  CurlOptions options;
  options.limit_rate = 40U << 10U;
  transport = make_curl_transport(options);
  const std::string body(60U << 10U, 'x');
  Request request = get(server.serve("/a", with_length(body)));
  request.stall_timeout = milliseconds(150);
  EXPECT_EQ(fetch(request).failure, TransportFailure::kNone);
  EXPECT_EQ(sink.body.size(), body.size());
}

TEST_F(CurlTransportTest, KeepsConnections) {
  fetch(get(server.serve("/a", with_length("x"))));
  sink = Recorder();
  fetch(get(server.serve("/b", with_length("y"))));
  EXPECT_EQ(server.connections(), 1);
}

TEST_F(CurlTransportTest, LowersTheNamesOfHeaders) {
  fetch_bytes("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-Repo-COMMIT:  ab \r\n\r\nx");
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].header("x-repo-commit"), "ab");
  EXPECT_EQ(sink.heads[0].content_length(), 1U);
}

TEST_F(CurlTransportTest, JoinsAFoldedHeader) {
  fetch_bytes("HTTP/1.1 200 OK\r\nLink: <a>,\r\n  <b>\r\nContent-Length: 1\r\n\r\nx");
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].header("link"), "<a>, <b>");
}

TEST_F(CurlTransportTest, ForgetsInterimAnswers) {
  fetch_bytes(
      "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].status, 200);
  EXPECT_EQ(sink.heads[0].header("link"), "");
}

constexpr auto kChunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

TEST_F(CurlTransportTest, ReadsAChunkedBodyAndNoTrailer) {
  EXPECT_EQ(fetch_bytes(std::string(kChunked) + "3\r\nabc\r\n0\r\nETag: \"late\"\r\n\r\n").failure,
            TransportFailure::kNone);
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].content_length(), std::nullopt);
  EXPECT_EQ(sink.heads[0].header("etag"), "");
  EXPECT_EQ(sink.body, "abc");
}

TEST_F(CurlTransportTest, CompletesAChunkedBodyWithoutItsEndAsCut) {
  EXPECT_EQ(fetch_bytes(std::string(kChunked) + "3\r\nabc\r\n5\r\nde").failure,
            TransportFailure::kCut);
}

TEST_F(CurlTransportTest, DoesNotDecodeWhatCameEncodedAllTheSame) {
  fetch_bytes("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b..");
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].content_length(), 4U);  // of the bytes as they come
  EXPECT_EQ(sink.body, "\x1f\x8b..");
}

TEST_F(CurlTransportTest, CompletesAHeadThatEndsInTheMiddleWithoutShowingIt) {
  EXPECT_NE(fetch_bytes("HTTP/1.1 200 OK\r\nContent-Le").failure, TransportFailure::kNone);
  EXPECT_TRUE(sink.heads.empty());
}

TEST_F(CurlTransportTest, RefusesWhatIsNoHttp) {
  EXPECT_EQ(fetch_bytes("SSH-2.0-OpenSSH_9.2\r\n").failure, TransportFailure::kProtocol);
  EXPECT_TRUE(sink.heads.empty());
}

TEST_F(CurlTransportTest, RefusesAHeadWithoutEnd) {
  std::string bytes = "HTTP/1.1 200 OK\r\n";
  for (int i = 0; i < 1200; ++i) bytes += "X-Filler: " + std::string(1000, 'x') + "\r\n";
  EXPECT_EQ(fetch_bytes(bytes).failure, TransportFailure::kProtocol);
  EXPECT_TRUE(sink.heads.empty());
}

TEST_F(CurlTransportTest, LendsSomePiecesToWhoKeepsThemAlsoAfterItsEnd) {
  std::string body(20U << 20U, '\0');
  for (std::size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>('a' + i / 1000 % 26);
  const auto check = [&] {
    std::size_t bytes = 0;
    for (const auto& [offset, piece] : sink.kept) {
      bytes += piece.data.size();
      const auto expected = std::as_bytes(std::span(body)).subspan(offset, piece.data.size());
      EXPECT_TRUE(std::equal(piece.data.begin(), piece.data.end(), expected.begin())) << offset;
    }
    EXPECT_GT(bytes, 0U);
    EXPECT_LE(bytes, 8U << 20U);
  };
  for (int round = 0; round < 2; ++round) {
    sink = Recorder();  // what the last one had goes back
    sink.keeps = true;
    const Request request = get(server.serve("/a" + std::to_string(round), with_length(body)));
    EXPECT_EQ(fetch(request).failure, TransportFailure::kNone);
    EXPECT_TRUE(sink.body == body);
    check();
  }
  transport.reset();
  check();
}

TEST_F(CurlTransportTest, HandsOnWhatASinkThrows) {
  const auto poll = [&] {
    const auto bound = real_clock().now() + seconds(60);
    while (transport->poll(bound, {}).empty() && real_clock().now() < bound) {
    }
  };
  for (const std::size_t size : kBodySizes) {
    sink = Recorder();
    sink.on_bytes = [] { throw std::runtime_error("of the sink"); };
    const std::string path = "/a" + std::to_string(size);
    transport->start(get(server.serve(path, with_length(std::string(size, 'x')))), sink);
    EXPECT_THROW(poll(), std::runtime_error) << size;
    EXPECT_TRUE(transport->poll(real_clock().now(), {}).empty());
  }
}

TEST_F(CurlTransportTest, LosesNoCompletionWhenAnotherSinkThrows) {
  Recorder other;
  const TransferId id = transport->start(get("ftp://127.0.0.1/b"), other);
  sink.on_bytes = [] { throw std::runtime_error("of the sink"); };
  transport->start(get(server.serve("/a", with_length("x"))), sink);
  bool completed = false;
  const auto bound = real_clock().now() + seconds(60);
  for (bool thrown = false; !(thrown && completed) && real_clock().now() < bound;) {
    try {
      for (const Completion& completion : transport->poll(bound, {})) {
        completed = completed || completion.id == id;
      }
    } catch (const std::runtime_error&) {
      thrown = true;
    }
  }
  EXPECT_TRUE(completed);
}

}  // namespace
}  // namespace fvprefetch
