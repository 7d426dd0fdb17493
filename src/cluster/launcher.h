// May this process call MPI_Init? Decided from the environment and from who started it
// (cluster/starter), before MPI is even loaded:
// under `srun --mpi=none` Open MPI 4 ends the process inside MPI_Init, Open MPI 5 makes every
// process rank 0 of 1, and a process without a launcher needs no MPI at all. Pure.
//
// The rules, and the launchers' variables that they rest on, are in launcher.cpp.
#pragma once

#include <optional>
#include <string>

#include "cluster/starter.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch {

enum class MpiWish { kAuto, kOn, kOff };

/// Which process managers an MPI understands: Open MPI PMIx only, MPICH and what derives from it
/// (Intel MPI, Cray MPICH, MVAPICH) PMI as well.
enum class MpiFamily { kOther, kOpenMpi, kMpich };

/// The MPI that this build's module was made with; kOther when there is none.
[[nodiscard]] MpiFamily built_mpi_family();

struct Launch {
  enum class Mode {
    kAlone,    ///< one process, or MPI switched off and nobody else known of
    kMpi,      ///< load MPI and call MPI_Init
    kLockOnly  ///< several processes, but no MPI that can start: the file lock alone
  };
  Mode mode = Mode::kAlone;
  std::string launcher = "none";  ///< "slurm", "openmpi", "hydra", "pals", "flux", "pmix", "none"
  std::optional<int> rank;        ///< as the launcher tells it
  std::optional<int> size;        ///< as the launcher tells it; not known to "pmix"
  std::optional<int> nodes;       ///< as the launcher tells it
  std::optional<int> local_rank;  ///< among the processes of this node, as the launcher tells it
  /// What this start of processes is called, so that they find each other in a shared cache:
  /// "<job>.<step>.<restart>" under Slurm. Empty when the launcher tells nothing of that kind.
  std::string run;
  /// What differs when such a name is given again: as the launcher tells it, for no one to read.
  std::string run_traits;
  Starter starter;  ///< kLauncher, too, where no launcher is known of
  /// Why MPI cannot start although it would be used, and what to do, as one line for people.
  /// Empty when MPI starts, is not needed, or was not wished for (kOff).
  std::string advice;
  /// Why MPI is not used although it could be: a line for people who ask (--verbose). Else empty.
  std::string remark;

  [[nodiscard]] bool by_launcher() const { return starter.kind == Starter::Kind::kLauncher; }
};

/// MPI is used when the launcher tells of several processes (or of an unknown number) and has
/// started this one itself, and for MpiWish::kOn by any but one below an MPI program. With kOn any
/// mode but kMpi means that the wish cannot be met, and `advice` says why. Pure.
/// `mpi_available`: this build has MPI. `family`: of that MPI.
[[nodiscard]] Launch decide_launch(const EnvironmentLookup& env, MpiWish wish, bool mpi_available,
                                   MpiFamily family = built_mpi_family(),
                                   const Starter& starter = {});

/// The same of this process, with who has started it.
[[nodiscard]] Launch launch_of_this_process(const EnvironmentLookup& env, MpiWish wish,
                                            bool mpi_available);

/// After MPI_Init: a line for people when MPI sees fewer ranks than the launcher started (every
/// process is rank 0 of 1), or one where nobody started any, else nullopt. More ranks are fine: a
/// heterogeneous Slurm job tells each component only its own size.
[[nodiscard]] std::optional<std::string> size_mismatch(const Launch& launch, int mpi_size);

/// The same where nothing tells: MPI sees one process, and the launcher has not said how many it
/// started. Rank 0 of a wrong pair looks like this, and so does one that is alone.
[[nodiscard]] bool may_have_others(const Launch& launch, int mpi_size);

}  // namespace fvprefetch
