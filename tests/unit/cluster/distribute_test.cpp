// The protocol over threads. One thread is one rank; where nodes must differ in what they see, each
// thread has a working directory of its own (unshare(CLONE_FS)) and the report names relative
// paths, so that "this node does not see the file" needs no second machine.
#include "cluster/distribute.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/thread_collective.h"

namespace fvprefetch {
namespace {

namespace fs = std::filesystem;
using fvprefetch::testing::run_ranks;
using fvprefetch::testing::two_to_a_node;

// Time that passes only by sleeping. One per rank.
class SleptClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  using Clock::sleep_until;
  void sleep_until(TimePoint until, const std::stop_token&, Wake*) override {
    pauses.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(until - now_));
    now_ = until;
    if (on_sleep) on_sleep();
  }

  std::vector<std::chrono::milliseconds> pauses;
  std::function<void()> on_sleep;

 private:
  TimePoint now_{};
};

class TempDir {
 public:
  TempDir() {
    std::string pattern = (fs::temp_directory_path() / "fvp-distribute-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = pattern;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() { fs::remove_all(path_); }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ / name; }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

void write(const std::string& path, std::size_t bytes) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path) << std::string(bytes, 'x');
}

EntryReport url_entry(const std::string& path, std::uint64_t bytes) {
  EntryReport entry;
  entry.name = "e";
  entry.kind = EntryKind::kUrl;
  entry.state = EntryState::kFetched;
  entry.path = path;
  entry.files = 1;
  entry.bytes_total = bytes;
  return entry;
}

Report report_of(std::vector<EntryReport> entries) {
  Report report;
  report.entries = std::move(entries);
  return report;
}

// Runs distribute() on `ranks` threads, two to a node, and gives every rank's report back as the
// JSON that the user would see.
std::vector<std::string> reports_of(int ranks, const std::function<Report()>& work,
                                    const std::function<void(int)>& enter = {}) {
  std::vector<std::string> reports(static_cast<std::size_t>(ranks));
  run_ranks(two_to_a_node(ranks), [&](Collective& all) {
    if (enter) enter(all.rank());
    SleptClock clock;
    DistributeOptions options;
    options.launcher = "test";
    options.clock = &clock;
    reports[static_cast<std::size_t>(all.rank())] = to_json(distribute(all, work, options));
  });
  return reports;
}

class Distribute : public ::testing::TestWithParam<int> {
 protected:
  // The one report that all ranks must have.
  static Report agreed(const std::vector<std::string>& reports) {
    for (const std::string& report : reports) EXPECT_EQ(report, reports.front());
    auto parsed = report_from_json(reports.front());
    EXPECT_TRUE(parsed);
    return parsed.value_or(Report{});
  }
};

INSTANTIATE_TEST_SUITE_P(Ranks, Distribute, ::testing::Values(1, 2, 3, 8),
                         [](const auto& row) { return std::to_string(row.param); });

TEST_P(Distribute, RunsTheWorkOnceAndGivesEveryRankItsReport) {
  const TempDir dir;
  write(dir / "w.bin", 5);
  std::atomic<int> runs = 0;
  const Report report = agreed(reports_of(GetParam(), [&] {
    ++runs;
    return report_of({url_entry(dir / "w.bin", 5)});
  }));
  EXPECT_EQ(runs, 1);
  EXPECT_TRUE(report.ok());
  ASSERT_EQ(report.entries.size(), 1U);
  EXPECT_EQ(report.entries[0].path, dir / "w.bin");
  EXPECT_EQ(report.entries[0].state, EntryState::kFetched);
  EXPECT_EQ(report.ranks, GetParam());
  EXPECT_EQ(report.nodes, (GetParam() + 1) / 2);
  EXPECT_EQ(report.launcher, "test");
}

TEST_P(Distribute, AReportThatFailedIsEveryRanksReport) {
  const Report report = agreed(reports_of(GetParam(), [] {
    Error error;
    error.code = ErrorCode::kNotFound;
    error.message = "no such repo `a/b`";
    error.subject = "a/b";
    return failed_report(error);
  }));
  EXPECT_EQ(report.code(), ErrorCode::kNotFound);
  ASSERT_TRUE(report.error);
  EXPECT_EQ(report.error->message, "no such repo `a/b`");
  EXPECT_EQ(report.ranks, GetParam());
}

TEST_P(Distribute, AnExceptionOfTheWorkIsAnInternalErrorEverywhere) {
  const Report report =
      agreed(reports_of(GetParam(), []() -> Report { throw std::runtime_error("boom"); }));
  EXPECT_EQ(report.code(), ErrorCode::kInternal);
  ASSERT_TRUE(report.error);
  EXPECT_NE(report.error->message.find("boom"), std::string::npos) << report.error->message;
}

TEST_P(Distribute, AFileThatNoNodeSeesFailsEveryRank) {
  const TempDir dir;
  const Report report =
      agreed(reports_of(GetParam(), [&] { return report_of({url_entry(dir / "gone", 5)}); }));
  EXPECT_EQ(report.code(), ErrorCode::kNotVisible);
  ASSERT_EQ(report.entries.size(), 1U);
  EXPECT_EQ(report.entries[0].state, EntryState::kFailed);
  EXPECT_EQ(report.entries[0].path, "");
}

// Ranks 2 and 3 are node1, which looks into an empty directory.
void enter_own_view(const TempDir& dir, int rank) {
  ASSERT_EQ(unshare(CLONE_FS), 0);
  const std::string view = rank / 2 == 1 ? "blind" : "seeing";
  ASSERT_EQ(chdir((dir / view).c_str()), 0);
}

TEST(DistributeVisibility, OneNodeThatDoesNotSeeTheFileFailsEveryRank) {
  const TempDir dir;
  write(dir / "seeing/w.bin", 5);
  fs::create_directories(dir / "blind");
  const auto reports = reports_of(
      8, [] { return report_of({url_entry("w.bin", 5)}); },
      [&](int rank) { enter_own_view(dir, rank); });
  for (const std::string& report : reports) EXPECT_EQ(report, reports.front());
  const auto report = report_from_json(reports.front());
  ASSERT_TRUE(report && report->error);
  EXPECT_EQ(report->error->code, ErrorCode::kNotVisible);
  EXPECT_NE(report->error->message.find("`node1` does not see `w.bin`"), std::string::npos)
      << report->error->message;
}

TEST(DistributeVisibility, AnOptionalEntryThatOneNodeDoesNotSeeFailsOnlyItself) {
  const TempDir dir;
  write(dir / "seeing/w.bin", 5);
  write(dir / "seeing/must.bin", 5);
  write(dir / "blind/must.bin", 5);
  EntryReport optional = url_entry("w.bin", 5);
  optional.optional = true;
  const auto reports = reports_of(
      4,
      [&] {
        return report_of({optional, url_entry("must.bin", 5)});
      },
      [&](int rank) { enter_own_view(dir, rank); });
  for (const std::string& report : reports) EXPECT_EQ(report, reports.front());
  const auto report = report_from_json(reports.front());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->code(), ErrorCode::kPartial);
  EXPECT_EQ(report->entries[0].state, EntryState::kFailed);
  ASSERT_TRUE(report->entries[0].error);
  EXPECT_EQ(report->entries[0].error->code, ErrorCode::kNotVisible);
  EXPECT_EQ(report->entries[1].state, EntryState::kFetched);
}

// The rest needs one rank only: what a leader takes for visible.
Report settled(const Report& report, SleptClock& clock) {
  const auto self = make_self_collective("here");
  DistributeOptions options;
  options.clock = &clock;
  return distribute(
      *self, [&] { return report; }, options);
}

TEST(DistributeVisibility, AFileThatShowsLateIsWaitedForWithGrowingPauses) {
  const TempDir dir;
  SleptClock clock;
  clock.on_sleep = [&] {
    if (clock.pauses.size() == 7) write(dir / "late.bin", 5);
  };
  EXPECT_TRUE(settled(report_of({url_entry(dir / "late.bin", 5)}), clock).ok());
  using std::chrono::milliseconds;
  EXPECT_EQ(clock.pauses,
            (std::vector{milliseconds{100}, milliseconds{200}, milliseconds{400}, milliseconds{800},
                         milliseconds{1600}, milliseconds{2000}, milliseconds{2000}}));
}

TEST(DistributeVisibility, GivesUpAfterTheTimeoutOverAllEntries) {
  const TempDir dir;
  SleptClock clock;
  const Report report =
      settled(report_of({url_entry(dir / "a", 5), url_entry(dir / "b", 5)}), clock);
  EXPECT_EQ(report.code(), ErrorCode::kNotVisible);
  std::chrono::milliseconds slept{0};
  for (const auto pause : clock.pauses) slept += pause;
  EXPECT_EQ(slept, std::chrono::milliseconds(60'000));
}

TEST(DistributeVisibility, WhatIsThereIsSeenWithoutAnyPause) {
  const TempDir dir;
  write(dir / "w.bin", 5);
  SleptClock clock;
  EXPECT_TRUE(settled(report_of({url_entry(dir / "w.bin", 5)}), clock).ok());
  EXPECT_TRUE(clock.pauses.empty());
}

TEST(DistributeVisibility, ARunThatFailedIsReportedWithoutLooking) {
  const TempDir dir;
  SleptClock clock;
  Report report = report_of({url_entry(dir / "gone", 5)});
  report.error = Error{};
  report.error->code = ErrorCode::kNetwork;
  EXPECT_EQ(settled(report, clock).code(), ErrorCode::kNetwork);
  EXPECT_TRUE(clock.pauses.empty());
}

struct Look {
  std::string name;
  std::function<EntryReport(const TempDir&)> make;
  bool visible = false;
};

EntryReport snapshot(const std::string& path, EntryState state, std::uint64_t files,
                     std::uint64_t bytes) {
  EntryReport entry = url_entry(path, bytes);
  entry.kind = EntryKind::kHubSnapshot;
  entry.state = state;
  entry.files = files;
  return entry;
}

// A Hub cache in small: snapshots/c/{a,sub/b} are links into blobs/.
std::string hub_snapshot(const TempDir& dir) {
  write(dir / "blobs/1", 3);
  write(dir / "blobs/2", 4);
  fs::create_directories(dir / "snapshots/c/sub");
  fs::create_symlink("../../blobs/1", dir / "snapshots/c/a");
  fs::create_symlink("../../../blobs/2", dir / "snapshots/c/sub/b");
  return dir / "snapshots/c";
}

const std::vector<Look> kLooks{
    {"FileOfItsSize",
     [](const TempDir& dir) {
       write(dir / "f", 5);
       return url_entry(dir / "f", 5);
     },
     true},
    {"FileOfAnotherSize",
     [](const TempDir& dir) {
       write(dir / "f", 4);
       return url_entry(dir / "f", 5);
     },
     false},
    {"FileOfUnknownSize",
     [](const TempDir& dir) {
       write(dir / "f", 4);
       return url_entry(dir / "f", 0);
     },
     true},
    {"HubFileBehindALink",
     [](const TempDir& dir) {
       EntryReport entry = url_entry(hub_snapshot(dir) + "/a", 3);
       entry.kind = EntryKind::kHubFile;
       return entry;
     },
     true},
    {"HubFileWhoseBlobDoesNotShow",
     [](const TempDir& dir) {
       EntryReport entry = url_entry(hub_snapshot(dir) + "/a", 3);
       entry.kind = EntryKind::kHubFile;
       fs::remove(dir / "blobs/1");
       return entry;
     },
     false},
    {"SnapshotFetched",
     [](const TempDir& dir) { return snapshot(hub_snapshot(dir), EntryState::kFetched, 2, 7); },
     true},
    {"SnapshotThatHoldsMoreThanAskedFor",
     [](const TempDir& dir) { return snapshot(hub_snapshot(dir), EntryState::kFetched, 1, 3); },
     true},
    {"SnapshotFetchedWithABlobThatDoesNotShow",
     [](const TempDir& dir) {
       const std::string path = hub_snapshot(dir);
       fs::remove(dir / "blobs/2");
       return snapshot(path, EntryState::kFetched, 2, 7);
     },
     false},
    {"SnapshotFetchedWithALinkThatDoesNotShow",
     [](const TempDir& dir) {
       const std::string path = hub_snapshot(dir);
       fs::remove(path + "/a");
       return snapshot(path, EntryState::kFetched, 2, 7);
     },
     false},
    {"SnapshotHit",
     [](const TempDir& dir) { return snapshot(hub_snapshot(dir), EntryState::kHit, 2, 7); }, true},
    {"SnapshotHitWithoutAnyFile",
     [](const TempDir& dir) {
       fs::create_directories(dir / "snapshots/c");
       return snapshot(dir / "snapshots/c", EntryState::kHit, 2, 7);
     },
     false},
    {"SnapshotThatIsNotThere",
     [](const TempDir& dir) { return snapshot(dir / "c", EntryState::kHit, 2, 7); }, false},
    {"PathOfTheUsersOwn",
     [](const TempDir& dir) {
       EntryReport entry = url_entry(dir.path().string(), 0);
       entry.kind = EntryKind::kPath;
       entry.state = EntryState::kHit;
       return entry;
     },
     true},
    {"PathOfTheUsersOwnThatIsOnlyOnAnotherNode",
     [](const TempDir& dir) {
       EntryReport entry = url_entry(dir / "x", 0);
       entry.kind = EntryKind::kPath;
       entry.state = EntryState::kHit;
       return entry;
     },
     false},
    {"EntryThatFailedIsNotLookedAt",
     [](const TempDir& dir) {
       EntryReport entry = url_entry(dir / "x", 5);
       entry.state = EntryState::kFailed;
       return entry;
     },
     true},
};

class VisibilityTable : public ::testing::TestWithParam<Look> {};

TEST_P(VisibilityTable, Decides) {
  const TempDir dir;
  SleptClock clock;
  const Report report = settled(report_of({GetParam().make(dir)}), clock);
  EXPECT_EQ(report.code(), GetParam().visible ? ErrorCode::kOk : ErrorCode::kNotVisible);
}

INSTANTIATE_TEST_SUITE_P(Looks, VisibilityTable, ::testing::ValuesIn(kLooks),
                         [](const auto& row) { return row.param.name; });

TEST(Visibility, WhatIsInTheWayForGoodIsNotWaitedFor) {
  const TempDir dir;
  fs::create_directories(dir / "folder");
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0666), 0);
  fs::create_symlink("loop", dir / "loop");
  for (const std::string name : {"folder", "fifo", "loop"}) {
    SleptClock clock;
    const Report report = settled(report_of({url_entry(dir / name, 5)}), clock);
    EXPECT_EQ(report.code(), ErrorCode::kPermission) << name;
    EXPECT_NE(report.error->message.find(dir / name), std::string::npos) << report.error->message;
    EXPECT_TRUE(clock.pauses.empty()) << name;
  }
}

TEST(Visibility, ALinkThatLeadsNowhereIsNotSaidToBeTheMounts) {
  const TempDir dir;
  EntryReport entry = url_entry(hub_snapshot(dir) + "/a", 3);
  entry.kind = EntryKind::kHubFile;
  fs::remove(dir / "blobs/1");
  SleptClock clock;
  const Report report = settled(report_of({entry}), clock);
  ASSERT_EQ(report.code(), ErrorCode::kNotVisible);
  EXPECT_NE(report.error->message.find("a link to `../../blobs/1`"), std::string::npos)
      << report.error->message;
  EXPECT_EQ(hint(*report.error).find("mount"), std::string::npos) << hint(*report.error);
}

TEST(Visibility, OfASnapshotThatWasThereOneFileIsLookedAtOrAllOfThem) {
  const TempDir dir;
  const std::string path = hub_snapshot(dir);
  fs::remove(dir / "blobs/2");
  for (const HitCheck hits : {HitCheck::kOneFile, HitCheck::kAll}) {
    SleptClock clock;
    DistributeOptions options;
    options.clock = &clock;
    options.hits = hits;
    const auto self = make_self_collective("n");
    const Report report = distribute(
        *self, [&] { return report_of({snapshot(path, EntryState::kHit, 2, 7)}); }, options);
    EXPECT_EQ(report.ok(), hits == HitCheck::kOneFile);
  }
}

TEST(DistributeOptions, SayWhatTheOptionsOfTheRunSay) {
  struct : Observer {
    void on_event(const Event& event) override {
      if (const auto* waiting = std::get_if<Waiting>(&event)) what = waiting->what;
    }
    std::string what;
  } observer;
  std::stop_source stop;
  Options options;
  options.rank_timeout = std::chrono::milliseconds(7'000);
  options.visible_timeout = std::chrono::milliseconds(8'000);
  options.visible_check = HitCheck::kAll;
  options.deadline = std::chrono::hours(1);
  options.stop = stop.get_token();
  options.stop_signal = [] { return SIGHUP; };
  options.observer = &observer;
  const DistributeOptions how = distribute_options(options, real_clock().now());
  EXPECT_EQ(how.attendance.vigil.patience, options.rank_timeout);
  EXPECT_EQ(how.visible_timeout, options.visible_timeout);
  EXPECT_EQ(how.hits, HitCheck::kAll);
  how.attendance.vigil.on_wait("rank 3", std::chrono::milliseconds(2'000));
  EXPECT_EQ(observer.what, "rank 3");
  EXPECT_EQ(how.attendance.vigil.signal(), 0);
  EXPECT_FALSE(how.attendance.must_stop());
  stop.request_stop();
  EXPECT_EQ(how.attendance.vigil.signal(), SIGHUP);
  EXPECT_EQ(how.attendance.must_stop()->code, interrupted(SIGHUP).code);
  const auto late = distribute_options(options, real_clock().now() - std::chrono::hours(2))
                        .attendance.must_stop();
  EXPECT_TRUE(late);
}

TEST(DistributeVisibility, AWaitEndsWhenTheRunHasToEndAndSaysForWhatItWas) {
  struct : Observer {
    void on_event(const Event& event) override {
      if (const auto* waiting = std::get_if<Waiting>(&event)) what = waiting->what;
    }
    std::string what;
  } observer;
  SleptClock clock;
  const Clock::TimePoint begin = clock.now();
  VisibilityCheck check;
  check.clock = &clock;
  check.observer = &observer;
  check.must_stop = [&]() -> std::optional<Error> {
    if (clock.now() - begin < std::chrono::seconds(5)) return std::nullopt;
    return interrupted(SIGTERM);
  };
  const auto unseen = unseen_here(report_of({url_entry("/nonexistent/fvprefetch", 5)}), check);
  ASSERT_TRUE(unseen);
  EXPECT_EQ(unseen->code, interrupted(SIGTERM).code);
  EXPECT_NE(observer.what.find("to see `/nonexistent/fvprefetch`"), std::string::npos)
      << observer.what;
}

// A carrier whose rank 0 speaks another version, or breaks down.
class ForeignCollective final : public Collective {
 public:
  explicit ForeignCollective(Result<std::string> wire) : wire_(std::move(wire)) {}
  int rank() const override { return 1; }
  int size() const override { return 2; }
  int leader() const override { return rank(); }
  int nodes() const override { return 2; }
  const std::string& node() const override { return node_; }
  Status quiet_wait() override { return {}; }
  Result<std::string> broadcast(std::string) override { return wire_; }
  Result<int> max(int value) override { return value; }
  Result<std::vector<std::string>> all_gather(const std::string& text) override {
    return std::vector<std::string>{"", text};
  }

 private:
  Result<std::string> wire_;
  std::string node_ = "n1";
};

class ForeignRankZero : public ::testing::TestWithParam<std::pair<std::string, std::string>> {};

TEST_P(ForeignRankZero, IsAnInternalError) {
  ForeignCollective ranks{GetParam().second};
  bool worked = false;
  const Report report = distribute(ranks,
                                   [&] {
                                     worked = true;
                                     return Report{};
                                   },
                                   {});
  EXPECT_EQ(report.code(), ErrorCode::kInternal);
  EXPECT_EQ(report.ranks, 2);
  EXPECT_FALSE(worked);  // this rank is not rank 0
}

std::string header(char version, char code, std::string body, int length) {
  std::string wire{version, 0, 0, 0, code, 0, 0, 0, static_cast<char>(length), 0, 0, 0, 0, 0, 0, 0};
  return wire + body;
}

INSTANTIATE_TEST_SUITE_P(Wires, ForeignRankZero,
                         ::testing::Values(std::pair{"NoBytes", std::string()},
                                           std::pair{"HalfAHeader", std::string("\1\0\0\0\0", 5)},
                                           std::pair{"AnotherVersion", header(2, 0, "{}", 2)},
                                           std::pair{"AnotherLength", header(1, 0, "{}", 3)},
                                           std::pair{"NoReport", header(1, 0, "{}", 2)},
                                           std::pair{"NoJson", header(1, 0, "\xff\xfe", 2)}),
                         [](const auto& row) { return row.param.first; });

TEST(DistributeBroken, ACarrierThatBreaksDownIsReportedAndNotThrown) {
  ForeignCollective ranks{fail(ErrorCode::kInternal, "MPI_Ibcast failed: peer lost")};
  const Report report = distribute(ranks, [] { return Report{}; }, {});
  ASSERT_TRUE(report.error);
  EXPECT_EQ(report.error->code, ErrorCode::kInternal);
  EXPECT_EQ(report.error->message, "MPI_Ibcast failed: peer lost");
}

}  // namespace
}  // namespace fvprefetch
