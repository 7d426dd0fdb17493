// The table of launchers: what each one puts into the environment, and whether MPI_Init may then be
// called. A row that says kMpi where MPI_Init would end the process is the worst bug of this file.
#include "cluster/launcher.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace fvprefetch {
namespace {

using Variables = std::map<std::string, std::string, std::less<>>;
using Mode = Launch::Mode;

EnvironmentLookup lookup(const Variables& variables) {
  return [variables](std::string_view name) -> std::optional<std::string> {
    const auto it = variables.find(name);
    return it == variables.end() ? std::nullopt : std::optional(it->second);
  };
}

Variables operator+(Variables left, const Variables& right) {
  for (const auto& [name, value] : right) left[name] = value;
  return left;
}

const Variables kNothing;
// What every process of a batch job has, also the batch script itself.
const Variables kBatch{{"SLURM_JOB_ID", "881"}, {"SLURM_NODELIST", "n[1-2]"},
                       {"SLURM_NTASKS", "4"},   {"SLURM_PROCID", "0"},
                       {"SLURM_LOCALID", "0"},  {"SLURM_NODEID", "0"}};
// Task 2 of `srun -n 4`, without any plugin.
const Variables kStep = kBatch + Variables{{"SLURM_STEP_ID", "0"},
                                           {"SLURM_STEP_NUM_TASKS", "4"},
                                           {"SLURM_PROCID", "2"},
                                           {"SLURM_NODEID", "1"}};
const Variables kOneTask =
    kBatch + Variables{{"SLURM_STEP_ID", "3"}, {"SLURM_STEP_NUM_TASKS", "1"}};
const Variables kPmix{{"PMIX_NAMESPACE", "slurm.pmix.881.0"},
                      {"PMIX_RANK", "2"},
                      {"PMIX_SERVER_URI3", "pmix-server;tcp4://127.0.0.1:9"}};
const Variables kPmi2{
    {"PMI_FD", "12"}, {"PMI_RANK", "2"}, {"PMI_SIZE", "4"}, {"PMI_JOBID", "881.0"}};
const Variables kHydra{{"PMI_FD", "7"},
                       {"PMI_RANK", "2"},
                       {"PMI_SIZE", "4"},
                       {"MPI_LOCALNRANKS", "4"},
                       {"MPI_LOCALRANKID", "2"}};
const Variables kMpirun =
    kPmix + Variables{{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "2"}};

Variables plugin(const std::string& name) {
  return {{"SLURM_MPI_TYPE", name}};
}

struct Row {
  std::string name;
  Variables variables;
  Mode open_mpi = Mode::kAlone;  ///< what a build with Open MPI does
  Mode mpich = Mode::kAlone;     ///< what a build with MPICH does
  std::string launcher = "none";
  int rank = -1;  ///< -1: not told
  int size = -1;
};

const std::vector<Row> kRows{
    {"NoLauncher", kNothing, Mode::kAlone, Mode::kAlone},
    {"BatchScript", kBatch, Mode::kAlone, Mode::kAlone},
    {"BatchScriptWithItsPseudoStep",
     kBatch + Variables{{"SLURM_STEP_ID", "4294967291"}, {"SLURM_STEP_NUM_TASKS", "4"}},
     Mode::kAlone, Mode::kAlone},
    {"InteractiveStepOfSalloc",
     kBatch + Variables{{"SLURM_STEP_ID", "4294967290"}, {"SLURM_STEP_NUM_TASKS", "1"}},
     Mode::kAlone, Mode::kAlone},
    // On the login node: no task of its own, but the size of what was allocated.
    {"SallocShell",
     Variables{{"SLURM_JOB_ID", "881"}, {"SLURM_NTASKS", "4"}, {"SLURM_NODELIST", "n[1-2]"}},
     Mode::kAlone, Mode::kAlone},
    {"SallocShellMpirun",
     Variables{{"SLURM_JOB_ID", "881"}, {"SLURM_NTASKS", "4"}, {"SLURM_NODELIST", "n[1-2]"}} +
         kMpirun,
     Mode::kMpi, Mode::kMpi, "openmpi", 2, 4},
    {"ArrayTask", kBatch + Variables{{"SLURM_ARRAY_TASK_ID", "17"}}, Mode::kAlone, Mode::kAlone},
    {"StepWithoutNumberOfTasks", kBatch + Variables{{"SLURM_STEP_ID", "0"}}, Mode::kAlone,
     Mode::kAlone},

    {"SrunMpiNone", kStep, Mode::kLockOnly, Mode::kLockOnly, "slurm", 2, 4},
    {"SrunMpiNoneInWords", kStep + plugin("none"), Mode::kLockOnly, Mode::kLockOnly, "slurm", 2, 4},
    {"SrunMpiNoneUnderLeftoverPmix", kStep + kPmix + plugin("none"), Mode::kLockOnly,
     Mode::kLockOnly, "slurm", 2, 4},
    {"SrunPmi2", kStep + kPmi2 + plugin("pmi2"), Mode::kLockOnly, Mode::kMpi, "slurm", 2, 4},
    {"SrunPmi2UnderLeftoverPmix", kStep + kPmi2 + kPmix + plugin("pmi2"), Mode::kLockOnly,
     Mode::kMpi, "slurm", 2, 4},
    {"SrunPmi2OfOldSlurm", kStep + kPmi2, Mode::kLockOnly, Mode::kMpi, "slurm", 2, 4},
    {"SrunPmix", kStep + kPmix + plugin("pmix"), Mode::kMpi, Mode::kMpi, "slurm", 2, 4},
    {"SrunPmixVersioned", kStep + kPmix + plugin("pmix_v4"), Mode::kMpi, Mode::kMpi, "slurm", 2, 4},
    {"SrunPmixOfOldSlurm", kStep + kPmix, Mode::kMpi, Mode::kMpi, "slurm", 2, 4},
    {"SrunPluginByNameOnly", kStep + plugin("pmix"), Mode::kLockOnly, Mode::kLockOnly, "slurm", 2,
     4},
    {"SrunCrayShasta",
     kStep + plugin("cray_shasta") +
         Variables{{"PALS_APINFO", "/var/spool/x"}, {"PMI_CONTROL_PORT", "21"}},
     Mode::kLockOnly, Mode::kMpi, "slurm", 2, 4},
    {"SrunOneTask", kOneTask, Mode::kAlone, Mode::kAlone, "slurm", 0, 1},
    {"SrunOneTaskPmix", kOneTask + kPmix + plugin("pmix"), Mode::kAlone, Mode::kAlone, "slurm", 0,
     1},

    {"Mpirun", kMpirun, Mode::kMpi, Mode::kMpi, "openmpi", 2, 4},
    {"MpirunOneProcess",
     kMpirun + Variables{{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}},
     Mode::kAlone, Mode::kAlone, "openmpi", 0, 1},
    {"MpirunInBatchScript", kBatch + kMpirun, Mode::kMpi, Mode::kMpi, "openmpi", 2, 4},
    {"MpirunWhoseDaemonsAreAStep",
     kStep + Variables{{"SLURM_STEP_NUM_TASKS", "1"}} + kMpirun + plugin("none"), Mode::kMpi,
     Mode::kMpi, "openmpi", 2, 4},

    {"MpirunOfOpenMpi5",
     Variables{{"OMPI_COMM_WORLD_SIZE", "4"},
               {"OMPI_COMM_WORLD_RANK", "2"},
               {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
               {"PRTE_LAUNCHED", "1"},
               {"PMIX_NAMESPACE", "prterun-n1-4242@1"},
               {"PMIX_RANK", "2"},
               {"PMIX_SERVER_URI41", "prterun-n1-4242@0.0;tcp4://127.0.0.1:9"}},
     Mode::kMpi, Mode::kMpi, "openmpi", 2, 4},
    {"PrunOfOpenMpi5",
     Variables{{"PMIX_NAMESPACE", "prte-n1-4242@2"},
               {"PMIX_RANK", "2"},
               {"PMIX_SERVER_URI41", "prte-n1-4242@0.0;tcp4://127.0.0.1:9"}},
     Mode::kMpi, Mode::kMpi, "pmix", 2, -1},

    {"Hydra", kHydra, Mode::kLockOnly, Mode::kMpi, "hydra", 2, 4},
    {"HydraInBatchScript", kBatch + kHydra, Mode::kLockOnly, Mode::kMpi, "hydra", 2, 4},
    {"HydraByItsControlFdAlone",
     Variables{{"PMI_FD", "7"}, {"PMI_RANK", "2"}, {"PMI_SIZE", "4"}, {"HYDI_CONTROL_FD", "9"}},
     Mode::kLockOnly, Mode::kMpi, "hydra", 2, 4},
    {"HydraOneProcess", kHydra + Variables{{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}, Mode::kAlone,
     Mode::kAlone, "hydra", 0, 1},
    {"HydraWithPort",
     Variables{{"PMI_PORT", "n1:4000"}, {"PMI_ID", "2"}, {"PMI_RANK", "2"}, {"PMI_SIZE", "4"}},
     Mode::kLockOnly, Mode::kMpi, "hydra", 2, 4},
    {"HydraWhoseProxiesAreAPmixStep", kStep + kPmix + plugin("pmix") + kHydra, Mode::kLockOnly,
     Mode::kMpi, "hydra", 2, 4},

    {"Pals",
     Variables{{"PALS_APINFO", "/x"}, {"PALS_RANKID", "2"}, {"PMI_RANK", "2"}, {"PMI_SIZE", "4"}},
     Mode::kMpi, Mode::kMpi, "pals", 2, 4},
    {"PalsUnderPbs",
     Variables{{"PBS_JOBID", "881.sdb"},
               {"PALS_APID", "3e2f-1"},
               {"PALS_RANKID", "2"},
               {"PALS_NODEID", "1"},
               {"PALS_LOCAL_RANKID", "0"},
               {"PMI_CONTROL_PORT", "21"},
               {"PMI_SIZE", "4"}},
     Mode::kMpi, Mode::kMpi, "pals", 2, 4},
    {"PalsThatTellsNoSize", Variables{{"PALS_APID", "3e2f-1"}, {"PALS_RANKID", "2"}}, Mode::kMpi,
     Mode::kMpi, "pals", 2, -1},
    {"FluxWithItsPmixPlugin",
     Variables{{"FLUX_TASK_RANK", "2"}, {"FLUX_JOB_SIZE", "4"}, {"FLUX_JOB_ID", "f123"}} + kPmix,
     Mode::kMpi, Mode::kMpi, "flux", 2, 4},
    {"FluxOneTask", Variables{{"FLUX_TASK_RANK", "0"}, {"FLUX_JOB_SIZE", "1"}, {"PMI_FD", "5"}},
     Mode::kAlone, Mode::kAlone, "flux", 0, 1},
    {"FluxBrokersStartedBySrun",
     kStep + plugin("none") + Variables{{"FLUX_TASK_RANK", "1"}, {"FLUX_JOB_SIZE", "2"}} + kPmix,
     Mode::kMpi, Mode::kMpi, "flux", 1, 2},
    {"Flux",
     Variables{{"FLUX_TASK_RANK", "2"},
               {"FLUX_JOB_SIZE", "4"},
               {"PMI_FD", "5"},
               {"PMI_RANK", "2"},
               {"PMI_SIZE", "4"}},
     Mode::kMpi, Mode::kMpi, "flux", 2, 4},
    {"FluxInsideASlurmStep",
     kStep + Variables{{"FLUX_TASK_RANK", "1"}, {"FLUX_JOB_SIZE", "2"}, {"PMI_FD", "5"}},
     Mode::kLockOnly, Mode::kMpi, "flux", 1, 2},
    {"PmixAlone", kPmix, Mode::kMpi, Mode::kMpi, "pmix", 2, -1},
    {"NumbersThatAreNone",
     Variables{{"OMPI_COMM_WORLD_SIZE", "4x"}, {"PMI_SIZE", ""}, {"PMI_RANK", "-1"}}, Mode::kAlone,
     Mode::kAlone},
};

class LauncherTable : public ::testing::TestWithParam<Row> {};

TEST_P(LauncherTable, OpenMpiStartsOnlyWhereItCan) {
  const Row& row = GetParam();
  const Launch launch =
      decide_launch(lookup(row.variables), MpiWish::kAuto, true, MpiFamily::kOpenMpi);
  EXPECT_EQ(launch.mode, row.open_mpi);
  EXPECT_EQ(launch.advice.empty(), launch.mode != Mode::kLockOnly) << launch.advice;
}

TEST_P(LauncherTable, MpichStartsOnlyWhereItCan) {
  const Row& row = GetParam();
  const Launch launch =
      decide_launch(lookup(row.variables), MpiWish::kAuto, true, MpiFamily::kMpich);
  EXPECT_EQ(launch.mode, row.mpich);
  EXPECT_EQ(launch.advice.empty(), launch.mode != Mode::kLockOnly) << launch.advice;
}

TEST_P(LauncherTable, TellsLauncherRankAndSize) {
  const Row& row = GetParam();
  const Launch launch = decide_launch(lookup(row.variables), MpiWish::kAuto, true);
  EXPECT_EQ(launch.launcher, row.launcher);
  EXPECT_EQ(launch.rank.value_or(-1), row.rank);
  EXPECT_EQ(launch.size.value_or(-1), row.size);
}

TEST_P(LauncherTable, ABuildWithoutMpiNeverStartsIt) {
  const Row& row = GetParam();
  const Launch launch = decide_launch(lookup(row.variables), MpiWish::kAuto, false);
  const bool several = row.launcher != "none" && row.size != 1;
  EXPECT_EQ(launch.mode, several ? Mode::kLockOnly : Mode::kAlone);
  EXPECT_EQ(launch.advice.empty(), !several);
}

TEST_P(LauncherTable, SwitchedOffMpiIsNeverStartedNorTalkedAbout) {
  const Row& row = GetParam();
  const Launch launch = decide_launch(lookup(row.variables), MpiWish::kOff, true);
  const bool several = row.launcher != "none" && row.size != 1;
  EXPECT_EQ(launch.mode, several ? Mode::kLockOnly : Mode::kAlone);
  EXPECT_EQ(launch.advice, "");
  EXPECT_EQ(launch.rank.value_or(-1), row.rank);
}

TEST_P(LauncherTable, RequiredMpiStartsOrSaysWhyNot) {
  const Row& row = GetParam();
  const Launch launch =
      decide_launch(lookup(row.variables), MpiWish::kOn, true, MpiFamily::kOpenMpi);
  EXPECT_EQ(launch.mode == Mode::kMpi, launch.advice.empty()) << launch.advice;
  EXPECT_EQ(launch.advice.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Launchers, LauncherTable, ::testing::ValuesIn(kRows),
                         [](const auto& row) { return row.param.name; });

TEST(Launcher, AStartIsCalledByWhatAllItsProcessesHaveInCommon) {
  const auto run = [](const Variables& variables) {
    return decide_launch(lookup(variables), MpiWish::kAuto, true).run;
  };
  EXPECT_EQ(run(kStep), "881.0.0");
  EXPECT_EQ(run(kStep + Variables{{"SLURM_RESTART_COUNT", "2"}}), "881.0.2");
  EXPECT_EQ(run(kStep + kPmi2 + plugin("pmi2")), "881.0.0");
  EXPECT_EQ(run(kMpirun), "slurm.pmix.881.0");
  EXPECT_EQ(run(kBatch + kMpirun), "881.slurm.pmix.881.0");
  EXPECT_EQ(run(kStep + kHydra), "881.0.0");
  EXPECT_EQ(run({{"FLUX_TASK_RANK", "2"}, {"FLUX_JOB_SIZE", "4"}, {"FLUX_JOB_ID", "f123"}}),
            "f123");
  EXPECT_EQ(run({{"PALS_RANKID", "2"}, {"PALS_APID", "a-b"}, {"PMI_SIZE", "4"}}), "a-b");
}

TEST(Launcher, AStartWithoutANameHasNone) {
  for (const Variables& variables : {kNothing, kBatch, kHydra, kBatch + kHydra}) {
    EXPECT_EQ(decide_launch(lookup(variables), MpiWish::kAuto, true).run, "");
  }
}

TEST(Launcher, ANameThatIsGivenAgainHasOtherTraits) {
  const auto traits = [](const Variables& variables) {
    return decide_launch(lookup(variables), MpiWish::kAuto, true).run_traits;
  };
  const std::string here = traits(kStep);
  for (const char* name :
       {"SLURM_CLUSTER_NAME", "SLURM_JOB_START_TIME", "SLURM_STEP_LAUNCHER_PORT"}) {
    EXPECT_NE(traits(kStep + Variables{{name, "1"}}), here) << name;
  }
  // What differs between the ranks of one start must not be in it.
  EXPECT_EQ(traits(kStep +
                   Variables{{"SLURM_PROCID", "3"}, {"SLURM_LOCALID", "1"}, {"SLURM_NODEID", "0"}}),
            here);
}

TEST(Launcher, TellsTheRankOnTheNode) {
  const auto local = [](const Variables& variables) {
    return decide_launch(lookup(variables), MpiWish::kAuto, true).local_rank.value_or(-1);
  };
  EXPECT_EQ(local(kStep + Variables{{"SLURM_LOCALID", "1"}}), 1);
  EXPECT_EQ(local(kMpirun + Variables{{"OMPI_COMM_WORLD_LOCAL_RANK", "3"}}), 3);
  EXPECT_EQ(local(kHydra), 2);
  EXPECT_EQ(local(kPmix), -1);
}

TEST(Launcher, RequiredMpiIsStartedByASingleProcessToo) {
  EXPECT_EQ(decide_launch(lookup(kNothing), MpiWish::kOn, true, MpiFamily::kOpenMpi).mode,
            Mode::kMpi);
  EXPECT_EQ(decide_launch(lookup(kBatch), MpiWish::kOn, true, MpiFamily::kOpenMpi).mode,
            Mode::kMpi);
}

TEST(Launcher, RequiredMpiIsNotStartedInAStepThatWouldEndTheProcess) {
  const Launch launch = decide_launch(lookup(kOneTask), MpiWish::kOn, true, MpiFamily::kOpenMpi);
  EXPECT_EQ(launch.mode, Mode::kAlone);
  EXPECT_NE(launch.advice.find("--mpi=pmix"), std::string::npos) << launch.advice;
}

TEST(Launcher, AdviceNamesTheCauseAndTheRemedy) {
  const auto advice = [](const Variables& variables, MpiFamily family) {
    return decide_launch(lookup(variables), MpiWish::kAuto, true, family).advice;
  };
  EXPECT_EQ(advice(kStep, MpiFamily::kOpenMpi),
            "MPI cannot start: srun started 4 tasks without a PMIx server (--mpi=none); use `srun "
            "--mpi=pmix` (`srun --mpi=list` shows what this site has) or `mpirun`");
  EXPECT_EQ(advice(kStep + kPmi2 + plugin("pmi2"), MpiFamily::kOpenMpi),
            "MPI cannot start: srun started 4 tasks with PMI (--mpi=pmi2), which Open MPI does not "
            "speak; use `srun --mpi=pmix` (`srun --mpi=list` shows what this site has) or "
            "`mpirun`");
  EXPECT_EQ(advice(kStep, MpiFamily::kMpich),
            "MPI cannot start: srun started 4 tasks without a PMI or PMIx server (--mpi=none); use "
            "`srun --mpi=pmi2` (`srun --mpi=list` shows what this site has) or `mpirun`");
  EXPECT_EQ(advice(kHydra, MpiFamily::kOpenMpi),
            "MPI cannot start: another MPI's mpiexec started 4 tasks with PMI, which Open MPI does "
            "not speak; use Open MPI's `mpirun`");
}

TEST(Launcher, FewerRanksThanTheLauncherStartedAreAMismatch) {
  const Launch launch = decide_launch(lookup(kStep + kPmix + plugin("pmix")), MpiWish::kAuto, true);
  const auto line = size_mismatch(launch, 1);
  ASSERT_TRUE(line);
  EXPECT_EQ(line->rfind("MPI sees 1 process where the launcher (slurm) started 4", 0), 0U) << *line;
  EXPECT_EQ(line->find('\n'), std::string::npos);
}

TEST(Launcher, EqualMoreOrUnknownSizesAreNoMismatch) {
  const Launch four = decide_launch(lookup(kMpirun), MpiWish::kAuto, true);
  EXPECT_FALSE(size_mismatch(four, 4));
  EXPECT_FALSE(size_mismatch(four, 6));  // components of a heterogeneous job
  const Variables first{{"PMIX_RANK", "0"}};
  EXPECT_FALSE(size_mismatch(decide_launch(lookup(kPmix + first), MpiWish::kAuto, true), 1));
}

TEST(Launcher, ARankThatMpiHasNotIsAMismatchWhateverTheSize) {
  const auto line = size_mismatch(decide_launch(lookup(kPmix), MpiWish::kAuto, true), 1);
  ASSERT_TRUE(line);
  EXPECT_EQ(line->rfind("MPI sees 1 process where the launcher (pmix) started at least 3", 0), 0U)
      << *line;
}

TEST(Launcher, OneProcessOfAnUnknownNumberMayHaveOthersBesideIt) {
  const Variables first{{"PMIX_RANK", "0"}};
  const Launch unknown = decide_launch(lookup(kPmix + first), MpiWish::kAuto, true);
  EXPECT_TRUE(may_have_others(unknown, 1));
  EXPECT_FALSE(may_have_others(unknown, 2));
  EXPECT_FALSE(may_have_others(decide_launch(lookup(kMpirun), MpiWish::kAuto, true), 4));
  EXPECT_FALSE(may_have_others(Launch{}, 1));
}

TEST(SizeMismatch, OneProcessThatNobodyStartedHasNoRanksToWorkWith) {
  const auto line = size_mismatch(Launch{}, 1);
  ASSERT_TRUE(line);
  EXPECT_NE(line->find("no launcher"), std::string::npos);
  EXPECT_FALSE(size_mismatch(Launch{}, 2));  // one that the table does not know
}

TEST(Launcher, HydraOnOneNodeIsNamedAfterItsDaemon) {
  Starter starter;
  EXPECT_EQ(decide_launch(lookup(kHydra), MpiWish::kOff, true, MpiFamily::kMpich, starter).run, "");
  starter.daemon = ProcessInfo{};
  starter.daemon->pid = 77;
  starter.daemon->started = 4242;
  EXPECT_EQ(decide_launch(lookup(kHydra), MpiWish::kOff, true, MpiFamily::kMpich, starter).run,
            "hydra.77.4242");
  const Variables elsewhere = kHydra + Variables{{"MPI_LOCALNRANKS", "2"}};
  EXPECT_EQ(decide_launch(lookup(elsewhere), MpiWish::kOff, true, MpiFamily::kMpich, starter).run,
            "");
}

TEST(Launcher, AScriptUsesMpiOnlyWhenToldToAndAnMpiProgramsChildNever) {
  Starter script;
  script.kind = Starter::Kind::kScript;
  script.name = "bash (pid 7)";
  const auto by_script = [&](MpiWish wish) {
    return decide_launch(lookup(kMpirun), wish, true, MpiFamily::kOpenMpi, script);
  };
  EXPECT_EQ(by_script(MpiWish::kAuto).mode, Mode::kLockOnly);
  EXPECT_NE(by_script(MpiWish::kAuto).remark.find("bash (pid 7)"), std::string::npos);
  EXPECT_EQ(by_script(MpiWish::kAuto).advice, "");
  EXPECT_EQ(by_script(MpiWish::kOn).mode, Mode::kMpi);
  Starter program = script;
  program.kind = Starter::Kind::kMpiProgram;
  for (const MpiWish wish : {MpiWish::kAuto, MpiWish::kOn}) {
    const Launch launch = decide_launch(lookup(kMpirun), wish, true, MpiFamily::kOpenMpi, program);
    EXPECT_EQ(launch.mode, Mode::kLockOnly);
    EXPECT_EQ(launch.advice.empty(), wish == MpiWish::kAuto);
  }
}

}  // namespace
}  // namespace fvprefetch
