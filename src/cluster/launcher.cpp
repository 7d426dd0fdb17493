// Who sets what, and what MPI_Init then does:
//
//   mpirun (Open MPI)    OMPI_COMM_WORLD_{RANK,SIZE}, PMIX_*. Inside a Slurm job its daemons are
//                        started by srun, so the SLURM_STEP_* of the daemons are there as well,
//                        and say nothing about our processes.
//   mpiexec (hydra)      PMI_{RANK,SIZE}, PMI_FD or PMI_PORT, and MPI_LOCALNRANKS, HYDI_CONTROL_FD,
//                        which Slurm's pmi2 does not set. SLURM_STEP_* and even PMIX_* as above.
//   flux                 FLUX_TASK_RANK, FLUX_JOB_SIZE; PMI_* by default, PMIX_* with its plugin.
//   srun                 SLURM_STEP_ID, SLURM_STEP_NUM_TASKS and _NODES, SLURM_PROCID.
//   SLURM_MPI_TYPE is the
//                        plugin in use; --mpi=none, the default of a site that sets none, takes it
//                        away. pmix adds PMIX_*, pmi2 adds PMI_{FD,RANK,SIZE}, cray_shasta adds
//                        PMI_CONTROL_PORT and PALS_*.
//   pals (Cray mpiexec)  PALS_APINFO, PALS_RANKID, usually PMI_{RANK,SIZE}.
//   prun and others      PMIX_NAMESPACE, PMIX_RANK.
//   sbatch, salloc       SLURM_JOB_ID, SLURM_NTASKS, SLURM_PROCID=0, yet no step of our own: one
//                        process. SLURM_NTASKS must not be read, a batch script carries it too.
//
// What a start is called (Launch::run), for processes that meet over files:
//   srun, hydra in a step      SLURM_JOB_ID.SLURM_STEP_ID.SLURM_RESTART_COUNT
//   Open MPI's mpirun, pmix    PMIX_NAMESPACE, after SLURM_JOB_ID where there is one: mpirun makes
//                              it of a host's name and a pid, so that it comes again
//   flux, pals                 FLUX_JOB_ID, PALS_APID
//   hydra elsewhere            its PMI_* are the same in every start: the daemon of this node, as
//                              pid and start time, when all ranks are here; else nothing
//
// Open MPI 4 in a Slurm step without PMIx: the process ends inside MPI_Init ("appears to have been
// direct launched using srun"), before an error handler can be set. Every other mismatch leaves
// each process as rank 0 of 1, which size_mismatch() finds afterwards.
#include "cluster/launcher.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <string_view>

#ifndef FVPREFETCH_MPI_FAMILY  // set by src/mpi/CMakeLists.txt, which knows the MPI it has found
#define FVPREFETCH_MPI_FAMILY kOther
#endif

namespace fvprefetch {
namespace {

class Variables {
 public:
  explicit Variables(const EnvironmentLookup& lookup) : lookup_(lookup) {}

  [[nodiscard]] bool has(std::string_view name) const { return !text(name).empty(); }
  [[nodiscard]] std::string text(std::string_view name) const {
    return lookup_ ? lookup_(name).value_or("") : "";
  }
  template <typename Number = int>
  [[nodiscard]] std::optional<Number> number(std::string_view name) const {
    const std::string digits = text(name);
    Number value{};
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool whole = error == std::errc() && end == digits.data() + digits.size();
    return whole && value >= 0 ? std::optional(value) : std::nullopt;
  }

 private:
  const EnvironmentLookup& lookup_;
};

// What a launcher has told this process.
struct Told {
  std::string launcher = "none";
  std::optional<int> rank;
  std::optional<int> size;
  std::optional<int> nodes;
  std::optional<int> local_rank;
  std::optional<int> local_size;
  std::string run;
  std::string rank_variable;
  bool pmix = false;         // a PMIx server should be there
  bool pmi = false;          // a PMI-1 or PMI-2 server should be there
  bool in_step = false;      // Slurm's step variables are set, whoever started us
  std::string slurm_plugin;  // srun's --mpi

  [[nodiscard]] bool several() const { return launcher != "none" && (!size || *size > 1); }
};

// A batch script, an interactive step and the like carry ids from the top of the range; they are
// one shell each, whatever the job's size.
bool is_pseudo_step(std::uint64_t id) {
  return id >= 0xffff'fff0U;
}

bool has_pmix(const Variables& env) {
  constexpr std::array kSigns{"PMIX_NAMESPACE",   "PMIX_SERVER_URI2", "PMIX_SERVER_URI21",
                              "PMIX_SERVER_URI3", "PMIX_SERVER_URI4", "PMIX_SERVER_URI41"};
  for (const char* sign : kSigns) {
    if (env.has(sign)) return true;
  }
  return false;
}

bool has_pmi(const Variables& env) {
  return env.has("PMI_FD") || env.has("PMI_PORT") || env.has("PMI_CONTROL_PORT") ||
         env.has("PALS_APINFO");
}

// The servers of a Slurm step. The plugin's name decides, for PMIX_* may be left over from a
// launcher around this one; but a name alone, exported by hand, is no server.
void look_at_slurm_servers(const Variables& env, Told& told) {
  told.slurm_plugin = env.text("SLURM_MPI_TYPE");
  const std::string_view plugin = told.slurm_plugin;
  const bool open = plugin.empty();
  told.pmix = has_pmix(env) && (open || plugin.starts_with("pmix"));
  told.pmi = has_pmi(env) && (open || !(plugin.starts_with("pmix") || plugin == "none"));
}

// "<job>.<step>.<restart>"; empty outside a step.
std::string slurm_run(const Variables& env) {
  const std::string job = env.text("SLURM_JOB_ID");
  const std::string step = env.text("SLURM_STEP_ID");
  if (job.empty() || step.empty()) return {};
  const std::string restart = env.text("SLURM_RESTART_COUNT");
  return job + "." + step + "." + (restart.empty() ? "0" : restart);
}

std::string pmix_run(const Variables& env) {
  const std::string space = env.text("PMIX_NAMESPACE");
  const std::string job = env.text("SLURM_JOB_ID");
  return space.empty() || job.empty() ? space : job + "." + space;
}

std::string traits(const Variables& env) {
  std::string all;
  for (const char* name : {"SLURM_CLUSTER_NAME", "SLURM_JOB_START_TIME", "SLURM_STEP_LAUNCHER_PORT",
                           "SLURM_STEP_NUM_TASKS", "PBS_JOBID"}) {
    all += env.text(name) + "\n";
  }
  return all;
}

void told_by(Told& told, const Variables& env, const char* rank_variable) {
  told.rank_variable = rank_variable;
  told.rank = env.number(rank_variable);
}

Told look(const Variables& env) {
  Told told;
  told.pmix = has_pmix(env);
  told.pmi = has_pmi(env);
  told.in_step = env.has("SLURM_STEP_ID");

  const auto step = env.number<std::uint64_t>("SLURM_STEP_ID");
  const auto step_tasks = env.number("SLURM_STEP_NUM_TASKS");
  if (env.number("OMPI_COMM_WORLD_SIZE")) {
    told.launcher = "openmpi";
    told_by(told, env, "OMPI_COMM_WORLD_RANK");
    told.size = env.number("OMPI_COMM_WORLD_SIZE");
    told.local_rank = env.number("OMPI_COMM_WORLD_LOCAL_RANK");
    told.run = pmix_run(env);
  } else if (env.number("PMI_SIZE") && (env.has("MPI_LOCALNRANKS") || env.has("HYDI_CONTROL_FD"))) {
    told.launcher = "hydra";
    told_by(told, env, "PMI_RANK");
    told.size = env.number("PMI_SIZE");
    told.local_rank = env.number("MPI_LOCALRANKID");
    told.local_size = env.number("MPI_LOCALNRANKS");
    told.run = slurm_run(env);
    told.pmix = false;  // of the step that carries hydra's proxies, not ours
  } else if (env.number("FLUX_JOB_SIZE") && env.number("FLUX_TASK_RANK")) {
    told.launcher = "flux";
    told_by(told, env, "FLUX_TASK_RANK");
    told.size = env.number("FLUX_JOB_SIZE");
    told.local_rank = env.number("FLUX_TASK_LOCAL_ID");
    told.run = env.text("FLUX_JOB_ID");
  } else if (step && !is_pseudo_step(*step) && step_tasks) {
    told.launcher = "slurm";
    told_by(told, env, "SLURM_PROCID");
    told.size = step_tasks;
    told.nodes = env.number("SLURM_STEP_NUM_NODES");
    told.local_rank = env.number("SLURM_LOCALID");
    told.run = slurm_run(env);
    look_at_slurm_servers(env, told);
  } else if (step) {
    look_at_slurm_servers(env, told);  // a shell of its own; what matters is only MpiWish::kOn
  } else if (env.has("PALS_APINFO") || env.has("PALS_RANKID")) {
    told.launcher = "pals";
    told_by(told, env, "PALS_RANKID");
    told.size = env.number("PMI_SIZE");
    told.local_rank = env.number("PALS_LOCAL_RANKID");
    told.run = env.text("PALS_APID");
  } else if (env.number("PMI_SIZE") && env.number("PMI_RANK")) {
    told.launcher = "hydra";
    told_by(told, env, "PMI_RANK");
    told.size = env.number("PMI_SIZE");
  } else if (env.has("PMIX_NAMESPACE") && env.number("PMIX_RANK")) {
    told.launcher = "pmix";
    told_by(told, env, "PMIX_RANK");
    told.run = pmix_run(env);
  }
  return told;
}

std::string started(const Told& told, std::string_view by) {
  const std::string count = told.size ? std::to_string(*told.size) : "an unknown number of";
  return std::string(by) + " started " + count + (told.size == 1 ? " task" : " tasks");
}

std::string slurm_advice(const Told& told, MpiFamily family) {
  const bool open_mpi = family == MpiFamily::kOpenMpi;
  std::string cause =
      told.launcher == "slurm" ? started(told, "srun") : "this shell is a Slurm step";
  if (told.pmi && open_mpi) {
    cause += " with PMI" + (told.slurm_plugin.empty() ? "" : " (--mpi=" + told.slurm_plugin + ")") +
             ", which Open MPI does not speak";
  } else {
    cause += open_mpi ? " without a PMIx server" : " without a PMI or PMIx server";
    cause += " (--mpi=" + (told.slurm_plugin.empty() ? "none" : told.slurm_plugin) + ")";
  }
  return "MPI cannot start: " + cause + "; use `srun --mpi=" + (open_mpi ? "pmix" : "pmi2") +
         "` (`srun --mpi=list` shows what this site has) or `mpirun`";
}

// Why MPI_Init must not be called here, or would be of no use; empty when it may be called.
std::string obstacle(const Told& told, bool mpi_available, MpiFamily family) {
  if (!mpi_available) {
    return "MPI cannot start: this fvprefetch was built without MPI; use a build with "
           "-DFVPREFETCH_WITH_MPI=ON";
  }
  const bool open_mpi = family == MpiFamily::kOpenMpi;
  if (told.launcher == "openmpi") return {};
  if (told.launcher == "hydra" && open_mpi) {
    return "MPI cannot start: " + started(told, "another MPI's mpiexec") +
           " with PMI, which Open MPI does not speak; use Open MPI's `mpirun`";
  }
  if (open_mpi && told.in_step && !told.pmix) return slurm_advice(told, family);
  if (told.launcher == "slurm" && !told.pmix && !told.pmi) return slurm_advice(told, family);
  return {};
}

}  // namespace

MpiFamily built_mpi_family() {
  return MpiFamily::FVPREFETCH_MPI_FAMILY;
}

Launch decide_launch(const EnvironmentLookup& env, MpiWish wish, bool mpi_available,
                     MpiFamily family, const Starter& starter) {
  const Variables variables(env);
  const Told told = look(variables);
  Launch launch;
  launch.launcher = told.launcher;
  launch.rank = told.rank;
  launch.size = told.size;
  launch.nodes = told.nodes;
  launch.local_rank = told.local_rank;
  launch.run = told.run;
  if (launch.run.empty() && told.local_size && told.local_size == told.size && starter.daemon) {
    launch.run = told.launcher + "." + std::to_string(starter.daemon->pid) + "." +
                 std::to_string(starter.daemon->started);
  }
  launch.run_traits = traits(variables);
  launch.starter = starter;
  launch.mode = told.several() ? Launch::Mode::kLockOnly : Launch::Mode::kAlone;

  const bool wanted = wish == MpiWish::kOn || (wish == MpiWish::kAuto && told.several());
  if (!wanted) return launch;
  if (starter.kind == Starter::Kind::kMpiProgram) {
    launch.remark = "this process is below " + starter.name +
                    ", which runs MPI, and a second MPI_Init would end the job";
    if (wish == MpiWish::kOn) {
      launch.advice = "MPI cannot start: " + launch.remark;
    }
    return launch;
  }
  if (starter.kind == Starter::Kind::kScript && wish != MpiWish::kOn) {
    launch.remark = "MPI is not used, since " + starter.name +
                    " started this process, not the launcher itself: another program of the task "
                    "may need MPI; the ranks share one download by files in the cache";
    return launch;
  }
  launch.advice = obstacle(told, mpi_available, family);
  if (launch.advice.empty()) launch.mode = Launch::Mode::kMpi;
  return launch;
}

Launch launch_of_this_process(const EnvironmentLookup& env, MpiWish wish, bool mpi_available) {
  const Variables variables(env);
  const Told told = look(variables);
  Starter starter;
  if (!told.rank_variable.empty()) {
    starter = find_starter(real_processes(),
                           told.rank_variable + "=" + variables.text(told.rank_variable));
  }
  return decide_launch(env, wish, mpi_available, built_mpi_family(), starter);
}

std::optional<std::string> size_mismatch(const Launch& launch, int mpi_size) {
  if (launch.launcher == "none" && mpi_size == 1) {
    return "MPI sees one process, which no launcher started: start it with `srun --mpi=pmix` or "
           "`mpirun`";
  }
  const int least = launch.size.value_or(launch.rank.value_or(0) + 1);
  if (mpi_size >= least) return std::nullopt;
  return "MPI sees " + std::to_string(mpi_size) + (mpi_size == 1 ? " process" : " processes") +
         " where the launcher (" + launch.launcher + ") started " +
         (launch.size ? "" : "at least ") + std::to_string(least) +
         ": they do not speak the same PMI; use `srun --mpi=pmix` (`srun --mpi=list` shows what "
         "this site has) or the `mpirun` of the MPI that fvprefetch was built with";
}

bool may_have_others(const Launch& launch, int mpi_size) {
  return launch.launcher != "none" && !launch.size && mpi_size == 1;
}

}  // namespace fvprefetch
