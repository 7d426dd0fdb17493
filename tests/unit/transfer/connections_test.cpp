// Several connections for one file: ranges are given out and come together, and whatever a server
// does to one of them the right bytes or the right error come of it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <string>

#include "base/digest.h"
#include "support/fake_clock.h"
#include "support/matchers.h"
#include "support/scripted_transport.h"
#include "support/temp_dir.h"
#include "transfer/engine.h"
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

constexpr auto kA = "https://a/file.bin";
constexpr std::size_t kMiB = 1U << 20U;
constexpr std::size_t kPiece = 128U << 10U;

// Not compressible into a pattern: bytes at a wrong place would show.
const std::string& text() {
  static const std::string made = [] {
    std::mt19937 random(7);
    std::string bytes(32 * kMiB, '\0');
    for (std::size_t i = 0; i < bytes.size(); i += 512) {
      const std::string number = std::to_string(random());
      bytes.replace(i, number.size(), number);
    }
    return bytes;
  }();
  return made;
}

std::string content(const std::string& path) {
  std::string bytes(std::filesystem::file_size(path), '\0');
  std::ifstream(path, std::ios::binary)
      .read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

struct Asked {
  std::size_t first = 0;
  std::size_t last = text().size() - 1;
  bool range = false;
};
Asked asked(const ScriptedTransport::Sent& sent) {
  Asked asked;
  const std::string range = sent.header("Range");
  if (range.empty()) return asked;
  asked.range = true;
  const std::size_t dash = range.find('-');
  asked.first = std::stoul(range.substr(6, dash - 6));
  if (dash + 1 < range.size()) asked.last = std::stoul(range.substr(dash + 1));
  return asked;
}

// What a good server answers, at a rate for each connection.
Answer good(const ScriptedTransport::Sent& sent, double rate = 40e6,
            const std::string& etag = "\"v1\"") {
  const Asked what = asked(sent);
  Answer answer(what.range ? 206 : 200);
  answer.header("etag", etag).header("accept-ranges", "bytes");
  answer.header("content-length", std::to_string(what.last - what.first + 1));
  if (what.range) {
    answer.header("content-range", "bytes " + std::to_string(what.first) + "-" +
                                       std::to_string(what.last) + "/" +
                                       std::to_string(text().size()));
  }
  for (std::size_t at = what.first; at <= what.last; at += kPiece) {
    const std::size_t size = std::min(kPiece, what.last + 1 - at);
    answer.pause(
        std::chrono::nanoseconds(static_cast<long>(1e9 * static_cast<double>(size) / rate)));
    answer.body(text().substr(at, size));
  }
  return answer;
}

// The same, cut after so many bytes.
Answer cut_after(Answer answer, std::size_t bytes) {
  std::size_t kept = 0;
  for (std::size_t sent = 0; kept < answer.steps.size() && sent < bytes; ++kept) {
    sent += answer.steps[kept].body.size();
  }
  answer.steps.resize(kept);
  return answer.cut();
}

class Connections : public ::testing::Test {
 protected:
  Connections() { options.worker = worker.get(); }

  Download checked() {
    Download made;
    made.spec.path = "file.bin";
    made.spec.urls = {kA};
    made.spec.size = text().size();
    made.spec.digest = Digest{Digest::Kind::kSha256, digest()};
    made.partial = partial;
    return made;
  }
  Download unchecked() {
    Download made = checked();
    made.spec.digest.reset();
    return made;
  }
  static const std::string& digest() {
    static const std::string hex = sha256_hex(text());
    return hex;
  }

  Finished fetch(Download what) {
    engine.emplace(*transport, clock, options, random);
    engine->add(std::move(what));
    return finish();
  }
  Finished finish() {
    for (int turns = 0; turns < 10'000; ++turns) {
      for (Finished& finished : engine->poll(Clock::TimePoint::max(), {})) {
        return std::move(finished);
      }
    }
    ADD_FAILURE() << "nothing finished";
    return {0, fail(ErrorCode::kInternal, "nothing finished"), 0, 0};
  }
  [[nodiscard]] std::size_t most_at_once() const { return most; }
  // Serves every request by `make`, and counts how many run at once.
  void serve(std::function<Answer(const ScriptedTransport::Sent&, std::size_t)> make) {
    wire.serve(kA, [this, make = std::move(make)](const ScriptedTransport::Sent& sent) {
      most = std::max(most, wire.running() + 1);
      return make(sent, wire.sent().size());
    });
  }
  void expect_right(const Finished& finished) const {
    ASSERT_TRUE(IsOk(finished.result));
    EXPECT_EQ(finished.result->sha256, digest());
    EXPECT_TRUE(content(partial) == text());
    EXPECT_EQ(finished.requests, wire.sent().size());
  }

  TempDir dir;
  std::string partial = dir.path() + "/.file.part";
  FakeClock clock;
  Clock::TimePoint begin = clock.now();
  ScriptedTransport wire{clock};
  std::unique_ptr<Transport> transport = follow_redirects(wire);
  std::unique_ptr<Worker> worker = make_inline_worker();
  std::mt19937 random{1};
  EngineOptions options;
  std::optional<Engine> engine;
  std::size_t most = 0;
  bool flipped = false;
};

// --- giving out ----------------------------------------------------------------------------------

TEST_F(Connections, RangesAreGivenOutAndComeTogether) {
  serve([](const auto& sent, std::size_t) { return good(sent); });
  const Finished finished = fetch(checked());
  expect_right(finished);
  EXPECT_EQ(most_at_once(), 4U);
  EXPECT_LT(clock.now() - begin, milliseconds(450));  // one alone: 839 ms
  // The first one's answer goes on to the end of the file, and no byte of it is asked for twice.
  EXPECT_LT(finished.bytes_received, text().size() + 4 * kPiece);
}

TEST_F(Connections, TheFirstRequestAsksForNoRange) {
  serve([](const auto& sent, std::size_t) { return good(sent); });
  expect_right(fetch(unchecked()));
  EXPECT_EQ(wire.sent()[0].header("Range"), "");
  for (std::size_t i = 1; i < wire.sent().size(); ++i) {
    EXPECT_NE(wire.sent()[i].header("Range"), "");
    EXPECT_EQ(wire.sent()[i].header("If-Range"), "\"v1\"");
  }
}

TEST_F(Connections, MayEachMeetAnotherValidatorWhereADigestDecides) {
  serve([](const auto& sent, std::size_t count) {
    return good(sent, 40e6, "\"node-" + std::to_string(count) + "\"");
  });
  const Finished finished = fetch(checked());
  expect_right(finished);
  for (const auto& sent : wire.sent()) EXPECT_EQ(sent.header("If-Range"), "");
  EXPECT_LT(finished.bytes_received, text().size() + 4 * kPiece);
}

TEST_F(Connections, NoMoreThanAllowed) {
  options.connections = 2;
  serve([](const auto& sent, std::size_t) { return good(sent); });
  expect_right(fetch(checked()));
  EXPECT_EQ(most_at_once(), 2U);
}

TEST_F(Connections, OneWhereOnlyOneIsAllowed) {
  options.connections = 1;
  serve([](const auto& sent, std::size_t) { return good(sent); });
  const Finished finished = fetch(checked());
  expect_right(finished);
  EXPECT_EQ(finished.requests, 1U);
  EXPECT_EQ(finished.bytes_received, text().size());
}

TEST_F(Connections, AreGivenBackWhereMoreBringNothing) {
  serve([](const auto& sent, std::size_t count) {
    return good(sent, count >= 2 && count <= 4 ? 2e5 : 10e6);
  });
  const Finished finished = fetch(checked());
  expect_right(finished);
  EXPECT_EQ(most_at_once(), 4U);
  EXPECT_LT(clock.now() - begin, milliseconds(5000));  // alone 3.4 s; with one that is slow 160 s
}

TEST_F(Connections, OneForASmallFileHoweverSlowItIs) {
  const std::string small = text().substr(0, (8U << 20U) - 1);
  Download download = checked();
  download.spec.size = small.size();
  download.spec.digest = Digest{Digest::Kind::kSha256, sha256_hex(small)};
  serve([&small](const auto&, std::size_t) {
    Answer answer(200);
    answer.header("etag", "\"v1\"").header("accept-ranges", "bytes");
    for (std::size_t at = 0; at < small.size(); at += kPiece) {
      answer.pause(milliseconds(500)).body(small.substr(at, kPiece));
    }
    return answer;
  });
  const Finished finished = fetch(download);
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(finished.requests, 1U);
  EXPECT_EQ(finished.bytes_received, small.size());
}

TEST_F(Connections, OneForAServerThatDoesNotOfferRanges) {
  serve([](const auto& sent, std::size_t) {
    Answer answer = good(sent);
    std::erase_if(answer.headers,
                  [](const auto& header) { return header.first == "accept-ranges"; });
    return answer;
  });
  const Finished finished = fetch(checked());
  expect_right(finished);
  EXPECT_EQ(finished.requests, 1U);
}

TEST_F(Connections, OneWhereNothingTellsOneVersionFromAnother) {
  serve([](const auto& sent, std::size_t) { return good(sent, 40e6, "W/\"v1\""); });
  const Finished finished = fetch(unchecked());
  expect_right(finished);
  EXPECT_EQ(finished.requests, 1U);
}

TEST_F(Connections, SeveralWithoutADigestWhereTheValidatorIsStrong) {
  serve([](const auto& sent, std::size_t) { return good(sent); });
  expect_right(fetch(unchecked()));
  EXPECT_EQ(most_at_once(), 4U);
}

TEST_F(Connections, AreLedOnceForAllOfThem) {
  int led = 0;
  wire.serve(kA, [&led](const auto&) {
    ++led;
    return Answer(302).header("location", "https://cdn/x");
  });
  wire.serve("https://cdn/x", [](const auto& sent) { return good(sent); });
  expect_right(fetch(checked()));
  EXPECT_GE(wire.sent().size(), 5U);
  EXPECT_EQ(led, 1);
}

class ConnectionsLed : public Connections, public ::testing::WithParamInterface<int> {};

TEST_P(ConnectionsLed, AnewWhereTheAddressIsOver) {
  options.retries = 0;
  int led = 0;
  wire.serve(kA, [&led](const auto&) {
    return Answer(302).header("location", "https://cdn/" + std::to_string(++led));
  });
  int asked = 0;
  wire.serve("https://cdn/1",
             [&asked](const auto& sent) { return ++asked <= 2 ? good(sent) : Answer(GetParam()); });
  for (const char* next : {"https://cdn/2", "https://cdn/3", "https://cdn/4", "https://cdn/5"}) {
    wire.serve(next, [](const auto& sent) { return good(sent); });
  }
  const Finished finished = fetch(checked());
  ASSERT_TRUE(finished.result.has_value()) << finished.result.error().message;
  EXPECT_EQ(finished.result->sha256, digest());
  EXPECT_GE(led, 2);
  EXPECT_TRUE(engine->take_retried().empty());
}

INSTANTIATE_TEST_SUITE_P(Answers, ConnectionsLed, ::testing::Values(401, 403, 404, 410));

// --- what goes wrong with one of several ---------------------------------------------------------

TEST_F(Connections, TheWholeFileForARangeIsRefusedAndTheFirstOneBringsAll) {
  serve([](const auto& sent, std::size_t count) {
    Answer answer = good(sent);
    if (count == 1) return answer;
    ScriptedTransport::Sent plain = sent;
    plain.request.headers.clear();
    return good(plain);
  });
  const Finished finished = fetch(checked());
  expect_right(finished);
  EXPECT_EQ(finished.requests, 4U);
}

TEST_F(Connections, WhatIsThereIsNotWrittenAgain) {
  // The first answer goes on over what others have brought when one of them gets no range.
  serve([](const auto& sent, std::size_t count) {
    if (count >= 6) {
      ScriptedTransport::Sent plain = sent;
      plain.request.headers.clear();
      return good(plain);
    }
    Answer answer = good(sent, count == 1 ? 1e6 : 40e6);
    std::size_t at = 0;
    for (auto& step : answer.steps) {
      if (count == 1 && at >> 20U == 4 && !step.body.empty()) step.body[0] ^= 1;
      at += step.body.size();
    }
    return answer;
  });
  const Finished finished = fetch(checked());
  ASSERT_TRUE(IsOk(finished.result));
  EXPECT_EQ(sha256_hex(content(partial)), digest());
}

TEST_F(Connections, NoRangeForAnyOfThemAtOnceCostsOneMoreRequest) {
  serve([](const auto& sent, std::size_t count) {
    ScriptedTransport::Sent plain = sent;
    plain.request.headers.clear();
    return count >= 5 ? good(plain) : good(sent, count == 1 ? 40e6 : 1e6);
  });
  options.retries = 1;
  expect_right(fetch(checked()));
}

// Tasks run when somebody waits for them.
class LateWorker final : public Worker {
 public:
  explicit LateWorker(Clock& clock) : clock_(clock) {}
  void post(std::function<void()> task) override { tasks_.push_back(std::move(task)); }
  void wait(Clock::TimePoint until, const std::stop_token& /*stop*/) override {
    EXPECT_GT(until, clock_.now());  // else it is no waiting
    for (const auto& task : std::exchange(tasks_, {})) task();
  }

 private:
  Clock& clock_;
  std::vector<std::function<void()>> tasks_;
};

TEST_F(Connections, NobodyIsBusyWhileTheDigestIsMade) {
  LateWorker late(clock);
  options.worker = &late;
  serve([](const auto& sent, std::size_t) { return good(sent); });
  expect_right(fetch(checked()));
}

TEST_F(Connections, AWrongRangeIsRefusedAndNothingElseIsLost) {
  serve([](const auto& sent, std::size_t count) {
    Answer answer = good(sent);
    if (count == 2) {
      for (auto& [name, value] : answer.headers) {
        if (name == "content-range") value = "bytes 1-9/10";
      }
    }
    return answer;
  });
  const Finished finished = fetch(checked());
  expect_right(finished);
  EXPECT_EQ(most_at_once(), 4U);
}

TEST_F(Connections, AnotherValidatorIsRefusedInTheMiddleOfTheFile) {
  serve([](const auto& sent, std::size_t count) {
    return good(sent, 40e6, count == 1 ? "\"v1\"" : "\"v2\"");
  });
  expect_right(fetch(unchecked()));
}

TEST_F(Connections, OneTooManyIsGivenUpForGood) {
  serve([](const auto& sent, std::size_t count) {
    return count == 3 ? Answer(503).header("retry-after", "0") : good(sent);
  });
  const Finished finished = fetch(checked());
  expect_right(finished);
  EXPECT_TRUE(engine->take_retried().empty());
}

TEST_F(Connections, ARangeThatIsCutIsAskedForAgainWhereItEnded) {
  std::size_t cut_at = 0;
  serve([&](const auto& sent, std::size_t count) {
    Answer answer = good(sent);
    if (count != 2) return answer;
    cut_at = asked(sent).first + 2 * kMiB;
    return cut_after(std::move(answer), 2 * kMiB);
  });
  const Finished finished = fetch(checked());
  expect_right(finished);
  EXPECT_TRUE(std::any_of(wire.sent().begin(), wire.sent().end(), [&](const auto& sent) {
    return sent.header("Range").starts_with("bytes=" + std::to_string(cut_at) + "-");
  }));
  EXPECT_LT(finished.bytes_received, text().size() + 4 * kPiece);
}

TEST_F(Connections, ARangeThatNeverComesIsLeftToTheOthers) {
  options.retries = 1;
  serve([](const auto& sent, std::size_t count) {
    // The first two requests live; after that no second connection is to be had.
    return count == 1 || asked(sent).first < 16 * kMiB || count > 4
               ? good(sent)
               : Answer::none(TransportFailure::kConnect);
  });
  expect_right(fetch(checked()));
}

TEST_F(Connections, AFileThatIsFlippedIsFetchedOnceMoreFromItsBeginning) {
  serve([this](const auto& sent, std::size_t) {
    Answer answer = good(sent);
    if (!flipped) {
      answer.steps.back().body[0] = static_cast<char>(~answer.steps.back().body[0]);
      flipped = asked(sent).range;
    }
    return answer;
  });
  expect_right(fetch(checked()));
}

class ConnectionsCut : public Connections, public ::testing::WithParamInterface<int> {
 public:
};

TEST_P(ConnectionsCut, EveryTransferAtATenthAndTheRightBytesCome) {
  const auto tenth = static_cast<std::size_t>(GetParam());
  serve([&](const auto& sent, std::size_t count) {
    Answer answer = good(sent);
    const Asked what = asked(sent);
    const std::size_t size = what.last - what.first + 1;
    return count <= 5 ? cut_after(std::move(answer), size * tenth / 10) : answer;
  });
  const Finished finished = fetch(checked());
  expect_right(finished);
  EXPECT_LT(finished.bytes_received, text().size() + 12 * kPiece);
}

INSTANTIATE_TEST_SUITE_P(Tenths, ConnectionsCut, ::testing::Range(0, 10));

TEST_F(Connections, EndAllAtTheDeadline) {
  options.deadline = begin + milliseconds(300);
  serve([](const auto& sent, std::size_t) { return good(sent, 10e6); });
  const Finished finished = fetch(checked());
  EXPECT_TRUE(FailsWith(finished.result, ErrorCode::kNetwork, "deadline"));
  EXPECT_EQ(wire.running(), 0U);
}

TEST_F(Connections, EndAllWhenTheDownloadIsCancelled) {
  serve([](const auto& sent, std::size_t) { return good(sent, 10e6); });
  engine.emplace(*transport, clock, options, random);
  const DownloadId id = engine->add(checked());
  (void)engine->poll(begin + milliseconds(400), {});
  EXPECT_GT(wire.running(), 1U);
  engine->cancel(id);
  EXPECT_EQ(wire.running(), 0U);
}

}  // namespace
}  // namespace fvprefetch
