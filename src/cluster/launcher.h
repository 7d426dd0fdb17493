// May this process call MPI_Init? Decided from the environment alone, before MPI is even loaded:
// under `srun --mpi=none` Open MPI 4 ends the process inside MPI_Init, Open MPI 5 makes every
// process rank 0 of 1, and a process without a launcher needs no MPI at all. Pure.
//
// Evidence: cluster-facts.md B1 and B1b (which variables each launcher sets, what MPI_Init then
// does).
#pragma once

#include <optional>
#include <string>

#include "fvprefetch/prefetch.h"

namespace fvprefetch {

enum class MpiWish { kAuto, kOn, kOff };

struct Launch {
  enum class Mode {
    kAlone,    ///< one process, no launcher (also: MPI switched off)
    kMpi,      ///< load MPI and call MPI_Init
    kLockOnly  ///< several processes, but no MPI that can start: the file lock alone
  };
  Mode mode = Mode::kAlone;
  std::string launcher = "none";  ///< "slurm", "openmpi", "hydra", "pals", "flux", "pmix", "none"
  std::optional<int> rank;        ///< as the launcher tells it
  std::optional<int> size;
  /// kLockOnly: what is wrong and what to do, as one line for people. Else empty.
  std::string advice;
};

/// `mpi_available`: this build has MPI.
[[nodiscard]] Launch decide_launch(const EnvironmentLookup& env, MpiWish wish, bool mpi_available);

/// After MPI_Init: a line for people when MPI sees another size than the launcher tells (every
/// process is rank 0 of 1), nullopt when they agree.
[[nodiscard]] std::optional<std::string> size_mismatch(const Launch& launch, int mpi_size);

}  // namespace fvprefetch
