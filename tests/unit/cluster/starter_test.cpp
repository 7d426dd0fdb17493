// The table of process trees: who started this process, as /proc shows it.
#include "cluster/starter.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace fvprefetch {
namespace {

using Kind = Starter::Kind;

constexpr const char* kRank = "SLURM_PROCID=2";

// One process, from the first of the host down to this one, which comes last.
struct Row {
  std::string command;
  std::vector<std::string> arguments = {};
  std::optional<std::vector<std::string>> environment = std::vector<std::string>{"A=b", kRank};
  std::vector<std::string> mapped = {};
  bool other_user = false;
  bool hidden = false;
};

class Table final : public Processes {
 public:
  explicit Table(std::vector<Row> rows, std::int64_t top = 1) : rows_(std::move(rows)), top_(top) {}

  std::int64_t self() const override { return pid_of(rows_.size() - 1); }
  std::optional<ProcessInfo> info(std::int64_t pid) const override {
    const Row* const row = find(pid);
    if (row == nullptr || row->hidden) return std::nullopt;
    ProcessInfo info;
    info.pid = pid;
    info.parent = pid == pid_of(0) ? 0 : (pid == pid_of(1) ? pid_of(0) : pid - 1);
    info.started = 7;
    info.command = row->command;
    info.other_user = row->other_user;
    return info;
  }
  std::vector<std::string> arguments(std::int64_t pid) const override {
    return find(pid)->arguments;
  }
  std::optional<std::vector<std::string>> environment(std::int64_t pid) const override {
    return find(pid)->environment;
  }
  std::vector<std::string> mapped_files(std::int64_t pid) const override {
    return find(pid)->mapped;
  }

 private:
  std::int64_t pid_of(std::size_t row) const {
    return row == 0 ? top_ : 100 + static_cast<std::int64_t>(row);
  }
  const Row* find(std::int64_t pid) const {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (pid_of(i) == pid) return &rows_[i];
    }
    return nullptr;
  }

  std::vector<Row> rows_;
  std::int64_t top_;
};

const Row kInit{"systemd", {}, std::vector<std::string>{"A=b"}};
const Row kUs{"fvprefetch"};

Row daemon(std::string name) {
  return {std::move(name), {}, std::vector<std::string>{"A=b"}};
}
Row program(std::string name, std::vector<std::string> arguments = {},
            std::vector<std::string> mapped = {}) {
  return {std::move(name), std::move(arguments), std::vector<std::string>{kRank},
          std::move(mapped)};
}
Row hidden() {
  Row row;
  row.hidden = true;
  return row;
}

struct Tree {
  std::string name;
  std::vector<Row> rows;
  Kind kind;
  std::string starter = "";
};

const std::vector<Tree> kTrees{
    {"Slurmstepd", {kInit, daemon("slurmstepd"), kUs}, Kind::kLauncher},
    {"Orterun", {kInit, program("bash"), program("mpirun.openmpi"), kUs}, Kind::kLauncher},
    {"ScriptNamedLikeALauncher",
     {kInit, daemon("slurmstepd"), program("mpirun-eval.sh"), kUs},
     Kind::kScript,
     "mpirun-eval.sh (pid 102)"},
    {"Hydra", {kInit, daemon("hydra_pmi_proxy"), kUs}, Kind::kLauncher},
    {"DaemonOfAnotherUser",
     {kInit, {"launchd9", {}, std::nullopt, {}, /*other_user=*/true}, kUs},
     Kind::kLauncher},
    {"HiddenDaemon", {kInit, hidden(), kUs}, Kind::kLauncher},
    {"UnknownDaemonThatHasNoRank", {kInit, daemon("new_launcher"), kUs}, Kind::kLauncher},
    {"AnotherRankThanTheParents",
     {kInit, {"agent", {}, std::vector<std::string>{"SLURM_PROCID=0"}}, kUs},
     Kind::kLauncher},
    {"ContainerRuntime",
     {kInit, daemon("slurmstepd"), program("starter-suid"), program("appinit"), kUs},
     Kind::kLauncher},
    {"TimeoutAndTime",
     {kInit, daemon("slurmstepd"), program("time"), program("timeout"), kUs},
     Kind::kLauncher},
    {"ShellWithOneCommand",
     {kInit, daemon("slurmstepd"), program("sh", {"sh", "-c", "fvprefetch m.json > out"}), kUs},
     Kind::kLauncher},
    {"ShellWithOptionsBehindC",
     {kInit, daemon("slurmstepd"), program("bash", {"bash", "-c", "-e", "--", "fvprefetch a; b"}),
      kUs},
     Kind::kScript,
     "bash (pid 102)"},
    {"ShellWithAnExportedFunction",
     {kInit, daemon("slurmstepd"), program("bash", {"bash", "-c", "work"}), kUs},
     Kind::kScript,
     "bash (pid 102)"},
    {"Script",
     {kInit, daemon("slurmstepd"), program("bash", {"bash", "job.sh"}), kUs},
     Kind::kScript,
     "bash (pid 102)"},
    {"ShellWithTwoCommands",
     {kInit, daemon("slurmstepd"), program("bash", {"bash", "-c", "fvprefetch a; fvprefetch b"}),
      kUs},
     Kind::kScript,
     "bash (pid 102)"},
    {"PythonInAContainer",
     {kInit, daemon("slurmstepd"), program("apptainer"), program("python3"), kUs},
     Kind::kScript,
     "python3 (pid 103)"},
    {"UnreadableProgramOfThisUser",
     {kInit, daemon("slurmstepd"), {"ssh-agent", {}, std::nullopt}, kUs},
     Kind::kScript,
     "ssh-agent (pid 102)"},
    {"Orphan", {kInit, kUs}, Kind::kScript, "systemd (pid 1)"},
    {"MpiProgram",
     {kInit, daemon("slurmstepd"),
      program("python3", {}, {"/usr/bin/python3", "/usr/lib/libmpi.so.40.30.4"}), kUs},
     Kind::kMpiProgram,
     "python3 (pid 102)"},
    {"ScriptBelowAnMpiProgram",
     {kInit, daemon("orted"), program("eval", {}, {"/opt/mpich/lib/libmpich.so.12"}),
      program("bash", {"bash", "x.sh"}), kUs},
     Kind::kMpiProgram,
     "eval (pid 102)"},
    {"LauncherBelowAnMpiProgram",
     {kInit, daemon("slurmstepd"), program("python3", {}, {"/usr/lib/libmpi.so.40"}),
      program("mpirun"), kUs},
     Kind::kLauncher},
};

class StarterTable : public ::testing::TestWithParam<Tree> {};

TEST_P(StarterTable, IsFound) {
  const Starter found = find_starter(Table(GetParam().rows), kRank);
  EXPECT_EQ(found.kind, GetParam().kind);
  EXPECT_EQ(found.name, GetParam().starter);
}

INSTANTIATE_TEST_SUITE_P(Trees, StarterTable, ::testing::ValuesIn(kTrees),
                         [](const auto& row) { return row.param.name; });

TEST(Starter, FirstProcessOfAContainerIsStartedByTheLauncher) {
  EXPECT_EQ(find_starter(Table({kUs}), kRank).kind, Kind::kLauncher);
  const Starter script = find_starter(Table({program("bash", {"bash", "job.sh"}), kUs}), kRank);
  EXPECT_EQ(script.kind, Kind::kScript);
}

TEST(Starter, TheTaskIsTheLaunchersDirectChild) {
  const Starter direct = find_starter(Table({kInit, daemon("slurmstepd"), kUs}), kRank);
  EXPECT_EQ(direct.task.pid, 102);
  const Starter below = find_starter(
      Table({kInit, daemon("slurmstepd"), program("bash", {"bash", "x"}), program("python"), kUs}),
      kRank);
  EXPECT_EQ(below.task.pid, 102);
  EXPECT_EQ(below.task.command, "bash");
}

TEST(Starter, OneCommandIsToldFromAScript) {
  for (const char* one : {"fvprefetch m.json", "exec fvprefetch m.json 2>&1", "fvprefetch 'a;b'",
                          "A=b fvprefetch \"x&y\" > out", "fvprefetch ensure a\\;b",
                          "\"$FVP\" \"$M\"", "$FVP m.json"}) {
    EXPECT_TRUE(is_one_command(one, "fvprefetch")) << one;
  }
  for (const char* script :
       {"a; b", "a && b", "a | b", "a\nb", "X=$(a)", "echo `a`", "echo \"$(a)\"", "{ a; }",
        "for i in 1 2; do a; done", "if a", "(a)", "a &", "", "  ", ". ./fvprefetch.sh",
        "eval 'fvprefetch m'", "work", "source fvprefetch.sh"}) {
    EXPECT_FALSE(is_one_command(script, "fvprefetch")) << script;
  }
}

TEST(Starter, MpiLibrariesAreKnownByName) {
  for (const char* path : {"/usr/lib/libmpi.so.40", "/opt/lib/libmpich.so.12.2", "/x/libmpi.so",
                           "/opt/cray/libmpi_cray.so.12", "/x/libmpi_abi.so.1"}) {
    EXPECT_TRUE(is_mpi_library(path)) << path;
  }
  for (const char* path : {"/usr/lib/libc.so.6", "/x/libmpiwrapper.so", "/usr/lib/libmpv.so.2"}) {
    EXPECT_FALSE(is_mpi_library(path)) << path;
  }
}

TEST(Starter, OfThisProcessIsThePathUpToWhatDoesNotHaveTheRank) {
  const Starter found = find_starter(real_processes(), "FVP_TEST_NO_SUCH_RANK=1");
  EXPECT_EQ(found.kind, Kind::kLauncher);  // the parent's environment lacks it
  EXPECT_EQ(found.task.pid, real_processes().self());
  EXPECT_TRUE(has_standard_input_of_task(found));
}

}  // namespace
}  // namespace fvprefetch
