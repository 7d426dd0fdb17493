// Collective over MPI, on a duplicated communicator with MPI_ERRORS_RETURN. Needs
// MPI_THREAD_FUNNELED and the main thread. Waiting is MPI_Ibarrier (or MPI_Ibcast) tested between
// sleeps that grow from 1 to 50 ms: a blocking barrier burns a core (cluster-facts B1).
#pragma once

#include <mpi.h>

#include <memory>

#include "cluster/collective.h"

namespace fvprefetch::mpi {

/// Collective over `comm`: duplicates it, exchanges node names. kLauncher when MPI is not usable
/// (not initialised, finalized, or no thread support for this call).
[[nodiscard]] Result<std::unique_ptr<Collective>> make_mpi_collective(MPI_Comm comm);

}  // namespace fvprefetch::mpi
