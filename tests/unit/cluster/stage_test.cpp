// Staging over threads: one thread is one rank, and each node has a directory of its own, which is
// the working directory of its threads (unshare(CLONE_FS)) and reached by /proc/thread-self/cwd.
#include "cluster/stage.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/digest.h"
#include "support/temp_dir.h"
#include "support/thread_collective.h"

namespace fvprefetch {
namespace {

namespace fs = std::filesystem;
using fvprefetch::testing::run_ranks;
using fvprefetch::testing::TempDir;

constexpr const char* kStage = "/proc/thread-self/cwd/stage";
const std::string kCommit(40, 'c');

std::string noise(std::size_t size, unsigned seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) {
    seed = seed * 1664525U + 1013904223U;
    byte = static_cast<char>(seed >> 24U);
  }
  return bytes;
}

template <typename T>
std::vector<T> of_kind(const std::vector<Event>& events) {
  std::vector<T> found;
  for (const Event& event : events) {
    if (const T* one = std::get_if<T>(&event)) found.push_back(*one);
  }
  return found;
}

class Staging : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<Entry> entries(3);
    entries[0].name = "w";
    entries[0].source = "http://127.0.0.1:1/w.pth";
    shared_.write("eval/models/w", url_);
    entries[1].name = "empty";
    entries[1].source = "http://127.0.0.1:1/empty";
    entries[1].size = 0;  // else an empty file is none
    shared_.write("eval/models/empty", "");
    entries[2].name = "m";
    entries[2].source = "org/m";
    add_blob("a/big.bin", big_, sha256_hex(big_), "../");
    add_blob("small.txt", small_, git_sha1_hex(small_), "");
    add_blob("copy.bin", big_, sha256_hex(big_), "");  // the same bytes under another name
    shared_.write("hub/models--org--m/refs/main", kCommit);
    manifest_ = Manifest{"test", std::move(entries)};
    options_.cache_dir = shared_ / "eval";
    options_.hf_cache_dir = shared_ / "hub";
    options_.offline = true;
    options_.environment = [](std::string_view) { return std::nullopt; };
    options_.stage = kStage;
    how_.chain.frame_bytes = std::size_t{8} << 10U;
    how_.chain.word_every = 2;
    how_.chain.patience = std::chrono::seconds(20);
  }

  void add_blob(const std::string& path, const std::string& bytes, const std::string& blob,
                const std::string& up) {
    const std::string repo = "hub/models--org--m/";
    shared_.write(repo + "blobs/" + blob, bytes);
    const fs::path pointer = shared_ / (repo + "snapshots/" + kCommit + "/" + path);
    fs::create_directories(pointer.parent_path());
    fs::create_symlink(up + "../../blobs/" + blob, pointer);
  }

  /// A run on ranks of these nodes; every rank's report.
  std::vector<Report> run(const std::vector<std::string>& nodes) {
    const Report shared = prefetch(manifest_, options_);
    EXPECT_TRUE(shared.ok()) << describe(shared.error.value_or(Error{}));
    std::vector<Report> reports(nodes.size());
    run_ranks(nodes, [&](Collective& ranks) {
      ASSERT_EQ(::unshare(CLONE_FS), 0);
      fs::create_directories(nodes_ / ranks.node());
      ASSERT_EQ(::chdir((nodes_ / ranks.node()).c_str()), 0);
      StageOptions how = how_;
      if (ranks.rank() == 0) how.observer = &told_;
      if (stop_on_ == ranks.rank()) how.attendance.must_stop = [] { return interrupted(SIGTERM); };
      reports[static_cast<std::size_t>(ranks.rank())] = stage(
          ranks, shared, [&] { return stage_order(manifest_, options_, shared); }, how);
    });
    return reports;
  }

  std::string node_file(const std::string& node, const std::string& path) const {
    return nodes_.read(node + "/stage/" + path);
  }
  /// All of it is on the node, and nothing else.
  void expect_whole(const std::string& node) const {
    EXPECT_TRUE(node_file(node, "eval/models/w") == url_) << node;
    EXPECT_EQ(node_file(node, "eval/models/empty"), "") << node;
    const std::string snapshot = "hub/models--org--m/snapshots/" + kCommit + "/";
    EXPECT_TRUE(node_file(node, snapshot + "a/big.bin") == big_) << node;
    EXPECT_TRUE(node_file(node, snapshot + "copy.bin") == big_) << node;
    EXPECT_EQ(node_file(node, snapshot + "small.txt"), small_) << node;
    EXPECT_EQ(node_file(node, "hub/models--org--m/refs/main"), kCommit) << node;
    // Links, relative: the folder may be moved.
    EXPECT_EQ(fs::read_symlink(nodes_ / (node + "/stage/" + snapshot + "a/big.bin")),
              "../../../blobs/" + sha256_hex(big_));
    expect_nothing_private(node);
  }
  void expect_nothing_private(const std::string& node) const {
    if (!fs::exists(nodes_ / node)) return;
    for (const std::string& file : nodes_.files(node)) {
      EXPECT_EQ(file.find("fvprefetch-part"), std::string::npos) << node << ": " << file;
    }
  }
  static void expect_same_end(const std::vector<Report>& reports) {
    for (const Report& report : reports) {
      EXPECT_EQ(report.code(), reports.front().code());
      EXPECT_EQ(report.error ? report.error->message : "",
                reports.front().error ? reports.front().error->message : "");
    }
  }

  const std::string url_ = noise(150'000, 1);
  const std::string big_ = noise(70'001, 2);
  const std::string small_ = "few words";
  TempDir shared_;
  TempDir nodes_;
  Manifest manifest_;
  Options options_;
  StageOptions how_;
  int stop_on_ = -1;
  struct : Observer {
    void on_event(const Event& event) override { events.push_back(event); }
    std::vector<Event> events;
  } told_;  // rank 0's
};

TEST_F(Staging, RankZeroTellsHowFarItIs) {
  (void)run({"a", "b"});
  const auto planned = of_kind<FetchPlanned>(told_.events);
  const auto arrived = of_kind<BytesArrived>(told_.events);
  ASSERT_EQ(planned.size(), 1U);
  EXPECT_EQ(planned[0].work, Work::kCopying);
  EXPECT_EQ(planned[0].files, 4U);  // two have the same bytes
  EXPECT_EQ(planned[0].bytes, url_.size() + big_.size() + small_.size());
  ASSERT_FALSE(arrived.empty());
  EXPECT_EQ(arrived.back().bytes_done, planned[0].bytes);
  EXPECT_EQ(arrived.back().bytes_total, planned[0].bytes);
}

TEST_F(Staging, GivesEveryNodeAllOfItAndEveryRankItsOwnPath) {
  const std::vector<std::vector<std::string>> jobs{
      {"a"}, {"a", "a"}, {"a", "b"}, {"a", "b", "b", "b"}, {"a", "b", "c", "a", "d"}};
  for (const auto& nodes : jobs) {
    SCOPED_TRACE(std::to_string(nodes.size()) + " ranks");
    fs::remove_all(nodes_.path());
    fs::create_directories(nodes_.path());
    const std::vector<Report> reports = run(nodes);
    for (const Report& report : reports) {
      EXPECT_TRUE(report.ok());
      EXPECT_EQ(report.entries[0].path, std::string(kStage) + "/eval/models/w");
      // A Hub path is resolved, and so is each node's own.
      const std::string& node = nodes[static_cast<std::size_t>(&report - reports.data())];
      EXPECT_EQ(report.entries[2].path,
                nodes_ / (node + "/stage/hub/models--org--m/snapshots/" + kCommit));
      for (const EntryReport& entry : report.entries) EXPECT_EQ(entry.state, EntryState::kStaged);
      ASSERT_TRUE(report.stage);
      const std::set<std::string> names(nodes.begin(), nodes.end());
      EXPECT_EQ(report.stage->nodes.size(), names.size());
      // Once, however many nodes there are; equal files once.
      EXPECT_EQ(report.stage->bytes_read, url_.size() + big_.size() + small_.size());
    }
    for (const std::string& node : nodes) expect_whole(node);
  }
}

TEST_F(Staging, WhatIsThereIsNotSentAgain) {
  (void)run({"a", "b", "c"});
  for (const Report& report : run({"a", "b", "c"})) {
    EXPECT_TRUE(report.ok());
    EXPECT_EQ(report.entries[0].state, EntryState::kStaged);
    EXPECT_EQ(report.stage->bytes_read, 0U);
  }
  // A file that is gone on one node goes to that node alone.
  fs::remove(nodes_ / "b/stage/eval/models/w");
  fs::remove(nodes_ / ("b/stage/hub/models--org--m/blobs/" + git_sha1_hex(small_)));
  for (const Report& report : run({"a", "b", "c"})) {
    EXPECT_EQ(report.stage->bytes_read, url_.size() + small_.size());
    EXPECT_EQ(report.stage->nodes[0].files, 0U);
    EXPECT_EQ(report.stage->nodes[1].files, 2U);
  }
  expect_whole("b");
}

TEST_F(Staging, AFileOfAnEarlierStagingThatChangedSinceIsReplaced) {
  (void)run({"a", "b"});
  std::ofstream(nodes_ / "b/stage/eval/models/w", std::ios::binary) << noise(url_.size(), 9);
  for (const Report& report : run({"a", "b"})) EXPECT_TRUE(report.ok());
  expect_whole("b");
}

// More than are published at once, and some that are left over at the end.
TEST_F(Staging, ManySmallFilesAllCome) {
  std::vector<std::string> contents;
  for (unsigned i = 0; i < 150; ++i) {
    contents.push_back(noise(100 + i, i));
    add_blob("many/" + std::to_string(i), contents.back(), sha256_hex(contents.back()), "../");
  }
  for (const Report& report : run({"a", "b"})) EXPECT_TRUE(report.ok());
  for (const std::string node : {"a", "b"}) {
    expect_whole(node);
    for (std::size_t i = 0; i < contents.size(); ++i) {
      const std::string path = "hub/models--org--m/snapshots/" + kCommit + "/many/";
      EXPECT_TRUE(node_file(node, path + std::to_string(i)) == contents[i]) << node << " " << i;
    }
  }
}

TEST_F(Staging, OfFilesThatArePublishedAtOnceOneThatCannotBeLeavesTheOthersWhole) {
  std::map<std::string, std::string> contents;  // by the name of the blob
  for (unsigned i = 0; i < 20; ++i) {
    const std::string bytes = noise(100, i);
    contents[sha256_hex(bytes)] = bytes;
    add_blob("many/" + std::to_string(i), bytes, sha256_hex(bytes), "../");
  }
  const std::string blobs = "stage/hub/models--org--m/blobs/";
  const std::string bad = sha256_hex(noise(100, 10));
  fs::create_directories(nodes_ / ("b/" + blobs + bad + "/in the way"));
  const std::vector<Report> reports = run({"a", "b"});
  expect_same_end(reports);
  expect_whole("a");
  const Report& report = reports[1];
  ASSERT_TRUE(report.stage->nodes[1].error);
  EXPECT_NE(describe(*report.stage->nodes[1].error).find(bad), std::string::npos);
  EXPECT_EQ(report.entries[0].state, EntryState::kStaged);  // came before
  EXPECT_EQ(report.entries[2].state, EntryState::kHit);
  expect_nothing_private("b");
  for (const auto& [blob, bytes] : contents) {
    if (blob == bad) continue;
    const std::string here = nodes_.read("b/" + blobs + blob);
    EXPECT_TRUE(here == bytes || here == "<missing>") << blob;
  }
}

TEST_F(Staging, WhatIsWholeWhenANodeFailsIsPublishedAllTheSame) {
  nodes_.write("b/stage/hub", "a file where a folder should be");
  const std::vector<Report> reports = run({"a", "b"});
  expect_same_end(reports);
  ASSERT_TRUE(reports[1].stage->nodes[1].error);
  EXPECT_EQ(reports[1].entries[0].state, EntryState::kStaged);
  EXPECT_EQ(reports[1].entries[2].state, EntryState::kHit);
  EXPECT_TRUE(node_file("b", "eval/models/w") == url_);
  expect_nothing_private("b");
}

TEST_F(Staging, ExistingPathsStayWhereTheyAre) {
  manifest_.entries[0].source = shared_.write("own/file", "mine");
  for (const Report& report : run({"a", "b"})) {
    EXPECT_TRUE(report.ok());
    EXPECT_EQ(report.entries[0].path, shared_ / "own/file");
    EXPECT_EQ(report.entries[0].state, EntryState::kHit);
    EXPECT_EQ(report.entries[1].state, EntryState::kStaged);
  }
}

// --- Failures: which node, in which phase, under which policy ------------------------------------

enum class Phase { kLook, kCreate, kPublish, kComplete };
struct Failure {
  std::string node;
  Phase phase;
};

class StagingFails : public Staging, public ::testing::WithParamInterface<Failure> {
 protected:
  /// What is in the way on the node.
  void break_node() const {
    const std::string stage = GetParam().node + "/stage";
    switch (GetParam().phase) {
      case Phase::kLook:
        nodes_.write(stage, "a file where the directory should be");
        break;
      case Phase::kCreate:
        nodes_.write(stage + "/eval/models", "a file where a folder should be");
        break;
      case Phase::kPublish:
        fs::create_directories(
            nodes_ / (stage + "/hub/models--org--m/blobs/" + sha256_hex(big_) + "/in the way"));
        break;
      case Phase::kComplete:
        fs::create_directories(nodes_ / (stage + "/hub/models--org--m/refs/main/in the way"));
        break;
    }
  }
};

TEST_P(StagingFails, ThatNodeUsesTheSharedCopyAndTheOthersTheirOwn) {
  break_node();
  const std::vector<std::string> nodes{"a", "b", "b", "c"};
  const std::vector<Report> reports = run(nodes);
  expect_same_end(reports);
  for (std::size_t rank = 0; rank < nodes.size(); ++rank) {
    const Report& report = reports[rank];
    EXPECT_TRUE(report.ok()) << describe(report.error.value_or(Error{}));
    for (const NodeReport& node : report.stage->nodes) {
      EXPECT_EQ(node.error.has_value(), node.node == GetParam().node) << node.node;
    }
    const bool failed = nodes[rank] == GetParam().node;
    EXPECT_EQ(report.entries[2].state, failed ? EntryState::kHit : EntryState::kStaged);
    EXPECT_TRUE(failed == report.entries[2].path.starts_with(shared_.path()));
  }
  for (const std::string& node : nodes) {
    if (node != GetParam().node) expect_whole(node);
    expect_nothing_private(node);
  }
}

TEST_P(StagingFails, RequiredItIsEverybodysFailure) {
  break_node();
  options_.stage_required = true;
  const std::vector<Report> reports = run({"a", "b", "b", "c"});
  expect_same_end(reports);
  EXPECT_FALSE(reports.front().ok());
  EXPECT_NE(describe(*reports.front().error).find("on node " + GetParam().node), std::string::npos)
      << describe(*reports.front().error);
  for (const std::string node : {"a", "b", "c"}) expect_nothing_private(node);
}

TEST_P(StagingFails, EnoughOtherNodesAreEnough) {
  break_node();
  for (const int least : {2, 3}) {
    options_.min_nodes = least;
    const std::vector<Report> reports = run({"a", "b", "c"});
    expect_same_end(reports);
    EXPECT_EQ(reports.front().ok(), least == 2);
  }
}

std::vector<Failure> every_failure() {
  std::vector<Failure> table;
  for (const std::string node : {"a", "b", "c"}) {
    for (const Phase phase : {Phase::kLook, Phase::kCreate, Phase::kPublish, Phase::kComplete}) {
      table.push_back({node, phase});
    }
  }
  return table;
}
std::string name_of(const ::testing::TestParamInfo<Failure>& row) {
  const std::vector<std::string> names{"look", "create", "publish", "complete"};
  return row.param.node + "_" + names[static_cast<std::size_t>(row.param.phase)];
}
INSTANTIATE_TEST_SUITE_P(Table, StagingFails, ::testing::ValuesIn(every_failure()), name_of);

TEST_F(Staging, ASharedCopyThatIsNotWhatItsDigestSaysReachesNoNodeAndFailsTheJob) {
  shared_.write("hub/models--org--m/blobs/" + sha256_hex(big_), noise(big_.size(), 3));
  const std::vector<Report> reports = run({"a", "b", "c"});
  expect_same_end(reports);
  EXPECT_EQ(reports.front().code(), ErrorCode::kIntegrity);
  for (const std::string node : {"a", "b", "c"}) {
    EXPECT_EQ(node_file(node, "hub/models--org--m/blobs/" + sha256_hex(big_)), "<missing>");
    EXPECT_TRUE(node_file(node, "eval/models/w") == url_);  // what is right is there
    expect_nothing_private(node);
  }
}

TEST_F(Staging, AnOptionalOneThatIsWrongIsAPartialSuccess) {
  shared_.write("hub/models--org--m/blobs/" + sha256_hex(big_), noise(big_.size(), 3));
  manifest_.entries[2].optional = true;
  const std::vector<Report> reports = run({"a", "b"});
  expect_same_end(reports);
  EXPECT_EQ(reports.front().code(), ErrorCode::kPartial);
  EXPECT_EQ(reports.front().entries[2].state, EntryState::kFailed);
}

TEST_F(Staging, ASignalOnAnyLeaderIsEverybodysEnd) {
  for (stop_on_ = 0; stop_on_ < 3; ++stop_on_) {
    fs::remove_all(nodes_.path());
    fs::create_directories(nodes_.path());
    const std::vector<Report> reports = run({"a", "b", "c"});
    expect_same_end(reports);
    EXPECT_EQ(exit_code(reports.front().code()), 128 + SIGTERM) << "rank " << stop_on_;
    for (const std::string node : {"a", "b", "c"}) expect_nothing_private(node);
  }
  // What came before it stays, and the next run goes on from there.
  stop_on_ = -1;
  for (const Report& report : run({"a", "b", "c"})) EXPECT_TRUE(report.ok());
  for (const std::string node : {"a", "b", "c"}) expect_whole(node);
}

TEST_F(Staging, ARunThatFailedIsNotStaged) {
  Report failed = failed_report(fail(ErrorCode::kNotFound, "no such thing").value());
  run_ranks({"a", "b"}, [&](Collective& ranks) {
    const Report report = stage(
        ranks, failed,
        []() -> Result<std::optional<StageOrder>> {
          ADD_FAILURE() << "asked";
          return std::nullopt;
        },
        how_);
    EXPECT_EQ(report.code(), ErrorCode::kNotFound);
  });
}

TEST_F(Staging, ARankZeroThatCannotSayWhatToStageIsEverybodysFailure) {
  const Report shared = prefetch(manifest_, options_);
  for (const bool throws : {false, true}) {
    std::mutex mutex;
    std::vector<Report> reports;
    run_ranks({"a", "a", "b"}, [&](Collective& ranks) {
      Report report = stage(
          ranks, shared,
          [&]() -> Result<std::optional<StageOrder>> {
            if (throws) throw std::runtime_error("no memory, say");
            return fail(ErrorCode::kPermission, "not allowed");
          },
          how_);
      const std::lock_guard lock(mutex);
      reports.push_back(std::move(report));
    });
    expect_same_end(reports);
    EXPECT_EQ(reports.front().code(), throws ? ErrorCode::kInternal : ErrorCode::kPermission);
  }
}

}  // namespace
}  // namespace fvprefetch
