// How a run ends that a signal or the deadline cuts short.
#include <gtest/gtest.h>

#include <csignal>

#include "unit/prefetch/fixture.h"

namespace fvprefetch {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the fixture's words

using EndsTest = PrefetchTest;

TEST_F(EndsTest, AStopEndsEveryOpenEntryWithTheSignal) {
  std::stop_source stop;
  options.stop = stop.get_token();
  options.stop_signal = [] { return SIGINT; };
  wire.on("https://host/a", Answer(200)
                                .header("content-length", "9")
                                .body("xxx")
                                .then([&] { stop.request_stop(); })
                                .pause(std::chrono::hours(1)));
  const Report report = run(R"([{"name": "a", "source": "https://host/a"}])");
  EXPECT_EQ(exit_code(report.code()), 128 + SIGINT);
  EXPECT_EQ(dir.read("eval/models/a"), "<missing>");
}

TEST_F(EndsTest, TheDeadlineEndsTheRun) {
  options.deadline = std::chrono::seconds(30);
  wire.on("https://host/a",
          Answer(200).header("content-length", "9").body("xxx").pause(std::chrono::hours(1)));
  options.stall_timeout = std::chrono::hours(2);
  const Report report = run(R"([{"name": "a", "source": "https://host/a"}])");
  EXPECT_EQ(report.code(), ErrorCode::kNetwork);
  EXPECT_NE(describe(*report.error).find("deadline"), std::string::npos) << describe(*report.error);
}

TEST_F(EndsTest, ProgressDoesNotGoBackWhenTheDeadlineEndsTheRun) {
  options.deadline = std::chrono::seconds(30);
  options.stall_timeout = std::chrono::hours(2);
  wire.on("https://host/a",
          Answer(200).header("content-length", "6").body("xxx").pause(std::chrono::hours(1)));
  // Its end is no multiple of the time between two looks: the deadline comes while the engine
  // works.
  wire.on("https://host/b", Answer(200).body("bb").pause(std::chrono::milliseconds(50)));
  EXPECT_FALSE(run(R"([{"name": "a", "source": "https://host/a"},
                      {"name": "b", "source": "https://host/b"}])")
                   .ok());
  const auto told = seen.all<BytesArrived>();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().files_done, 2U);  // told after the end
  EXPECT_EQ(told.back().bytes_done, 5U);
  EXPECT_EQ(told.back().bytes_total, 8U);
  EXPECT_TRUE(told.back().arriving.empty());
}

TEST_F(EndsTest, ProgressDoesNotGoBackWhenAnotherEntryFails) {
  wire.on("https://host/a",
          Answer(200).header("content-length", "6").body("xxx").pause(std::chrono::hours(1)));
  wire.on("https://host/b", Answer(404).pause(std::chrono::seconds(3)));
  EXPECT_FALSE(run(R"([{"name": "a", "source": "https://host/a"},
                      {"name": "b", "source": "https://host/b"}])")
                   .ok());
  const auto told = seen.all<BytesArrived>();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().bytes_done, 3U);
  EXPECT_EQ(told.back().files_done, 2U);
}

TEST_F(EndsTest, ASignalWhileOnlyOptionalEntriesAreOpenIsNoPartialSuccess) {
  std::stop_source stop;
  options.stop = stop.get_token();
  options.stop_signal = [] { return SIGTERM; };
  wire.on("https://host/a", Answer::whole("aaa"));
  wire.on("https://host/b", Answer(200)
                                .header("content-length", "9")
                                .body("xxx")
                                .then([&] { stop.request_stop(); })
                                .pause(std::chrono::hours(1)));
  const Report report = run(R"([{"name": "a", "source": "https://host/a"},
                                {"name": "b", "source": "https://host/b", "optional": true}])");
  EXPECT_EQ(exit_code(report.code()), 128 + SIGTERM);
  EXPECT_EQ(report.entries[0].state, EntryState::kFetched);
}

TEST_F(EndsTest, TheDeadlineOfOptionalEntriesIsNoPartialSuccess) {
  options.deadline = std::chrono::seconds(30);
  options.stall_timeout = std::chrono::hours(2);
  wire.on("https://host/b",
          Answer(200).header("content-length", "9").body("xxx").pause(std::chrono::hours(1)));
  const Report report = run(R"([{"name": "b", "source": "https://host/b", "optional": true}])");
  EXPECT_EQ(report.code(), ErrorCode::kNetwork);
}

TEST_F(EndsTest, AFailedRunHashesNothingMoreAndCallsNothingAHitUnlooked) {
  dir.write("eval/models/b", "the right bytes");
  const std::string entries = R"([
    {"name": "a", "source": "https://host/a"},
    {"name": "m", "source": "/not/there"},
    {"name": "b", "source": "https://host/b", "sha256": ")" +
                              sha256_hex("the right bytes") + R"("}])";
  const Report report = run(entries);
  EXPECT_EQ(report.code(), ErrorCode::kNotFound);
  EXPECT_EQ(report.entries[2].state, EntryState::kSkipped);
  EXPECT_TRUE(dir.files("eval") == std::vector<std::string>{"models/b"});  // no receipt
  options.keep_going = true;
  wire.on("https://host/a", Answer(404));
  EXPECT_EQ(run(entries).entries[2].state, EntryState::kHit);
}

TEST_F(EndsTest, AnEntryWhoseRefCannotBeWrittenEndsTheRunAlthoughOthersWait) {
  options.max_active = 1;
  options.deadline = std::chrono::hours(1);  // the run must end long before
  hub_lists({{"config.json", "{}"}});
  wire.serve(kFiles + "/config.json", [](const auto&) { return Answer::whole("{}"); });
  dir.write("hub/models--org--model/refs/main/in_the_way", "a folder where the ref belongs");
  std::string entries = R"([{"name": "m", "source": "org/model"})";
  for (const std::string name : {"a", "b", "c"}) {
    wire.on("https://host/" + name, Answer::whole("text"));
    entries += R"(, {"name": ")" + name + R"(", "source": "https://host/)" + name + R"("})";
  }
  const Clock::TimePoint begin = clock.now();
  const Report report = run(entries + "]");
  EXPECT_LT(clock.now() - begin, std::chrono::minutes(1));
  ASSERT_TRUE(report.error);
  EXPECT_NE(report.error->message.find("refs/main"), std::string::npos) << describe(*report.error);
  EXPECT_EQ(report.entries[0].state, EntryState::kFailed);
  EXPECT_EQ(report.entries[3].state, EntryState::kSkipped);
}

TEST_F(EndsTest, ASignalOfflineIsNoListOfWhatIsMissing) {
  std::stop_source stop;
  options.stop = stop.get_token();
  options.stop_signal = [] { return SIGTERM; };
  options.offline = true;
  stop.request_stop();
  EXPECT_EQ(exit_code(run(R"([{"name": "a", "source": "https://host/a"}])").code()), 128 + SIGTERM);
}

TEST_F(EndsTest, ARateLimitBeyondTheDeadlineIsToldAtOnce) {
  options.deadline = std::chrono::seconds(30);
  wire.on(kApi + "/revision/main", Answer(429).header("ratelimit", R"("api";r=0;t=55)"));
  const Clock::TimePoint begin = clock.now();
  const Report report = run(R"([{"name": "m", "source": "org/model"}])");
  EXPECT_EQ(report.code(), ErrorCode::kRateLimited);
  EXPECT_EQ(report.error->retry_after, std::chrono::seconds(55));
  EXPECT_EQ(clock.now(), begin);
}

}  // namespace
}  // namespace fvprefetch
