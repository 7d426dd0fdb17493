// Threads as ranks on a real clock where all of them run; one rank at a time on a clock that passes
// by sleeping where it is about who waits for whom and for how long.
#include "cluster/file_barrier.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/posix.h"
#include "cache/lease.h"
#include "support/matchers.h"
#include "support/temp_dir.h"

namespace fvprefetch {
namespace {

using namespace std::chrono_literals;
using testing::FailsWith;
using testing::IsOk;
using testing::TempDir;
namespace fs = std::filesystem;

// Time that passes only by sleeping.
class SleptClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  using Clock::sleep_until;
  void sleep_until(TimePoint until, const std::stop_token&, Wake*) override {
    now_ = std::max(now_, until);
    if (on_sleep) on_sleep();
  }
  void advance(TimePoint::duration by) { now_ += by; }
  [[nodiscard]] TimePoint::duration passed() const { return now_ - kBegin; }

  std::function<void()> on_sleep;

 private:
  static constexpr TimePoint kBegin{1h};
  TimePoint now_ = kBegin;
};

Launch launch_of(int rank) {
  Launch launch;
  launch.mode = Launch::Mode::kLockOnly;
  launch.launcher = "slurm";
  launch.rank = rank;
  launch.size = 8;
  launch.run = "77.0.0";
  return launch;
}

class FileBarrier : public ::testing::Test {
 protected:
  FileBarrier() {
    options.cache_dir = dir / "eval";
    options.hf_cache_dir = dir / "hub";
    options.environment = [this](std::string_view name) -> std::optional<std::string> {
      return name == "HOME" ? std::optional(dir.path()) : std::nullopt;
    };
  }

  StepResult run(int rank, const std::function<Report()>& work = {}) {
    FileBarrierOptions how;
    how.clock = &clock;
    how.visible_timeout = 2s;
    how.work = [&](const Manifest&, const Options& given) {
      ++calls;
      deadline = given.deadline;
      return work ? work() : failed();
    };
    return prefetch_in_step(manifest, options, launch_of(rank), how);
  }

  static Report failed() {
    return failed_report(fail(ErrorCode::kNotFound, "no such file").value());
  }

  /// The file is there afterwards.
  Report fetched() const {
    EntryReport entry;
    entry.name = "a.pth";
    entry.kind = EntryKind::kUrl;
    entry.state = EntryState::kFetched;
    entry.path = dir.write("eval/models/a.pth", "\1eights");
    entry.files = 1;
    entry.bytes_total = 7;
    Report report;
    report.entries = {entry};
    return report;
  }

  [[nodiscard]] std::vector<std::string> files() const {
    return fs::exists(steps) ? dir.files("eval/.fvprefetch/steps") : std::vector<std::string>{};
  }
  /// Where the ranks of this step meet; there must have been a record.
  [[nodiscard]] std::string lock() const {
    for (const std::string& name : files()) {
      if (name.ends_with(".json")) return steps + "/" + name.substr(0, name.size() - 5) + ".lock";
    }
    ADD_FAILURE() << "no record";
    return {};
  }

  TempDir dir;
  std::string steps = dir / "eval/.fvprefetch/steps";
  SleptClock clock;
  Manifest manifest =
      parse_manifest(R"([{"name": "a.pth", "source": "https://hub.test/a.pth"}])").value();
  Options options;
  int calls = 0;
  std::optional<std::chrono::milliseconds> deadline;  ///< of the last call
};

// --- all at once --------------------------------------------------------------------------------

class FileBarrierRanks : public FileBarrier {
 protected:
  /// Eight ranks on threads: what each returns, as users see it.
  std::vector<std::string> reports(const std::function<Report()>& work) {
    std::vector<std::string> all(8);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 8; ++rank) {
      threads.emplace_back([&, rank] {
        FileBarrierOptions how;
        how.work = [&](const Manifest&, const Options&) {
          ++worked;
          return work();
        };
        const StepResult result = prefetch_in_step(manifest, options, launch_of(rank), how);
        shared += result.shared ? 1 : 0;
        all[static_cast<std::size_t>(rank)] = to_json(result.report);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return all;
  }
  std::atomic<int> worked = 0;
  std::atomic<int> shared = 0;
};

TEST_F(FileBarrierRanks, OneFailsAndAllHaveItsReport) {
  const auto all = reports([] { return failed(); });
  for (const std::string& report : all) EXPECT_EQ(report, to_json(failed()));
  EXPECT_EQ(worked, 1);
  EXPECT_EQ(shared, 7);
}

TEST_F(FileBarrierRanks, OneFetchesAndAllSeeTheFile) {
  const auto all = reports([this] { return fetched(); });
  for (const std::string& report : all) {
    const auto read = report_from_json(report);
    ASSERT_TRUE(IsOk(read));
    EXPECT_TRUE(read->ok());
    EXPECT_EQ(read->entries.at(0).path, dir / "eval/models/a.pth");
  }
  EXPECT_EQ(worked, 1);
}

TEST_F(FileBarrierRanks, WarmNobodyWorksAndNothingIsWritten) {
  (void)fetched();
  (void)reports([] { return failed(); });  // which looks into what lies there, and notes that
  const auto before = dir.files();
  for (const std::string& report : reports([] { return failed(); })) {
    EXPECT_NE(report.find("\"hit\""), std::string::npos) << report;
  }
  EXPECT_EQ(worked, 0);
  EXPECT_EQ(dir.files(), before);
}

// --- one after the other ------------------------------------------------------------------------

TEST_F(FileBarrier, Rank0LeavesARecordAndNothingElse) {
  EXPECT_FALSE(run(0, [this] { return fetched(); }).shared);
  ASSERT_EQ(files().size(), 1U);
  EXPECT_EQ(files().front().rfind("77.0.0.", 0), 0U) << files().front();
  EXPECT_EQ(clock.passed(), 0s);
}

TEST_F(FileBarrier, OneThatComesLateGetsTheFailureOnce) {
  (void)run(0);
  const StepResult first = run(1);
  EXPECT_TRUE(first.shared);
  EXPECT_EQ(first.report.code(), ErrorCode::kNotFound);
  EXPECT_EQ(clock.passed(), 0s);
  // Its next run waits for rank 0's next run, here until it has waited for long enough.
  calls = 0;
  EXPECT_FALSE(run(1, [this] { return fetched(); }).shared);
  EXPECT_GE(clock.passed(), options.lease_timeout);
  EXPECT_EQ(calls, 1);
}

TEST_F(FileBarrier, Rank0NeverTakesAnOldRecord) {
  (void)run(0);
  EXPECT_TRUE(run(0, [this] { return fetched(); }).report.ok());
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(FileBarrier, NobodyWaitsForARank0ThatNeverComesLongerThanTheLeaseTime) {
  EXPECT_TRUE(run(3, [this] { return fetched(); }).report.ok());
  EXPECT_GE(clock.passed(), options.lease_timeout);
  EXPECT_LT(clock.passed(), options.lease_timeout + 2s);
  EXPECT_EQ(calls, 1);
}

TEST_F(FileBarrier, OtherManifestsAndOptionsAreOtherMeetings) {
  (void)run(0);
  options.offline = true;
  EXPECT_FALSE(run(1).shared);
  options.offline = false;
  manifest = parse_manifest(R"([{"name": "b.pth", "source": "https://hub.test/b.pth"}])").value();
  EXPECT_FALSE(run(1).shared);
}

TEST_F(FileBarrier, ARecordOfFilesThatThisRankDoesNotSeeIsNoHelp) {
  (void)run(0, [this] { return fetched(); });
  fs::remove(dir / "eval/models/a.pth");  // as if each node had a disk of its own
  EXPECT_FALSE(run(1, [this] { return fetched(); }).shared);
  EXPECT_EQ(calls, 2);
  EXPECT_LT(clock.passed(), 4s);
}

TEST_F(FileBarrier, FilesThatShowLateAreWaitedFor) {
  (void)run(0, [this] { return fetched(); });
  fs::rename(dir / "eval/models/a.pth", dir / "hidden");
  clock.on_sleep = [this] {
    if (fs::exists(dir / "hidden")) fs::rename(dir / "hidden", dir / "eval/models/a.pth");
  };
  EXPECT_TRUE(run(1).shared);
  EXPECT_EQ(calls, 1);
}

TEST_F(FileBarrier, WhatShowsUpWhileNobodyWorksEndsTheWait) {
  clock.on_sleep = [this] {
    if (clock.passed() > 3s) (void)fetched();
  };
  const StepResult result = run(1);
  EXPECT_EQ(result.report.entries.at(0).state, EntryState::kHit);
  EXPECT_LT(clock.passed(), 15s);
  EXPECT_EQ(calls, 0);
}

TEST_F(FileBarrier, AStopEndsAWait) {
  std::stop_source stop;
  options.stop = stop.get_token();
  clock.on_sleep = [&] { stop.request_stop(); };
  EXPECT_EQ(exit_code(run(1).report.code()), 143);
  EXPECT_EQ(calls, 0);
}

TEST_F(FileBarrier, TheDeadlineEndsAWait) {
  options.deadline = 5s;
  EXPECT_EQ(run(1).report.code(), ErrorCode::kNetwork);
  EXPECT_LT(clock.passed(), 7s);
}

TEST_F(FileBarrier, TheWaitCountsTowardsTheDeadline) {
  options.deadline = 100s;
  (void)run(0);
  EXPECT_EQ(deadline, 100s);
  (void)run(1);  // returns that failure, and the next time waits for rank 0 until it goes on itself
  (void)run(1);
  EXPECT_LE(deadline, 100s - options.lease_timeout);
  EXPECT_GT(deadline, 30s);
}

// --- somebody leads -----------------------------------------------------------------------------

class LedStep : public FileBarrier {
 protected:
  LedStep() {
    (void)run(0);  // tells where they meet
    lock_ = lock();
    fs::remove_all(steps);
    keeper_ = std::make_unique<LeaseKeeper>(Holder{"", 0, "77", "", "ada", "0"},
                                            LeaseTimes{options.lease_timeout}, clock,
                                            LeaseKeeper::Heart::kNone);
    auto held = keeper_->lease(lock_)->try_acquire();
    EXPECT_TRUE(IsOk(held));
    if (held) held_ = *std::move(held);
    calls = 0;
    clock.on_sleep = [this] { keeper_->beat(); };
  }

  void write_record(const Report& report) const {
    dir.write(lock_.substr(dir.path().size() + 1, lock_.size() - dir.path().size() - 6) + ".json",
              to_json(report));
  }

  std::string lock_;
  std::unique_ptr<LeaseKeeper> keeper_;
  std::unique_ptr<HeldLock> held_;
};

TEST_F(LedStep, WhoLivesIsWaitedForAsLongAsTheUserSays) {
  options.lock_timeout = 10min;
  const StepResult result = run(1);
  EXPECT_EQ(result.report.code(), ErrorCode::kLockTimeout);
  ASSERT_TRUE(result.report.error);
  EXPECT_NE(result.report.error->message.find("step 77.0.0, held by "), std::string::npos);
  EXPECT_GE(clock.passed(), 10min);
  EXPECT_EQ(calls, 0);
}

TEST_F(LedStep, WhoIsSilentIsFollowed) {
  clock.on_sleep = {};
  EXPECT_TRUE(run(1, [this] { return fetched(); }).report.ok());
  EXPECT_GE(clock.passed(), options.lease_timeout);
  EXPECT_EQ(calls, 1);
}

TEST_F(LedStep, WhoGoesWithoutARecordIsNotWaitedFor) {
  clock.on_sleep = [this] { held_.reset(); };
  EXPECT_FALSE(run(1).shared);
  EXPECT_EQ(calls, 1);
  EXPECT_LT(clock.passed(), 10s);
}

TEST_F(LedStep, WhoDiedAfterHisRecordHadGotToTheEnd) {
  write_record(failed());
  EXPECT_TRUE(run(1).shared);
  EXPECT_EQ(calls, 0);
}

TEST_F(LedStep, ARank0ThatComesLaterGetsTheRecordOfWhoLeadsInItsPlace) {
  clock.on_sleep = [this] {
    write_record(failed());
    held_.reset();
  };
  EXPECT_TRUE(run(0).shared);
  EXPECT_EQ(calls, 0);
}

TEST_F(LedStep, AStopReturnsWhatRank0HasLeft) {
  std::stop_source stop;
  options.stop = stop.get_token();
  clock.on_sleep = [&] {
    write_record(failed());
    stop.request_stop();
  };
  EXPECT_EQ(run(1).report.code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace fvprefetch
