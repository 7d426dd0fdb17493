#include "transfer/retry.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "support/matchers.h"

namespace fvprefetch::retry {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::row_name;

// --- classify ------------------------------------------------------------------------------------

struct ClassRow {
  std::string name;
  Attempt attempt;
  Verdict verdict;
  friend void PrintTo(const ClassRow& row, std::ostream* out) { *out << row.name; }
};

class Classify : public ::testing::TestWithParam<ClassRow> {};

TEST_P(Classify, GivesTheVerdictOfTheTable) {
  EXPECT_EQ(classify(GetParam().attempt), GetParam().verdict);
}

ClassRow status(const std::string& name, int code, Verdict verdict) {
  return {name, {TransportFailure::kNone, code}, verdict};
}
ClassRow failure(const std::string& name, TransportFailure kind, Verdict verdict) {
  return {name, {kind, 0}, verdict};
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Classify,
    ::testing::Values(
        status("Ok", 200, Verdict::kDone), status("PartOfIt", 206, Verdict::kDone),
        status("ChoiceOfSeveral", 300, Verdict::kNextMirror),
        status("NotModified", 304, Verdict::kNextMirror),
        status("BadRequest", 400, Verdict::kNextMirror),
        status("NoToken", 401, Verdict::kNextMirror),
        status("Forbidden", 403, Verdict::kNextMirror),
        status("NotFound", 404, Verdict::kNextMirror),
        status("ServerGaveUpWaiting", 408, Verdict::kAgain),
        status("Gone", 410, Verdict::kNextMirror),
        status("RangeBeyondTheEnd", 416, Verdict::kNextMirror),
        status("TooEarly", 425, Verdict::kAgain), status("TooManyRequests", 429, Verdict::kAgain),
        status("ServerError", 500, Verdict::kAgain),
        status("NotImplemented", 501, Verdict::kNextMirror),
        status("BadGateway", 502, Verdict::kAgain), status("Unavailable", 503, Verdict::kAgain),
        status("GatewayTimeout", 504, Verdict::kAgain),
        status("NotThisHttpVersion", 505, Verdict::kNextMirror),
        status("NoStatusOfHttp", 700, Verdict::kNextMirror),
        failure("HostNotFound", TransportFailure::kResolve, Verdict::kAgain),
        failure("ConnectionRefused", TransportFailure::kConnect, Verdict::kAgain),
        failure("ProxyRefused", TransportFailure::kProxy, Verdict::kAgain),
        failure("Stalled", TransportFailure::kStalled, Verdict::kAgain),
        failure("Cut", TransportFailure::kCut, Verdict::kAgain),
        failure("CertificateNotTrusted", TransportFailure::kTls, Verdict::kNextMirror),
        failure("BadRedirect", TransportFailure::kProtocol, Verdict::kNextMirror),
        failure("NoUrl", TransportFailure::kUrl, Verdict::kNextMirror),
        failure("SinkSaidStop", TransportFailure::kRefusedBySink, Verdict::kStop),
        // The status of an answer that did not arrive whole says nothing.
        ClassRow{"CutAfterA200", {TransportFailure::kCut, 200}, Verdict::kAgain},
        ClassRow{"RefusedForNow", {TransportFailure::kNone, 403, true}, Verdict::kAgain}),
    row_name<ClassRow>);

// --- is_rate_limit -------------------------------------------------------------------------------

TEST(IsRateLimit, IsARefusalThatSaysWhenItEnds) {
  const auto answered = [](int status, std::vector<std::pair<std::string, std::string>> headers) {
    ResponseHead head;
    head.status = status;
    head.headers = std::move(headers);
    return is_rate_limit(head);
  };
  EXPECT_TRUE(answered(429, {}));
  EXPECT_TRUE(answered(403, {{"retry-after", "2"}}));
  EXPECT_TRUE(answered(403, {{"x-ratelimit-remaining", "0"}}));
  EXPECT_TRUE(answered(403, {{"ratelimit", R"("api";r=0;t=5)"}}));
  EXPECT_TRUE(answered(403, {{"retry-after", "soon"}}));
  EXPECT_TRUE(answered(403, {{"ratelimit", R"("api";r=0)"}}));
  EXPECT_TRUE(answered(403, {{"x-ratelimit-remaining", "0, 0"}}));
  EXPECT_TRUE(answered(403, {{"x-rate-limit-remaining", "0"}}));
  EXPECT_TRUE(answered(420, {{"retry-after", "2"}}));
  EXPECT_FALSE(answered(420, {}));
  EXPECT_FALSE(answered(403, {}));
  EXPECT_FALSE(answered(403, {{"x-ratelimit-remaining", "12"}, {"x-ratelimit-reset", "9"}}));
  EXPECT_FALSE(answered(404, {{"retry-after", "2"}}));
}

// --- wait_asked ----------------------------------------------------------------------------------

struct WaitRow {
  std::string name;
  std::vector<std::pair<std::string, std::string>> headers;
  std::optional<seconds> wait;
  friend void PrintTo(const WaitRow& row, std::ostream* out) { *out << row.name; }
};

class WaitAsked : public ::testing::TestWithParam<WaitRow> {};

TEST_P(WaitAsked, ReadsTheHeadersAsTheTableSays) {
  ResponseHead head;
  head.status = 429;
  head.headers = GetParam().headers;
  EXPECT_EQ(wait_asked(head), GetParam().wait);
}

constexpr auto kDate = "Sun, 06 Nov 1994 08:49:37 GMT";

INSTANTIATE_TEST_SUITE_P(
    Rows, WaitAsked,
    ::testing::Values(
        WaitRow{"NothingAsked", {}, std::nullopt},
        WaitRow{"Seconds", {{"retry-after", "7"}}, seconds(7)},
        WaitRow{"SecondsWithBlanks", {{"retry-after", " 7 "}}, seconds(7)},
        WaitRow{"ZeroSeconds", {{"retry-after", "0"}}, seconds(0)},
        WaitRow{"NegativeIsNothing", {{"retry-after", "-7"}}, std::nullopt},
        WaitRow{"FractionIsRoundedUp", {{"retry-after", "7.5"}}, seconds(8)},
        WaitRow{"FractionOfWords", {{"retry-after", "7.x"}}, std::nullopt},
        WaitRow{"WordIsNothing", {{"retry-after", "soon"}}, std::nullopt},
        WaitRow{"HugeIsAWeek", {{"retry-after", "99999999999999999999"}}, seconds(7 * 86400)},
        WaitRow{"DateAgainstTheServersOwn",
                {{"retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"}, {"date", kDate}},
                seconds(30)},
        WaitRow{"DateOfTheNextYear",
                {{"retry-after", "Sun, 01 Jan 1995 00:00:10 GMT"},
                 {"date", "Sat, 31 Dec 1994 23:59:50 GMT"}},
                seconds(20)},
        WaitRow{"DateInThePast",
                {{"retry-after", kDate}, {"date", "Sun, 06 Nov 1994 09:00:00 GMT"}},
                seconds(0)},
        WaitRow{"DateThatOurClockHasPassed", {{"retry-after", kDate}}, seconds(0)},
        WaitRow{"DateFarFromOurClock",
                {{"retry-after", "Wed, 01 Jan 2098 00:00:00 GMT"}},
                seconds(7 * 86400)},
        WaitRow{"DateOfRfc850",
                {{"retry-after", "Sunday, 06-Nov-94 08:50:07 GMT"}, {"date", kDate}},
                seconds(30)},
        WaitRow{"DateOfAsctime",
                {{"retry-after", "Sun Nov  6 08:50:07 1994"}, {"date", kDate}},
                seconds(30)},
        WaitRow{"NoSuchMonth",
                {{"retry-after", "Sun, 06 Nox 1994 08:49:37 GMT"}, {"date", kDate}},
                std::nullopt},
        WaitRow{"NoSuchDay",
                {{"retry-after", "Sun, 31 Feb 1994 08:49:37 GMT"}, {"date", kDate}},
                std::nullopt},
        WaitRow{"RateLimitUsedUp", {{"ratelimit", R"("api";r=0;t=55)"}}, seconds(55)},
        WaitRow{"RateLimitWithBlanks", {{"ratelimit", R"("api" ; r=0 ; t=55)"}}, seconds(55)},
        WaitRow{"RateLimitNotUsedUp", {{"ratelimit", R"("api";r=12;t=55)"}}, std::nullopt},
        WaitRow{"RateLimitWithoutTime", {{"ratelimit", R"("api";r=0)"}}, std::nullopt},
        WaitRow{"OldRateLimit", {{"ratelimit", "limit=10, remaining=0, reset=55"}}, seconds(55)},
        WaitRow{"OldRateLimitNotUsedUp",
                {{"ratelimit", "limit=10, remaining=1, reset=55"}},
                std::nullopt},
        WaitRow{"LongestOfSeveralRateLimits",
                {{"ratelimit", R"("api";r=0;t=5, "pages";r=3;t=90, "resolvers";r=0;t=20)"}},
                seconds(20)},
        WaitRow{"RateLimitBeforeRetryAfter",
                {{"retry-after", "7"}, {"ratelimit", R"("api";r=0;t=55)"}},
                seconds(55)},
        WaitRow{"OlderHeaderInSeconds",
                {{"ratelimit-remaining", "0"}, {"ratelimit-reset", "55"}},
                seconds(55)},
        WaitRow{"OlderHeaderWithAnotherName",
                {{"x-rate-limit-remaining", "0"}, {"x-rate-limit-reset", "55"}},
                seconds(55)},
        WaitRow{
            "OlderHeaderAsATime",
            {{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "784111807"}, {"date", kDate}},
            seconds(30)},
        WaitRow{"TimeWithoutADateHeader",
                {{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "784111807"}},
                std::nullopt},
        WaitRow{"TimeInMilliseconds",
                {{"x-ratelimit-remaining", "0"},
                 {"x-ratelimit-reset", "784111807000"},
                 {"date", kDate}},
                std::nullopt},
        WaitRow{"OlderHeaderThatIsNotUsedUp",
                {{"x-ratelimit-remaining", "3"}, {"x-ratelimit-reset", "55"}},
                std::nullopt},
        WaitRow{"RetryAfterWhenTheRateLimitIsNotUsedUp",
                {{"retry-after", "7"}, {"ratelimit", R"("api";r=12;t=55)"}},
                seconds(7)}),
    row_name<WaitRow>);

// --- delay ---------------------------------------------------------------------------------------

struct DelayRow {
  std::string name;
  int retry;
  std::optional<seconds> floor;
  milliseconds shortest;
  milliseconds longest;
  friend void PrintTo(const DelayRow& row, std::ostream* out) { *out << row.name; }
};

class Delay : public ::testing::TestWithParam<DelayRow> {};

TEST_P(Delay, LiesBetweenTheBoundsForAnyJitter) {
  std::mt19937 random(1);
  milliseconds low = milliseconds::max();
  milliseconds high{0};
  for (int i = 0; i < 2000; ++i) {
    const milliseconds drawn = delay(GetParam().retry, GetParam().floor, random);
    low = std::min(low, drawn);
    high = std::max(high, drawn);
  }
  EXPECT_GE(low, GetParam().shortest);
  EXPECT_LE(high, GetParam().longest);
  // And it does spread: two jobs that failed together do not come back together.
  EXPECT_GT(high - low, (GetParam().longest - GetParam().shortest) / 2);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Delay,
    ::testing::Values(
        DelayRow{"First", 1, std::nullopt, milliseconds(250), milliseconds(500)},
        DelayRow{"Second", 2, std::nullopt, milliseconds(500), milliseconds(1000)},
        DelayRow{"Sixth", 6, std::nullopt, milliseconds(8000), milliseconds(16000)},
        DelayRow{"Capped", 7, std::nullopt, milliseconds(15000), milliseconds(30000)},
        DelayRow{"FarBeyondTheCap", 1000, std::nullopt, milliseconds(15000), milliseconds(30000)},
        DelayRow{"AskedForZero", 1, seconds(0), milliseconds(250), milliseconds(500)},
        DelayRow{"AskedFor", 1, seconds(55), milliseconds(55250), milliseconds(55500)},
        DelayRow{"TheCapDoesNotCutWhatWasAskedFor", 9, seconds(300), milliseconds(315000),
                 milliseconds(330000)}),
    row_name<DelayRow>);

// --- to_error ------------------------------------------------------------------------------------

struct ErrorRow {
  std::string name;
  TransportFailure failure;
  int status;
  ErrorCode code;
  std::string message;
  friend void PrintTo(const ErrorRow& row, std::ostream* out) { *out << row.name; }
};

class ToError : public ::testing::TestWithParam<ErrorRow> {};

TEST_P(ToError, SaysWhatFailedOnWhat) {
  Completion completion;
  completion.failure = GetParam().failure;
  completion.detail = completion.failure == TransportFailure::kNone ? "" : "the transport's words";
  completion.head.status = GetParam().status;
  completion.head.url = "https://user:word@host/file.bin?signature=secret";
  const Error error = to_error(completion);
  EXPECT_EQ(error.code, GetParam().code);
  EXPECT_EQ(error.message, GetParam().message);
  EXPECT_EQ(error.subject, "https://host/file.bin");
  EXPECT_EQ(describe(error).find("secret"), std::string::npos);
}

constexpr auto kWords = "cannot fetch https://host/file.bin: the transport's words";

INSTANTIATE_TEST_SUITE_P(
    Rows, ToError,
    ::testing::Values(
        ErrorRow{"Unauthorized", TransportFailure::kNone, 401, ErrorCode::kAccess,
                 "401 Unauthorized from https://host/file.bin"},
        ErrorRow{"Forbidden", TransportFailure::kNone, 403, ErrorCode::kAccess,
                 "403 Forbidden from https://host/file.bin"},
        ErrorRow{"NotFound", TransportFailure::kNone, 404, ErrorCode::kNotFound,
                 "404 Not Found from https://host/file.bin"},
        ErrorRow{"Gone", TransportFailure::kNone, 410, ErrorCode::kNotFound,
                 "410 Gone from https://host/file.bin"},
        ErrorRow{"TooMany", TransportFailure::kNone, 429, ErrorCode::kRateLimited,
                 "429 Too Many Requests from https://host/file.bin"},
        ErrorRow{"Unavailable", TransportFailure::kNone, 503, ErrorCode::kNetwork,
                 "503 Service Unavailable from https://host/file.bin"},
        ErrorRow{"UnknownStatus", TransportFailure::kNone, 599, ErrorCode::kNetwork,
                 "599 from https://host/file.bin"},
        ErrorRow{"Resolve", TransportFailure::kResolve, 0, ErrorCode::kNetwork, kWords},
        ErrorRow{"Tls", TransportFailure::kTls, 0, ErrorCode::kNetwork, kWords},
        ErrorRow{"CutAfterAHead", TransportFailure::kCut, 200, ErrorCode::kNetwork, kWords},
        ErrorRow{"NoUrl", TransportFailure::kUrl, 0, ErrorCode::kUsage, kWords}),
    row_name<ErrorRow>);

TEST(ToErrorHint, NamesTheVariableThatHelpsAgainstAnUntrustedCertificate) {
  Completion completion;
  completion.failure = TransportFailure::kTls;
  completion.head.url = "https://host/file.bin";
  EXPECT_NE(to_error(completion).hint.find("SSL_CERT_FILE"), std::string::npos);
}

TEST(ToErrorRetryAfter, IsWhatTheServerAskedFor) {
  Completion completion;
  completion.head.status = 429;
  completion.head.url = "https://host/file.bin";
  completion.head.headers = {{"retry-after", "90"}};
  EXPECT_EQ(to_error(completion).retry_after, seconds(90));
}

}  // namespace
}  // namespace fvprefetch::retry
