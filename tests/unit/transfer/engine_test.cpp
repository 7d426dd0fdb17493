#include "transfer/engine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "base/digest.h"
#include "support/fake_clock.h"
#include "support/matchers.h"
#include "support/scripted_transport.h"
#include "support/temp_dir.h"
#include "support/tiny_disk.h"
#include "transfer/redirect.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Answer;
using testing::FailsWith;
using testing::FakeClock;
using testing::IsOk;
using testing::ScriptedTransport;
using testing::TempDir;

constexpr auto kA = "https://a/file";
constexpr auto kB = "https://b/file";
constexpr auto kC = "https://c/file";
const std::string kText = "the bytes of a checkpoint";
const std::string kPage = "<!DOCTYPE html><title>Log in</title>";
const std::string kPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n";

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class EngineTest : public ::testing::Test {
 protected:
  Download download(std::vector<std::string> urls = {kA}) {
    Download made;
    made.spec.path = "file";
    made.spec.urls = std::move(urls);
    made.partial = partial;
    return made;
  }
  Download checked(std::vector<std::string> urls = {kA}) {
    Download made = download(std::move(urls));
    made.spec.size = kText.size();
    made.spec.digest = Digest{Digest::Kind::kSha256, sha256_hex(kText)};
    return made;
  }

  // Of a size that is known, and whatever bytes the server's validator stands for.
  Download sized() {
    Download made = checked();
    made.spec.digest.reset();
    return made;
  }

  void make_engine() { engine.emplace(*transport, clock, options, random); }

  // Two downloads, of kA and then of `other`, which is asked for while the first one comes.
  DownloadId add_one_that_takes_a_while_and(const std::string& other,
                                            milliseconds for_each_byte = milliseconds(100),
                                            decltype(Download::explain) explain = {}) {
    Answer slow(200);
    for (const char c : kText) slow.pause(for_each_byte).body(std::string(1, c));
    wire.on(kA, slow);
    make_engine();
    engine->add(download());
    Download second = download({other});
    second.partial += "2";
    second.explain = std::move(explain);
    return engine->add(std::move(second));
  }

  // Works until one download is finished.
  Finished finish() {
    for (int turns = 0; turns < 1000; ++turns) {
      for (Finished& finished : engine->poll(Clock::TimePoint::max(), stop.get_token())) {
        return std::move(finished);
      }
    }
    ADD_FAILURE() << "nothing finished";
    return {0, fail(ErrorCode::kInternal, "nothing finished"), 0, 0};
  }
  Finished fetch(Download what) {
    make_engine();
    engine->add(std::move(what));
    return finish();
  }
  [[nodiscard]] bool partial_exists() const { return std::filesystem::exists(partial); }
  [[nodiscard]] seconds since_begin() const {
    return std::chrono::duration_cast<seconds>(clock.now() - begin);
  }

  TempDir dir;
  std::string partial = dir.path() + "/.file.part";
  FakeClock clock;
  Clock::TimePoint begin = clock.now();
  ScriptedTransport wire{clock};
  std::unique_ptr<Transport> transport = follow_redirects(wire);
  std::mt19937 random{1};
  EngineOptions options;
  std::stop_source stop;
  std::optional<Engine> engine;
};

// --- what arrives whole --------------------------------------------------------------------------

TEST_F(EngineTest, HandsOutAFileWhoseSizeAndDigestAgree) {
  wire.on(kA, Answer(200).header("etag", "\"v1\"").body("the bytes ").body("of a checkpoint"));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(finished.result->size, kText.size());
  EXPECT_EQ(finished.result->sha256, sha256_hex(kText));
  EXPECT_EQ(finished.result->etag, "\"v1\"");
  EXPECT_EQ(finished.result->requests, 1U);
  EXPECT_EQ(finished.result->bytes_received, kText.size());
  EXPECT_TRUE(finished.result->fd);
  EXPECT_EQ(content(partial), kText);
  EXPECT_EQ(engine->active(), 0U);
}

TEST_F(EngineTest, LeavesAHandedOutFileAloneWhenItIsDestroyed) {
  wire.on(kA, Answer::whole(kText));
  const Finished finished = fetch(checked());
  engine.reset();
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(content(partial), kText);
}

TEST_F(EngineTest, WritesNothingBesideThePartial) {
  wire.on(kA, Answer::whole(kText));
  ASSERT_TRUE(IsOk(fetch(checked()).result));
  const std::filesystem::directory_iterator files(dir.path());
  EXPECT_EQ(std::distance(files, std::filesystem::directory_iterator()), 1);
}

TEST_F(EngineTest, HashesWithoutAnExpectedDigest) {
  wire.on(kA, Answer::whole(kText));
  const Finished finished = fetch(download());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(finished.result->sha256, sha256_hex(kText));
}

TEST_F(EngineTest, MakesAnEmptyFileOfAnEmptyBody) {
  wire.on(kA, Answer(200).header("content-length", "0"));
  const Finished finished = fetch(download());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(finished.result->size, 0U);
  EXPECT_TRUE(partial_exists());
}

TEST_F(EngineTest, AcceptsAPrefixOfTheSha256) {
  wire.on(kA, Answer::whole(kText));
  Download what = download();
  what.spec.digest = Digest{Digest::Kind::kSha256, sha256_hex(kText).substr(0, 8)};
  EXPECT_TRUE(IsOk(fetch(std::move(what)).result));
}

TEST_F(EngineTest, ChecksAGitObjectId) {
  wire.on(kA, Answer::whole(kText));
  Download what = download();
  what.spec.size = kText.size();
  what.spec.digest = Digest{Digest::Kind::kGitSha1, git_sha1_hex(kText)};
  const Finished finished = fetch(std::move(what));
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(finished.result->sha256, "");
}

TEST_F(EngineTest, ChecksAGitObjectIdWhoseLengthNobodyTold) {
  wire.on(kA, Answer(200).body(kText));
  Download what = download();
  what.spec.digest = Digest{Digest::Kind::kGitSha1, git_sha1_hex(kText)};
  const Finished finished = fetch(std::move(what));
  EXPECT_TRUE(IsOk(finished.result));
}

TEST_F(EngineTest, FetchesSeveralFilesAtOnce) {
  wire.on(kA, Answer(200).body("a1").pause(seconds(2)).body("a2"));
  wire.on(kB, Answer(200).body("b1").pause(seconds(1)).body("b2"));
  make_engine();
  Download first = download({kA});
  Download second = download({kB});
  second.partial += "2";
  const DownloadId id_a = engine->add(first);
  const DownloadId id_b = engine->add(second);
  EXPECT_EQ(engine->active(), 2U);
  EXPECT_EQ(finish().id, id_b);
  EXPECT_EQ(finish().id, id_a);
  EXPECT_EQ(since_begin(), seconds(2));
  EXPECT_EQ(content(first.partial), "a1a2");
  EXPECT_EQ(content(second.partial), "b1b2");
}

TEST_F(EngineTest, CountsEveryHopAsARequest) {
  wire.on(kA, Answer(302).header("location", kB));
  wire.on(kB, Answer::whole(kText));
  EXPECT_EQ(fetch(checked()).requests, 2U);
}

TEST_F(EngineTest, ShowsTheTokenToItsOwnHostOnly) {
  wire.on(kA, Answer(302).header("location", kB));
  wire.on(kB, Answer::whole(kText));
  Download what = checked();
  what.credential = {Secret("token"), {"https://a:443"}};
  ASSERT_TRUE(IsOk(fetch(std::move(what)).result));
  ASSERT_EQ(wire.sent().size(), 2U);
  EXPECT_TRUE(wire.sent()[0].with_token);
  EXPECT_FALSE(wire.sent()[1].with_token);
}

TEST_F(EngineTest, ShowsNoTokenToAMirror) {
  wire.on(kA, Answer(404));
  wire.on(kB, Answer::whole(kText));
  Download what = checked({kA, kB});
  what.credential = {Secret("token"), {"https://a:443"}};
  ASSERT_TRUE(IsOk(fetch(std::move(what)).result));
  ASSERT_EQ(wire.sent().size(), 2U);
  EXPECT_FALSE(wire.sent()[1].with_token);
}

TEST_F(EngineTest, SendsTheHeadersAndTheStallTimeoutItWasGiven) {
  wire.on(kA, Answer::whole(kText));
  Download what = checked();
  what.headers = {{"X-Trace", "1"}};
  options.stall_timeout = seconds(9);
  ASSERT_TRUE(IsOk(fetch(std::move(what)).result));
  EXPECT_EQ(wire.sent()[0].header("X-Trace"), "1");
  EXPECT_EQ(wire.sent()[0].header("Range"), "");
  EXPECT_EQ(wire.sent()[0].request.stall_timeout, seconds(9));
}

// --- transient failures --------------------------------------------------------------------------

TEST_F(EngineTest, FetchesACutFileAgainFromItsBeginningWithoutAStrongValidator) {
  wire.on(kA, Answer(200).header("etag", "W/\"v1\"").body("the bytes XX").cut());
  wire.on(kA, Answer::whole(kText));
  const Finished finished = fetch(download());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(content(partial), kText);
  EXPECT_EQ(wire.sent()[1].header("Range"), "");
  EXPECT_EQ(finished.result->bytes_received, 12 + kText.size());
}

TEST_F(EngineTest, GoesOnWithoutAValidatorWhereADigestWillDecide) {
  wire.on(kA, Answer(200).body("the bytes ").cut());
  wire.on(kA, Answer(206).header("content-range", "bytes 10-24/25").body("of a checkpoint"));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(content(partial), kText);
  EXPECT_EQ(wire.sent()[1].header("Range"), "bytes=10-");
  EXPECT_EQ(wire.sent()[1].header("If-Range"), "");
}

TEST_F(EngineTest, GoesOnWithAnotherValidatorWhereADigestWillDecide) {
  wire.on(kA, Answer(200).header("etag", "\"node-1\"").body("the bytes ").cut());
  wire.on(kA, Answer(206)
                  .header("etag", "\"node-2\"")
                  .header("content-range", "bytes 10-24/25")
                  .body("of a checkpoint"));
  ASSERT_TRUE(IsOk(fetch(checked()).result));
  EXPECT_EQ(content(partial), kText);
  EXPECT_EQ(wire.sent()[1].header("If-Range"), "");
}

TEST_F(EngineTest, AsksForARangeWhereTheWholeIsRefusedAsTooLarge) {
  options.retries = 0;
  wire.on(kA, Answer(400));
  wire.on(kA, Answer(206).header("content-range", "bytes 0-3/25").body("the "));
  wire.on(kA, Answer(206).header("content-range", "bytes 4-9/25").body("bytes "));
  wire.on(kA, Answer(206).header("content-range", "bytes 10-24/25").body("of a checkpoint"));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(content(partial), kText);
  EXPECT_EQ(wire.sent()[1].header("Range"), "bytes=0-");
  EXPECT_EQ(wire.sent()[2].header("Range"), "bytes=4-");
  EXPECT_TRUE(engine->take_retried().empty());
}

TEST_F(EngineTest, AsksForAVeryLargeFileInPieces) {
  Download large = checked();
  large.spec.size = std::uint64_t{5} << 30U;
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer(404));  // the second time without a range
  EXPECT_TRUE(FailsWith(fetch(large).result, ErrorCode::kNotFound));
  EXPECT_EQ(wire.sent()[0].header("Range"), "bytes=0-4294967295");
}

TEST_F(EngineTest, TakesTheEndOfARangeOfAnUnknownLengthForNoEnd) {
  const auto piece = [](const std::string& range, const std::string& text) {
    return Answer(206).header("etag", "\"v1\"").header("content-range", range).body(text);
  };
  wire.on(kA, Answer(200).header("etag", "\"v1\"").body("the bytes ").cut());
  wire.on(kA, piece("bytes 10-14/*", "of a "));
  wire.on(kA, piece("bytes 15-24/*", "checkpoint"));
  wire.on(kA, Answer(416).header("content-range", "bytes */25"));
  ASSERT_TRUE(IsOk(fetch(download()).result));
  EXPECT_EQ(content(partial), kText);
  ASSERT_EQ(wire.sent().size(), 4U);
  EXPECT_EQ(wire.sent()[3].header("Range"), "bytes=25-");
}

TEST_F(EngineTest, AsksAHostThatHasEnoughForFewerAtOnce) {
  const std::string other = "https://a/other";
  bool refused = false;
  wire.serve(other, [&](const auto&) {
    if (!std::exchange(refused, true)) return Answer(403);
    return Answer::whole(kText);
  });
  add_one_that_takes_a_while_and(other);
  ASSERT_TRUE(IsOk(finish().result));
  ASSERT_EQ(wire.sent().size(), 2U);  // not asked again while the first one ran
  ASSERT_TRUE(IsOk(finish().result));
  const auto notes = engine->take_notes();
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].message.find("--max-active"), std::string::npos) << notes[0].message;
}

TEST_F(EngineTest, TakesARefusalThatStaysForTheFilesOwn) {
  const std::string other = "https://a/other";
  wire.serve(other, [](const auto&) { return Answer(403); });
  add_one_that_takes_a_while_and(other);
  ASSERT_TRUE(IsOk(finish().result));
  EXPECT_TRUE(FailsWith(finish().result, ErrorCode::kAccess));
  EXPECT_EQ(wire.sent().size(), 5U);
}

TEST_F(EngineTest, BelievesTheHubsReasonForARefusalWhateverElseRuns) {
  const std::string other = "https://a/other";
  wire.serve(other, [](const auto&) { return Answer(403); });
  add_one_that_takes_a_while_and(other, milliseconds(100), [](const Response&) {
    Error error;
    error.code = ErrorCode::kAccess;
    error.reason = "GatedRepo";
    return error;
  });
  const Finished finished = finish();
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kAccess));
  EXPECT_EQ(finished.requests, 1U);
  EXPECT_EQ(finished.result.error().hint, "");
}

TEST_F(EngineTest, ARefusalIsNotTakenForALimitForAsLongAsOthersRun) {
  const std::string other = "https://a/other";
  wire.serve(other, [](const auto&) { return Answer(403); });
  const DownloadId id = add_one_that_takes_a_while_and(other, seconds(30));
  const Finished finished = finish();
  EXPECT_EQ(finished.id, id);
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kAccess));
  EXPECT_EQ(finished.result.error().hint.find("--max-active"), std::string::npos);
}

TEST_F(EngineTest, GoesOnWhereACutFileEndedWithAStrongValidator) {
  wire.on(kA, Answer(200).header("etag", "\"v1\"").body("the bytes ").cut());
  wire.on(kA, Answer(206)
                  .header("etag", "\"v1\"")
                  .header("content-range", "bytes 10-24/25")
                  .header("content-length", "15")
                  .body("of a checkpoint"));
  const Finished finished = fetch(sized());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(content(partial), kText);
  ASSERT_EQ(wire.sent().size(), 2U);
  EXPECT_EQ(wire.sent()[1].header("Range"), "bytes=10-");
  EXPECT_EQ(wire.sent()[1].header("If-Range"), "\"v1\"");
  EXPECT_EQ(finished.result->bytes_received, kText.size());
}

TEST_F(EngineTest, StartsOverWhenTheServerAnswersARangeWithTheWhole) {
  wire.on(kA, Answer(200).header("etag", "\"v1\"").body("an older text").cut());
  wire.on(kA, Answer::whole(kText));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(content(partial), kText);
}

TEST_F(EngineTest, LeavesNothingOfALongerAttempt) {
  wire.on(kA, Answer(200).body("a text that is longer than the next one").cut());
  wire.on(kA, Answer::whole(kText));
  ASSERT_TRUE(IsOk(fetch(download()).result));
  EXPECT_EQ(content(partial), kText);
}

struct RangeRow {
  std::string name;
  std::string content_range;
  std::string etag;
};
class EngineRange : public EngineTest, public ::testing::WithParamInterface<RangeRow> {};

TEST_P(EngineRange, IsNotSplicedWhenItIsNotTheOneAskedFor) {
  wire.on(kA, Answer(200).header("etag", "\"v1\"").body("the bytes ").cut());
  wire.on(kA, Answer(206)
                  .header("etag", GetParam().etag)
                  .header("content-range", GetParam().content_range)
                  .body("OF A CHECKPOINT"));
  wire.on(kA, Answer::whole(kText));
  const Finished finished = fetch(sized());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(content(partial), kText);
  ASSERT_EQ(wire.sent().size(), 3U);
  EXPECT_EQ(wire.sent()[2].header("Range"), "");
  EXPECT_EQ(finished.bytes_received, 10 + kText.size());  // refused by its head
}

INSTANTIATE_TEST_SUITE_P(Rows, EngineRange,
                         ::testing::Values(RangeRow{"OtherStart", "bytes 9-24/25", "\"v1\""},
                                           RangeRow{"OtherTotal", "bytes 10-24/26", "\"v1\""},
                                           RangeRow{"OtherValidator", "bytes 10-24/25", "\"v2\""},
                                           RangeRow{"WeakValidator", "bytes 10-24/25", "W/\"v1\""},
                                           RangeRow{"NoRange", "", "\"v1\""},
                                           RangeRow{"OtherUnit", "lines 10-24/25", "\"v1\""},
                                           RangeRow{"Nonsense", "bytes 10", "\"v1\""}),
                         testing::row_name<RangeRow>);

TEST_F(EngineTest, StartsOverWhenTheRangeCannotBeSatisfied) {
  wire.on(kA, Answer(200).header("etag", "\"v1\"").body("the bytes ").cut());
  wire.on(kA, Answer(416).header("content-range", "bytes */7"));
  wire.on(kA, Answer::whole(kText));
  ASSERT_TRUE(IsOk(fetch(checked()).result));
  EXPECT_EQ(wire.sent()[2].header("Range"), "");
}

TEST_F(EngineTest, TakesA206ThatNobodyAskedForWhenItIsAllOfTheFile) {
  wire.on(kA, Answer(206).header("content-range", "bytes 0-24/25").body(kText));
  ASSERT_TRUE(IsOk(fetch(download()).result));
  EXPECT_EQ(content(partial), kText);
}

TEST_F(EngineTest, RefusesAPartThatNobodyAskedFor) {
  wire.on(kA, Answer(206).header("content-range", "bytes 0-9/25").body("the bytes "));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kNetwork));
  EXPECT_FALSE(partial_exists());
}

TEST_F(EngineTest, GivesUpAfterTheRetriesItWasGiven) {
  options.retries = 2;
  for (int i = 0; i < 3; ++i) wire.on(kA, Answer(503));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kNetwork));
  EXPECT_EQ(finished.result.error().message, "503 Service Unavailable from https://a/file");
  EXPECT_EQ(finished.requests, 3U);
  EXPECT_EQ(engine->take_retried().size(), 2U);
  EXPECT_FALSE(partial_exists());
}

TEST_F(EngineTest, CountsTheRetriesAnewAfterAGoodPieceOfTheFile) {
  options.retries = 1;
  options.connections = 1;
  const std::string piece(1U << 20U, 'x');
  wire.on(kA, Answer(200).header("etag", "\"v1\"").body(piece).cut());
  for (int i = 1; i < 4; ++i) {
    const std::string first = std::to_string(i * (1 << 20));
    wire.on(kA, Answer(206)
                    .header("etag", "\"v1\"")
                    .header("content-range", "bytes " + first + "-5242879/5242880")
                    .body(piece)
                    .cut());
  }
  // The story may end here: nor is the whole there.
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer(404));
  make_engine();
  engine->add(download());
  const Finished finished = finish();
  EXPECT_EQ(finished.requests, 6U);
  EXPECT_EQ(finished.bytes_received, 4U << 20U);
}

TEST_F(EngineTest, DoesNotCountTheRetriesAnewForTheSameBytesAgain) {
  options.retries = 2;
  const std::string piece(1U << 20U, 'x');
  for (int i = 0; i < 3; ++i) wire.on(kA, Answer(200).body(piece).cut());
  const Finished finished = fetch(download());
  EXPECT_FALSE(finished.result);
  EXPECT_EQ(finished.requests, 3U);
}

TEST_F(EngineTest, WaitsAsLongAsTheServerAskedFor) {
  wire.on(kA, Answer(429).header("retry-after", "7"));
  wire.on(kA, Answer::whole(kText));
  make_engine();
  engine->add(checked());
  EXPECT_TRUE(engine->poll(Clock::TimePoint::max(), {}).empty());
  const auto retried = engine->take_retried();
  ASSERT_EQ(retried.size(), 1U);
  EXPECT_GE(retried[0].delay, seconds(7));
  EXPECT_EQ(retried[0].reason, "429 Too Many Requests from https://a/file");
  ASSERT_TRUE(IsOk(finish().result));
  EXPECT_EQ(since_begin(), seconds(7));
}

TEST_F(EngineTest, GoesOnWithOtherFilesWhileOneWaits) {
  wire.on(kA, Answer(429).header("retry-after", "60"));
  wire.on(kA, Answer::whole(kText));
  wire.on(kB, Answer(200).pause(seconds(5)).body("b"));
  make_engine();
  const DownloadId waiting = engine->add(download({kA}));
  Download other = download({kB});
  other.partial += "2";
  const DownloadId running = engine->add(std::move(other));
  EXPECT_EQ(finish().id, running);
  EXPECT_EQ(since_begin(), seconds(5));
  EXPECT_EQ(finish().id, waiting);
}

TEST_F(EngineTest, DoesNotBeginAWaitThatPassesTheDeadline) {
  options.deadline = begin + seconds(30);
  wire.on(kA, Answer(429).header("retry-after", "60"));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kRateLimited));
  EXPECT_EQ(finished.result.error().retry_after, seconds(60));
  EXPECT_EQ(since_begin(), seconds(0));
}

TEST_F(EngineTest, AsksTheMirrorRatherThanWaitBeyondTheDeadline) {
  options.deadline = begin + seconds(30);
  wire.on(kA, Answer(429).header("retry-after", "60"));
  wire.on(kB, Answer::whole(kText));
  EXPECT_TRUE(IsOk(fetch(checked({kA, kB})).result));
}

TEST_F(EngineTest, EndsWhatRunsAtTheDeadline) {
  options.deadline = begin + seconds(30);
  wire.on(kA, Answer(200).body("the bytes ").pause(seconds(40)).body("of a checkpoint"));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kNetwork));
  EXPECT_EQ(finished.result.error().message,
            "https://a/file was not there when the deadline came: 10 of 25 bytes");
  EXPECT_EQ(since_begin(), seconds(30));
  EXPECT_EQ(wire.running(), 0U);
  EXPECT_FALSE(partial_exists());
}

TEST_F(EngineTest, TriesAgainAfterAStall) {
  options.stall_timeout = seconds(20);
  wire.on(kA, Answer(200).body("the bytes ").stall());
  wire.on(kA, Answer::whole(kText));
  ASSERT_TRUE(IsOk(fetch(checked()).result));
  EXPECT_EQ(since_begin(), seconds(20));
}

// --- addresses -----------------------------------------------------------------------------------

TEST_F(EngineTest, AsksTheNextMirrorAfterA404) {
  wire.on(kA, Answer(404));
  wire.on(kB, Answer::whole(kText));
  ASSERT_TRUE(IsOk(fetch(checked({kA, kB})).result));
  EXPECT_EQ(since_begin(), seconds(0));
}

TEST_F(EngineTest, AsksTheNextMirrorWhenTheRetriesOfOneAreUsedUp) {
  options.retries = 1;
  wire.on(kA, Answer::none(TransportFailure::kConnect));
  wire.on(kA, Answer::none(TransportFailure::kConnect));
  wire.on(kB, Answer(503));
  wire.on(kB, Answer::whole(kText));
  ASSERT_TRUE(IsOk(fetch(checked({kA, kB})).result));
  EXPECT_EQ(wire.urls(), (std::vector<std::string>{kA, kA, kB, kB}));
}

TEST_F(EngineTest, DoesNotContinueAtAMirrorWhatAnotherBeganWithoutADigest) {
  options.retries = 0;
  wire.on(kA, Answer(200).header("etag", "\"v1\"").body("the bytes ").cut());
  wire.on(kB, Answer::whole(kText));
  ASSERT_TRUE(IsOk(fetch(download({kA, kB})).result));
  EXPECT_EQ(wire.sent()[1].header("Range"), "");
  EXPECT_EQ(content(partial), kText);
}

TEST_F(EngineTest, NamesTheFirstAddressWhenNoneHasTheFile) {
  wire.on(kA, Answer(403));
  wire.on(kB, Answer(404));
  const Finished finished = fetch(checked({kA, kB}));
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kAccess));
  EXPECT_EQ(finished.result.error().subject, kA);
  EXPECT_EQ(finished.result.error().message,
            "403 Forbidden from https://a/file; then 404 Not Found from https://b/file");
}

TEST_F(EngineTest, LetsTheCallerWordAFinalAnswer) {
  wire.on(kA, Answer(403).body("{\"error\": \"gated\"}"));
  Download what = checked();
  what.explain = [](const Response& response) {
    Error error;
    error.code = ErrorCode::kAccess;
    error.message = std::to_string(response.head.status) + " " + response.body;
    return error;
  };
  const Finished finished = fetch(std::move(what));
  ASSERT_FALSE(finished.result);
  EXPECT_EQ(finished.result.error().message, "403 {\"error\": \"gated\"}");
}

TEST_F(EngineTest, ReadsAnErrorPageOnlyToABound) {
  Answer endless(404);
  for (int i = 0; i < 3; ++i) endless.body(std::string(40'000, 'x'));
  bool read_to_the_end = false;
  endless.then([&] { read_to_the_end = true; });
  wire.on(kA, endless);
  const Finished finished = fetch(checked());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kNotFound));
  EXPECT_FALSE(read_to_the_end);
}

TEST_F(EngineTest, ShowsNoSecretOfAnAddress) {
  wire.on("https://a/file?signature=secret", Answer(404));
  const Finished finished = fetch(checked({"https://a/file?signature=secret"}));
  ASSERT_FALSE(finished.result);
  EXPECT_EQ(describe(finished.result.error()).find("secret"), std::string::npos);
  EXPECT_EQ(finished.result.error().subject.find("secret"), std::string::npos);
}

TEST_F(EngineTest, FailsADownloadWithoutAnAddress) {
  const Finished finished = fetch(download({}));
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kInternal));
}

// --- what is not the file ------------------------------------------------------------------------

TEST_F(EngineTest, RefusesAFlippedByteAfterOneMoreTry) {
  std::string flipped = kText;
  flipped[3] = static_cast<char>(~flipped[3]);
  wire.on(kA, Answer::whole(flipped));
  wire.on(kA, Answer::whole(flipped));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kIntegrity));
  EXPECT_EQ(finished.result.error().message,
            "https://a/file has sha256 " + sha256_hex(flipped) + ", expected " + sha256_hex(kText));
  EXPECT_EQ(finished.requests, 2U);
  EXPECT_FALSE(partial_exists());
}

TEST_F(EngineTest, AcceptsTheFileWhenAByteWasFlippedOnlyOnce) {
  std::string flipped = kText;
  flipped[3] = static_cast<char>(~flipped[3]);
  wire.on(kA, Answer::whole(flipped).header("etag", "\"v1\""));
  wire.on(kA, Answer::whole(kText));
  ASSERT_TRUE(IsOk(fetch(checked()).result));
  EXPECT_EQ(wire.sent()[1].header("Range"), "");
  EXPECT_EQ(content(partial), kText);
}

TEST_F(EngineTest, AsksTheNextMirrorAfterAMismatchAndNotTheSameAgain) {
  wire.on(kA, Answer::whole("other bytes of no use at "));
  wire.on(kB, Answer::whole(kText));
  ASSERT_TRUE(IsOk(fetch(checked({kA, kB})).result));
  EXPECT_EQ(wire.urls(), (std::vector<std::string>{kA, kB}));
}

TEST_F(EngineTest, GivesEveryMirrorOneChanceAfterMismatches) {
  wire.on(kA, Answer::whole("short"));
  wire.on(kB, Answer::whole("shorter"));
  wire.on(kC, Answer::whole("shortest"));
  const Finished finished = fetch(checked({kA, kB, kC}));
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kIntegrity));
  EXPECT_EQ(finished.requests, 3U);
}

TEST_F(EngineTest, RefusesAnotherLengthBeforeTheBody) {
  for (int i = 0; i < 2; ++i) {
    wire.on(kA, Answer(200).header("content-length", "900").body(std::string(900, 'x')));
  }
  const Finished finished = fetch(checked());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kIntegrity));
  EXPECT_EQ(finished.result.error().message, "https://a/file has 900 bytes, expected 25");
  EXPECT_EQ(finished.bytes_received, 0U);
  EXPECT_FALSE(partial_exists());
}

TEST_F(EngineTest, RefusesABodyWithoutALengthThatIsTooShort) {
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer(200).body("the bytes"));
  const Finished finished = fetch(checked());
  ASSERT_FALSE(finished.result);
  EXPECT_EQ(finished.result.error().message, "https://a/file has 9 bytes, expected 25");
}

TEST_F(EngineTest, RefusesABodyWithoutALengthThatDoesNotEnd) {
  bool read_on = false;
  for (int i = 0; i < 2; ++i) {
    wire.on(kA, Answer(200).body(kText).body("!").then([&] { read_on = true; }));
  }
  const Finished finished = fetch(checked());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kIntegrity));
  EXPECT_EQ(finished.result.error().message, "https://a/file has more than the expected 25 bytes");
  EXPECT_FALSE(read_on);
}

TEST_F(EngineTest, TakesABodyThatIsOnlyLabelledAsEncodedWhereItIsTheFile) {
  wire.on(kA, Answer::whole(kText).header("content-encoding", "aws-chunked"));
  ASSERT_TRUE(IsOk(fetch(checked()).result));
  wire.on(kB, Answer(203).body(kText));
  Download other = checked({kB});
  other.spec.size.reset();
  other.partial += "2";
  ASSERT_TRUE(IsOk(fetch(other).result));
}

TEST_F(EngineTest, RefusesAnEncodedBody) {
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer(200).header("content-encoding", "gzip").body("x"));
  const Finished finished = fetch(download());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kIntegrity));
  EXPECT_EQ(finished.result.error().message,
            "https://a/file came with `Content-Encoding: gzip`, which was not asked for");
  EXPECT_FALSE(partial_exists());
}

TEST_F(EngineTest, RefusesAnHtmlPageWhereNothingElseIsExpected) {
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer::whole(kPage));
  const Finished finished = fetch(download());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kIntegrity));
  EXPECT_EQ(finished.result.error().message,
            "https://a/file: an HTML page, which begins `<!DOCTYPE html><title>Log in</title>` "
            "came in place of the file");
  EXPECT_FALSE(partial_exists());
}

TEST_F(EngineTest, DoesNotReadALongHtmlPageToItsEnd) {
  bool read_on = false;
  for (int i = 0; i < 2; ++i) {
    Answer page(200);
    for (int piece = 0; piece < 1200; ++piece) page.body(piece == 0 ? "<html>" : ".");
    wire.on(kA, page.then([&] { read_on = true; }));
  }
  EXPECT_FALSE(fetch(download()).result);
  EXPECT_FALSE(read_on);
}

TEST_F(EngineTest, NamesAnHtmlPageThatTheDigestRefused) {
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer(200).body(kPage));
  Download what = download();
  what.spec.digest = Digest{Digest::Kind::kSha256, sha256_hex(kText)};
  const Finished finished = fetch(std::move(what));
  ASSERT_FALSE(finished.result);
  EXPECT_EQ(finished.result.error().message,
            "https://a/file has sha256 " + sha256_hex(kPage) + ", expected " + sha256_hex(kText) +
                "; an HTML page, which begins `" + kPage + "` came in place of the file");
}

TEST_F(EngineTest, NamesAnHtmlPageThatTheLengthRefused) {
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer::whole(kPage));
  const Finished finished = fetch(checked());
  ASSERT_FALSE(finished.result);
  EXPECT_EQ(finished.result.error().message,
            "https://a/file has 36 bytes, expected 25; an HTML page, which begins `" + kPage +
                "` came in place of the file");
}

TEST_F(EngineTest, AcceptsAnHtmlPageWhoseDigestAgrees) {
  wire.on(kA, Answer::whole(kPage));
  Download what = download();
  what.spec.digest = Digest{Digest::Kind::kSha256, sha256_hex(kPage)};
  EXPECT_TRUE(IsOk(fetch(std::move(what)).result));
}

TEST_F(EngineTest, AcceptsAnHtmlPageOfThatName) {
  wire.on(kA, Answer::whole(kPage));
  Download what = download();
  what.spec.path = "docs/index.html";
  EXPECT_TRUE(IsOk(fetch(std::move(what)).result));
}

TEST_F(EngineTest, RefusesAnLfsPointer) {
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer::whole(kPointer));
  const Finished finished = fetch(download());
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kIntegrity));
  EXPECT_EQ(finished.result.error().message,
            "https://a/file: a Git LFS pointer came in place of the file");
}

TEST_F(EngineTest, RefusesTextWhereWeightsOrAnArchiveAreExpected) {
  for (const bool archive : {false, true}) {
    for (int i = 0; i < 2; ++i) wire.on(kA, Answer::whole("Not found"));
    Download what = download();
    if (!archive) what.spec.path = "w.pth";
    what.binary = archive;
    const Finished finished = fetch(std::move(what));
    ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kIntegrity));
    EXPECT_EQ(finished.result.error().message,
              "https://a/file: plain text, which begins `Not found` came in place of the file");
    EXPECT_FALSE(partial_exists());
  }
}

TEST_F(EngineTest, TakesTextForWeightsWhenTheDigestAgrees) {
  wire.on(kA, Answer::whole(kText));
  Download what = checked();
  what.spec.path = "w.pth";
  EXPECT_TRUE(IsOk(fetch(std::move(what)).result));
}

TEST_F(EngineTest, TheTypeTellsAPageFromOtherText) {
  const std::string text = "<p>Log in</p>";
  for (int i = 0; i < 2; ++i) {
    wire.on(kA, Answer::whole(text).header("content-type", "text/html; charset=utf-8"));
  }
  EXPECT_TRUE(FailsWith(fetch(download()).result, ErrorCode::kIntegrity));
  wire.on(kA, Answer::whole(text).header("content-type", "text/plain"));
  EXPECT_TRUE(IsOk(fetch(download()).result));
}

// --- the disk ------------------------------------------------------------------------------------

TEST_F(EngineTest, EndsAtOnceWhenTheDirectoryIsAFile) {
  wire.on(kA, Answer::whole(kText));
  Download what = checked({kA, kB});
  what.partial = dir.path() + "/file/.file.part";
  std::ofstream(dir.path() + "/file") << "in the way";
  const Finished finished = fetch(std::move(what));
  ASSERT_TRUE(FailsWith(finished.result, ErrorCode::kUsage));
  EXPECT_EQ(finished.requests, 1U);
}

TEST_F(EngineTest, DoesNotTouchAFileThatIsAlreadyThere) {
  std::ofstream(partial) << "somebody else's";
  wire.on(kA, Answer::whole(kText));
  EXPECT_FALSE(fetch(checked()).result);
  EXPECT_EQ(content(partial), "somebody else's");
}

TEST_F(EngineTest, EndsAtOnceWhenTheDiskIsFull) {
  const testing::TinyDisk disk;
  partial = disk.dir().path() + "/.file.part";
  wire.on(kA, Answer(200).body(std::string(2U << 20U, 'x')));
  const Finished finished = fetch(download({kA, kB}));
  EXPECT_TRUE(FailsWith(finished.result, ErrorCode::kNoSpace, partial));
  EXPECT_EQ(finished.requests, 1U);
  EXPECT_FALSE(partial_exists());
}

// --- stopping ------------------------------------------------------------------------------------

TEST_F(EngineTest, ReturnsOnStopAndRemovesThePartialWhenDestroyed) {
  wire.on(kA, Answer(200).body("the bytes ").then([&] { stop.request_stop(); }).stall());
  make_engine();
  engine->add(checked());
  EXPECT_TRUE(engine->poll(Clock::TimePoint::max(), stop.get_token()).empty());
  EXPECT_EQ(content(partial), "the bytes ");
  EXPECT_EQ(since_begin(), seconds(0));
  engine.reset();
  EXPECT_FALSE(partial_exists());
  EXPECT_EQ(wire.running(), 0U);
}

TEST_F(EngineTest, SendsNothingMoreOnceStopped) {
  stop.request_stop();
  make_engine();
  engine->add(checked());
  EXPECT_TRUE(engine->poll(Clock::TimePoint::max(), stop.get_token()).empty());
  EXPECT_TRUE(wire.sent().empty());
}

TEST_F(EngineTest, ForgetsACancelledDownload) {
  wire.on(kA, Answer(200).body("the bytes ").pause(seconds(60)).body("of a checkpoint"));
  make_engine();
  const DownloadId id = engine->add(checked());
  EXPECT_TRUE(engine->poll(begin + seconds(1), {}).empty());
  ASSERT_TRUE(partial_exists());
  engine->cancel(id);
  EXPECT_FALSE(partial_exists());
  EXPECT_EQ(engine->active(), 0U);
  EXPECT_EQ(wire.running(), 0U);
}

TEST_F(EngineTest, ReturnsWhenTheTimeItWasGivenIsOver) {
  wire.on(kA, Answer(200).body("the bytes ").pause(seconds(60)).body("of a checkpoint"));
  make_engine();
  engine->add(checked());
  EXPECT_TRUE(engine->poll(begin + seconds(1), {}).empty());
  EXPECT_EQ(since_begin(), seconds(1));
  EXPECT_EQ(engine->active(), 1U);
}

// --- signed addresses ----------------------------------------------------------------------------

Answer led_to(const std::string& url) {
  return Answer(302).header("location", url);
}

TEST_F(EngineTest, AnAddressThatExpiresInTheMiddleIsAskedForAgainAndGoneOnWith) {
  wire.on(kA, led_to("https://cdn/x?s=1"));
  wire.on("https://cdn/x?s=1", Answer(200).header("etag", "\"v1\"").body("the bytes ").cut());
  wire.on(kA, led_to("https://cdn/x?s=1"));
  wire.on("https://cdn/x?s=1", Answer(403));
  wire.on(kA, led_to("https://cdn/x?s=2"));
  wire.on("https://cdn/x?s=2", Answer(206)
                                   .header("etag", "\"v1\"")
                                   .header("content-range", "bytes 10-24/25")
                                   .body("of a checkpoint"));
  const Finished finished = fetch(checked());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(finished.bytes_received, kText.size());  // none twice
}

TEST_F(EngineTest, AServerThatRefusesEveryTimeIsBelievedInTheEnd) {
  options.retries = 2;
  for (int i = 0; i < 3; ++i) {
    wire.on(kA, led_to("https://cdn/x"));
    wire.on("https://cdn/x", Answer(403));
  }
  const Finished finished = fetch(checked());
  ASSERT_FALSE(finished.result);
  EXPECT_EQ(finished.result.error().code, ErrorCode::kAccess);
  EXPECT_NE(finished.result.error().message.find("https://cdn/x"), std::string::npos);
}

TEST_F(EngineTest, TheNextAddressGoesOnWhereTheFirstOneEnded) {
  wire.on(kA, Answer(200).header("etag", "\"v1\"").body("the bytes ").cut());
  wire.on(kA, Answer(403));
  wire.on("https://b/file", Answer(206)
                                .header("etag", "\"v1\"")
                                .header("content-range", "bytes 10-24/25")
                                .body("of a checkpoint"));
  const Finished finished = fetch(checked({kA, "https://b/file"}));
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(finished.bytes_received, kText.size());
}

// --- what an earlier run left --------------------------------------------------------------------

class EngineResume : public EngineTest {
 protected:
  // A run that ended after the first ten bytes.
  void leave(Download what) {
    what.partial = left.data;
    what.journal = left.journal;
    wire.on(kA, Answer(200).header("etag", "\"v1\"").body("the bytes ").pause(seconds(50)));
    make_engine();
    engine->add(std::move(what));
    EXPECT_TRUE(engine->poll(clock.now() + seconds(1), {}).empty());
    engine.reset();
    EXPECT_EQ(content(left.data), "the bytes ");
  }
  Finished next(Download what) {
    what.journal = dir.path() + "/journal";
    what.others = {left};
    return fetch(std::move(what));
  }
  static Answer rest() {
    return Answer(206)
        .header("etag", "\"v1\"")
        .header("content-range", "bytes 10-24/25")
        .body("of a checkpoint");
  }

  PartialPlace left{dir.path() + "/.file.left", dir.path() + "/left.json"};
};

TEST_F(EngineResume, GoesOnWhereItEnded) {
  leave(checked());
  wire.on(kA, rest());
  const Finished finished = next(checked());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(content(partial), kText);
  EXPECT_EQ(wire.sent().back().header("Range"), "bytes=10-");
  EXPECT_EQ(wire.sent().back().header("If-Range"), "");  // the digest decides
  EXPECT_EQ(finished.result->resumed, 10U);
  EXPECT_EQ(finished.bytes_received, 15U);
}

TEST_F(EngineResume, GoesOnWithoutADigestByTheValidator) {
  leave(download());
  wire.on(kA, rest());
  const Finished finished = next(download());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(wire.sent().back().header("If-Range"), "\"v1\"");
  EXPECT_EQ(finished.result->resumed, 10U);
  EXPECT_EQ(finished.result->sha256, sha256_hex(kText));
}

TEST_F(EngineResume, BeginsAnewWhenTheFileIsAnother) {
  leave(download());
  wire.on(kA, Answer::whole("another text").header("etag", "\"v2\""));
  const Finished finished = next(download());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(content(partial), "another text");
  EXPECT_EQ(finished.result->resumed, 0U);
}

TEST_F(EngineResume, DoesNotSpliceAnotherFilesEnd) {
  leave(download());
  wire.on(kA, Answer(206)
                  .header("etag", "\"v2\"")
                  .header("content-range", "bytes 10-24/25")
                  .body("OF A CHECKPOINT"));
  wire.on(kA, Answer::whole(kText));
  ASSERT_TRUE(IsOk(next(download()).result));
  EXPECT_EQ(content(partial), kText);
}

TEST_F(EngineResume, DoesNotHoldWrongBytesOfAnEarlierRunAgainstTheServer) {
  leave(checked());
  std::fstream(left.data, std::ios::in | std::ios::out | std::ios::binary) << "XXX";
  wire.on(kA, rest());
  std::string flipped = kText;
  flipped[3] = static_cast<char>(~flipped[3]);
  wire.on(kA, Answer::whole(flipped));  // and then a byte is flipped on the way
  wire.on(kA, Answer::whole(kText));
  ASSERT_TRUE(IsOk(next(checked()).result));
  EXPECT_EQ(content(partial), kText);
}

TEST_F(EngineResume, AsksNothingWhereAllIsThere) {
  leave(checked());
  std::ofstream(left.data) << kText;
  std::ifstream file(left.journal);
  std::string journal{std::istreambuf_iterator<char>(file), {}};
  journal.replace(journal.find("[[0,10]]"), 8, "[[0,25]]");
  std::ofstream(left.journal) << journal;
  const std::size_t before = wire.sent().size();
  const Finished finished = next(checked());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(wire.sent().size(), before);
  EXPECT_EQ(finished.result->resumed, 25U);
}

class EngineRefused : public EngineResume, public ::testing::WithParamInterface<int> {};

TEST_P(EngineRefused, KeepsWhatCameWhereTheServerRefusesTheRest) {
  leave(checked());
  const auto before = dir.files().size();
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer(GetParam()));  // the second time for the whole
  EXPECT_FALSE(next(checked()).result.has_value());
  EXPECT_EQ(dir.files().size(), before);
}

INSTANTIATE_TEST_SUITE_P(Answers, EngineRefused, ::testing::Values(400, 401, 403, 404, 407, 451));

TEST_F(EngineResume, LeavesNothingOfWhatIsNotTheFile) {
  leave(checked());
  wire.on(kA, rest());
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer::whole("other bytes of no use at "));
  std::fstream(left.data, std::ios::in | std::ios::out | std::ios::binary) << "XXX";
  EXPECT_TRUE(FailsWith(next(checked()).result, ErrorCode::kIntegrity));
  EXPECT_TRUE(dir.files().empty());
}

TEST_F(EngineResume, StaysAsItIsWhileTheServerIsDown) {
  leave(checked());
  options.retries = 0;
  for (int i = 0; i < 2; ++i) wire.on(kA, Answer(503));  // the second time for the whole
  EXPECT_TRUE(FailsWith(next(checked()).result, ErrorCode::kNetwork));
  EXPECT_EQ(content(partial), "the bytes ");
  EXPECT_TRUE(std::filesystem::exists(dir.path() + "/journal"));
}

TEST_F(EngineResume, StaysAtTheDeadlineAndWhenItIsCancelled) {
  leave(checked());
  wire.on(kA, Answer(206)
                  .header("etag", "\"v1\"")
                  .header("content-range", "bytes 10-24/25")
                  .body("of ")
                  .pause(seconds(40)));
  options.deadline = clock.now() + seconds(30);
  EXPECT_TRUE(FailsWith(next(checked()).result, ErrorCode::kNetwork));
  EXPECT_EQ(content(partial), "the bytes of ");
}

TEST_F(EngineResume, SaysSoWhereThereIsNoSpaceForACopy) {
  const testing::TinyDisk disk;
  left = {disk.dir().path() + "/.file.left", disk.dir().path() + "/left.json"};
  partial = disk.dir().path() + "/.file.part";
  leave(checked());
  std::ifstream file(left.journal);
  std::string journal{std::istreambuf_iterator<char>(file), {}};
  const auto replace = [&](const std::string& from, const std::string& to) {
    ASSERT_NE(journal.find(from), std::string::npos) << journal;
    journal.replace(journal.find(from), from.size(), to);
  };
  replace("\"owner\":null",
          "\"owner\":{\"host\":\"node17\",\"boot\":\"x\","
          "\"pid_namespace\":\"y\",\"pid\":7,\"started\":7}");
  replace("\"total\":25", "\"total\":25");
  std::ofstream(left.journal) << journal;
  disk.fill();
  wire.on(kA, Answer::whole(kText));
  Download what = checked();
  what.others = {left};
  what.journal = disk.dir().path() + "/journal";
  const Finished finished = fetch(std::move(what));
  const auto notes = engine->take_notes();
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].message.find("no space"), std::string::npos);
  EXPECT_TRUE(FailsWith(finished.result, ErrorCode::kNoSpace));
  EXPECT_EQ(content(left.data), "the bytes ");
}

// --- numbers -------------------------------------------------------------------------------------

TEST_F(EngineTest, TellsHowManyBytesAreThereAndToCome) {
  wire.on(kA, Answer(200)
                  .header("content-length", "25")
                  .body("the bytes ")
                  .pause(seconds(50))
                  .body("of a checkpoint"));
  make_engine();
  const DownloadId id = engine->add(download());
  EXPECT_EQ(engine->size_of(id), std::nullopt);
  EXPECT_TRUE(engine->poll(begin + seconds(1), {}).empty());
  EXPECT_EQ(engine->bytes_done(), 10U);
  EXPECT_EQ(engine->bytes_of(id), 10U);
  EXPECT_EQ(engine->size_of(id), 25U);
  ASSERT_TRUE(IsOk(finish().result));
  EXPECT_EQ(engine->bytes_done(), 25U);
}

TEST_F(EngineTest, DoesNotCountBytesThatWereThrownAway) {
  wire.on(kA, Answer(200).body("the bytes ").cut());
  wire.on(kA, Answer::whole(kText));
  make_engine();
  Download what = download();
  what.spec.size = kText.size();
  const DownloadId id = engine->add(std::move(what));
  EXPECT_TRUE(engine->poll(Clock::TimePoint::max(), {}).empty());
  EXPECT_EQ(engine->bytes_done(), 0U);
  EXPECT_EQ(engine->size_of(id), 25U);
}

}  // namespace
}  // namespace fvprefetch
