// Collective over MPI, on a duplicated communicator with MPI_ERRORS_RETURN. Needs
// MPI_THREAD_FUNNELED and the main thread. Waiting is always a non-blocking collective that is
// tested between sleeps which grow to 50 ms: a blocking barrier burns a core.
#pragma once

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "cluster/collective.h"

namespace fvprefetch::mpi {

/// Longest piece of a broadcast. MPI's counts are int, and large single messages hit limits of
/// their own in MPI libraries.
inline constexpr std::size_t kBroadcastPiece = std::size_t{64} << 20U;

struct MpiOptions {
  std::string greeting;               ///< of this rank, for Collective::greetings()
  std::chrono::milliseconds limit{};  ///< longest wait for a rank to come; zero: no limit
  std::size_t broadcast_piece = kBroadcastPiece;  ///< bytes
};

/// Collective over `comm`: duplicates it, exchanges node names and greetings. kLauncher when MPI is
/// not usable (not initialised, finalized, or not from this thread), kUsage when `comm` is null or
/// an intercommunicator, kNetwork (kPeerLost) when a rank does not come within the limit. A rank
/// that fails before the duplication cannot tell the others.
/// The duplicate is freed with the Collective, unless MPI was finalized before or a call failed:
/// then what MPI may still write to is kept for the life of the process.
[[nodiscard]] Result<std::unique_ptr<Collective>> make_mpi_collective(
    MPI_Comm comm, const MpiOptions& options = {});

}  // namespace fvprefetch::mpi
