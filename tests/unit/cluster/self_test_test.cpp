// The protocol over threads, each a node of its own, on a real directory; where a lock must lie,
// hang or refuse, a probe of ours does.
#include "cluster/self_test.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "cluster/diagnose.h"
#include "support/temp_dir.h"
#include "support/thread_collective.h"
#include "support/tiny_disk.h"

namespace fvprefetch {
namespace {

namespace fs = std::filesystem;
using fvprefetch::testing::run_ranks;
using fvprefetch::testing::TempDir;
using std::chrono::milliseconds;
using Outcome = Attempt::Outcome;

SelfTestOptions quick() {
  SelfTestOptions options;
  options.visible_timeout = milliseconds(300);
  options.patience = milliseconds(2'000);
  return options;
}

struct Case {
  std::vector<std::string> nodes;
  std::string base;
  std::vector<std::string> other_bases;  // of rank 1 on, where they differ
  SelfTestOptions options = quick();
};

// Rank 0's answer; checks that all ranks have the same.
SelfTest run(const Case& the) {
  std::mutex mutex;
  std::vector<SelfTest> answers(the.nodes.size());
  run_ranks(the.nodes, [&](Collective& ranks) {
    const auto rank = static_cast<std::size_t>(ranks.rank());
    SelfTestPlace place{the.base, true};
    if (rank > 0 && rank <= the.other_bases.size()) place.base = the.other_bases[rank - 1];
    auto answer = self_test(ranks, place, the.options);
    ASSERT_TRUE(answer) << answer.error().message;
    const std::lock_guard guard(mutex);
    answers[rank] = *std::move(answer);
  });
  for (const SelfTest& other : answers) {
    EXPECT_EQ(other.parties, answers[0].parties);
    EXPECT_EQ(other.blind, answers[0].blind);
    EXPECT_EQ(other.not_run, answers[0].not_run);
    EXPECT_EQ(relied_on(other), relied_on(answers[0]));
  }
  return answers[0];
}

std::size_t entries(const std::string& directory) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

// The given primitive behaves as `take` says, the others as they do.
SelfTestOptions with_liar(Primitive liar, const std::function<Attempt()>& take) {
  class Liar final : public LockProbe {
   public:
    explicit Liar(std::function<Attempt()> take) : take_(std::move(take)) {}
    Attempt take() override { return take_(); }
    void let_go() override {}

   private:
    std::function<Attempt()> take_;
  };
  SelfTestOptions options = quick();
  options.make_probe = [=](Primitive primitive, const std::string& directory,
                           const std::string& who) -> std::unique_ptr<LockProbe> {
    if (primitive == liar) return std::make_unique<Liar>(take);
    return make_lock_probe(primitive, directory, who, milliseconds(2'000));
  };
  return options;
}

Verdict verdict(const SelfTest& test, Primitive primitive) {
  const TriedPrimitive* const tried = test.find(primitive);
  return tried != nullptr ? tried->verdict : Verdict::kUnclear;
}

TEST(SelfTest, FindsThatALocalDiskLocksBetweenTwoNodes) {
  const TempDir dir;
  const SelfTest test = run({{"a", "b"}, dir.path(), {}});
  EXPECT_EQ(test.not_run, "");
  EXPECT_TRUE(test.between_nodes);
  EXPECT_EQ(test.parties, (std::vector<std::string>{"a", "b"}));
  for (const Primitive primitive : kPrimitives) {
    EXPECT_EQ(verdict(test, primitive), Verdict::kExcludes) << name(primitive);
  }
  EXPECT_TRUE(test.shows_afresh);
  EXPECT_TRUE(test.shows_again);
  EXPECT_EQ(relied_on(test), "flock, and a lease made by link inside it");
  EXPECT_EQ(entries(dir.path()), 0U);
}

TEST(SelfTest, TakesOneRankOfEachNode) {
  const TempDir dir;
  const SelfTest test = run({{"a", "a", "b", "b", "c"}, dir.path(), {}});
  EXPECT_EQ(test.parties, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(verdict(test, Primitive::kMkdir), Verdict::kExcludes);
}

TEST(SelfTest, TakesTwoRanksOfASingleNode) {
  const TempDir dir;
  const SelfTest test = run({{"a", "a", "a"}, dir.path(), {}});
  EXPECT_FALSE(test.between_nodes);
  EXPECT_EQ(test.parties, (std::vector<std::string>{"a (process 1)", "a (process 2)"}));
  EXPECT_EQ(verdict(test, Primitive::kFlock), Verdict::kExcludes);
}

TEST(SelfTest, OfOneRankIsNotRun) {
  const TempDir dir;
  const SelfTest test = run({{"a"}, dir.path(), {}});
  EXPECT_NE(test.not_run, "");
  EXPECT_TRUE(test.tried.empty());
  EXPECT_EQ(relied_on(test), "");
  EXPECT_EQ(entries(dir.path()), 0U);
}

TEST(SelfTest, FindsALockThatSaysYesToEverybody) {
  const TempDir dir;
  const SelfTest test = run({{"a", "b"}, dir.path(), {}, with_liar(Primitive::kFlock, [] {
                               return Attempt{Outcome::kTaken, 0, {}};
                             })});
  EXPECT_EQ(verdict(test, Primitive::kFlock), Verdict::kDoesNotExclude);
  EXPECT_EQ(test.find(Primitive::kFlock)->detail, "b got it while a held it");
  EXPECT_EQ(verdict(test, Primitive::kLink), Verdict::kExcludes);
  EXPECT_EQ(relied_on(test), "a lease made by link alone");
  EXPECT_TRUE(any_lock_excludes(test));
}

TEST(SelfTest, FindsALockThatIsNeverLetGo) {
  const TempDir dir;
  std::atomic<int> tries{0};
  const SelfTest test = run({{"a", "b"}, dir.path(), {}, with_liar(Primitive::kFlock, [&] {
                               const bool is_first = tries++ == 0;
                               return Attempt{is_first ? Outcome::kTaken : Outcome::kBusy, 0, {}};
                             })});
  EXPECT_EQ(verdict(test, Primitive::kFlock), Verdict::kUnclear);
  EXPECT_NE(test.find(Primitive::kFlock)->detail.find("after it had been let go"),
            std::string::npos);
}

TEST(SelfTest, TellsWhyAPrimitiveIsRefusedAndTakesMkdirForLink) {
  const TempDir dir;
  const SelfTest test = run({{"a", "b"}, dir.path(), {}, with_liar(Primitive::kLink, [] {
                               return Attempt{Outcome::kRefused, EPERM, {}};
                             })});
  EXPECT_EQ(verdict(test, Primitive::kLink), Verdict::kRefused);
  EXPECT_NE(test.find(Primitive::kLink)->detail.find("errno 1"), std::string::npos);
  EXPECT_EQ(relied_on(test), "flock, and a lease made by mkdir inside it");
}

TEST(SelfTest, TellsOfACallThatHangs) {
  const TempDir dir;
  const SelfTest test = run({{"a", "b"}, dir.path(), {}, with_liar(Primitive::kFlock, [] {
                               return Attempt{Outcome::kHung, 0, milliseconds(2'000)};
                             })});
  EXPECT_EQ(verdict(test, Primitive::kFlock), Verdict::kHangs);
  EXPECT_EQ(test.find(Primitive::kFlock)->slowest_try, milliseconds(2'000));
}

TEST(SelfTest, GoesOnWithoutTheNodeThatSeesAnotherDirectory) {
  const TempDir shared;
  const TempDir own;
  const SelfTest test = run({{"a", "b", "c"}, shared.path(), {own.path(), shared.path()}});
  EXPECT_EQ(test.blind, std::vector<std::string>{"b"});
  EXPECT_EQ(test.parties, (std::vector<std::string>{"a", "c"}));
  EXPECT_EQ(verdict(test, Primitive::kFlock), Verdict::kExcludes);
  EXPECT_EQ(entries(own.path()), 0U);
}

TEST(SelfTest, IsNotRunWhereNobodyShares) {
  const TempDir one;
  const TempDir other;
  const SelfTest test = run({{"a", "b"}, one.path(), {other.path()}});
  EXPECT_EQ(test.not_run, "no other node sees the directory");
  EXPECT_EQ(entries(one.path()), 0U);
}

TEST(SelfTest, IsNotRunWhereNothingCanBeMade) {
  const TempDir dir;
  const std::string file = std::string(dir.path()) + "/file";
  std::ofstream(file) << "x";
  const SelfTest test = run({{"a", "b"}, file, {}});
  EXPECT_NE(test.not_run.find(file), std::string::npos) << test.not_run;
  EXPECT_TRUE(test.tried.empty());
}

TEST(SelfTest, TellsAFullDiskFromAMissingRight) {
  const fvprefetch::testing::TinyDisk disk;
  disk.take_all_inodes();
  const SelfTest test = run({{"a", "b"}, disk.dir().path(), {}});
  EXPECT_TRUE(test.tried.empty());
  ASSERT_TRUE(test.could_not_write);
  EXPECT_EQ(test.could_not_write->code, ErrorCode::kNoSpace) << test.not_run;
}

TEST(SelfTest, TellsAQuotaThatEndsAtAProbe) {
  for (const int number : {ENOSPC, EDQUOT}) {
    const TempDir dir;
    const SelfTest test = run({{"a", "b"}, dir.path(), {}, with_liar(Primitive::kLink, [number] {
                                 return Attempt{Outcome::kRefused, number, {}};
                               })});
    EXPECT_EQ(verdict(test, Primitive::kLink), Verdict::kRefused);
    ASSERT_TRUE(test.could_not_write);
    EXPECT_EQ(test.could_not_write->code, ErrorCode::kNoSpace);
  }
}

TEST(SelfTest, RemovesTheDirectoryThatItMadeTheProbeInWhenItIsEmpty) {
  const TempDir dir;
  const std::string base = std::string(dir.path()) + "/.fvprefetch";
  EXPECT_EQ(run({{"a", "b"}, base, {}}).not_run, "");
  EXPECT_FALSE(fs::exists(base));
  fs::create_directory(base);
  EXPECT_EQ(run({{"a", "b"}, base, {}}).not_run, "");
  EXPECT_TRUE(fs::exists(base));
}

TEST(SelfTest, RemovesWhatAnotherOneLeftADayAgo) {
  const TempDir dir;
  const fs::path base = std::string(dir.path());
  for (const char* name : {"doctor.00c0ffee", "doctor.00c0ffed", "doctor.mine"}) {
    fs::create_directories(base / name / "plain");
  }
  for (const char* name : {"doctor.00c0ffee", "doctor.mine"}) {
    fs::last_write_time(base / name, fs::file_time_type::clock::now() - std::chrono::hours(25));
  }
  (void)run({{"a", "b"}, base, {}});
  EXPECT_FALSE(fs::exists(base / "doctor.00c0ffee"));
  EXPECT_TRUE(fs::exists(base / "doctor.00c0ffed"));
  EXPECT_TRUE(fs::exists(base / "doctor.mine"));
}

// --- The whole ----------------------------------------------------------------------------------

class DiagnoseTest : public ::testing::TestWithParam<int> {
 protected:
  DiagnoseTest() {
    fs::create_directory(eval_);
    fs::create_directory(hub_);
    options_.environment = [this](std::string_view name) -> std::optional<std::string> {
      if (name == "FASTVIDEO_EVAL_CACHE") return eval_;
      if (name == "HF_HUB_CACHE") return hub_;
      if (name == "HOME") return std::string(dir_.path());
      if (name == "HF_TOKEN") return token_;
      if (name == "https_proxy") return "http://me:hidden-word@proxy:3128";
      return std::nullopt;
    };
    how_.self_test = quick();
  }

  // The same on every rank.
  Diagnosis run() {
    std::vector<std::string> nodes;
    for (int rank = 0; rank < GetParam(); ++rank) nodes.push_back("node" + std::to_string(rank));
    std::vector<Diagnosis> answers(nodes.size());
    run_ranks(nodes, [&](Collective& ranks) {
      answers[static_cast<std::size_t>(ranks.rank())] = diagnose(ranks, options_, how_);
    });
    for (const Diagnosis& other : answers) {
      EXPECT_EQ(other.code(), answers[0].code());
      EXPECT_EQ(other.examined.size(), nodes.size());
    }
    return answers[0];
  }

  TempDir dir_;
  std::string eval_ = std::string(dir_.path()) + "/eval";
  std::string hub_ = std::string(dir_.path()) + "/hub";
  std::optional<std::string> token_;
  Options options_;
  DiagnoseOptions how_;
};

TEST_P(DiagnoseTest, ExaminesEachNodeAndTestsAFileSystemOnce) {
  const Diagnosis found = run();
  EXPECT_FALSE(found.error) << describe(*found.error);
  for (const ExaminedNode& node : found.examined) {
    ASSERT_EQ(node.directories.size(), 2U);
    EXPECT_TRUE(node.directories[0].exists);
    EXPECT_EQ(node.directories[1].path, hub_);
    EXPECT_EQ(node.token_from, "");
  }
  ASSERT_EQ(found.tested.size(), 2U);
  EXPECT_EQ(found.tested[0].same_as, "");
  if (GetParam() > 1) {
    EXPECT_EQ(found.tested[1].same_as, "eval cache");
    EXPECT_EQ(verdict(found.tested[0].test, Primitive::kLink), Verdict::kExcludes);
  }
}

TEST_P(DiagnoseTest, TellsNoSecret) {
  token_ = "hf_secretsecret";
  const Diagnosis found = run();
  EXPECT_EQ(found.examined[0].token_from, "HF_TOKEN");
  ASSERT_EQ(found.examined[0].proxies.size(), 1U);
  EXPECT_EQ(found.examined[0].proxies[0].value, "http://proxy:3128");
  const std::string line = to_json_line(found.examined[0]);
  EXPECT_EQ(line.find("secretsecret"), std::string::npos);
  EXPECT_EQ(line.find("hidden-word"), std::string::npos);
}

TEST_P(DiagnoseTest, FailsAsOneWhereOneFileIsInTheWay) {
  fs::remove(eval_);
  std::ofstream(eval_) << "a file";
  const Diagnosis found = run();
  EXPECT_EQ(found.code(), ErrorCode::kUsage);
  ASSERT_FALSE(found.tested.empty());
  EXPECT_TRUE(found.tested[0].test.tried.empty());
  EXPECT_EQ(found.tested[1].same_as, "");
}

TEST_P(DiagnoseTest, ExaminesTheNearestDirectoryThatExists) {
  fs::remove(eval_);
  eval_ += "/deep/er";
  const Diagnosis found = run();
  EXPECT_FALSE(found.error);
  EXPECT_FALSE(found.examined[0].directories[0].exists);
  EXPECT_EQ(found.examined[0].directories[0].examined, fs::canonical(dir_.path()));
  EXPECT_EQ(entries(dir_.path()), 1U);  // the Hub cache
}

TEST_P(DiagnoseTest, TestsWhereALinkedLockDirectoryLeads) {
  const TempDir elsewhere;
  fs::create_directory_symlink(std::string(elsewhere.path()), hub_ + "/.locks");
  fs::create_directory_symlink("nowhere", eval_ + "/.fvprefetch");
  const Diagnosis found = run();
  EXPECT_EQ(found.code(), ErrorCode::kPermission);
  EXPECT_NE(found.error->message.find("nowhere"), std::string::npos);
  EXPECT_EQ(found.examined[0].directories[1].probe_base, hub_ + "/.locks");
}

TEST_P(DiagnoseTest, ComesBackFromItsJsonAsItWas) {
  const Diagnosis found = run();
  const std::string line = to_json_line(found.examined[0]);
  const auto again = examined_from_json(line);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(to_json_line(*again), line);
  EXPECT_FALSE(examined_from_json("{}"));
  EXPECT_FALSE(examined_from_json("x"));
}

INSTANTIATE_TEST_SUITE_P(Ranks, DiagnoseTest, ::testing::Values(1, 2, 3));

}  // namespace
}  // namespace fvprefetch
