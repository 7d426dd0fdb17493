// The collective API: one rank fetches, every rank of a communicator gets the same answer.
//
//   MPI_Init(&argc, &argv);
//   auto path = fvprefetch::mpi::ensure_checkpoint(MPI_COMM_WORLD, "raft", "sbalani/raft-things",
//                                                  "raft-things.pth");
//   if (!path) std::fprintf(stderr, "%s\n", fvprefetch::describe(path.error()).c_str());
//
// Collective: all functions here must be called by every rank of `comm`, in the same order. Only
// rank 0's manifest and options are used, but for these, which are each rank's own: rank_timeout,
// stop, stop_signal, deadline, observer. The communicator is duplicated, so that our traffic and
// our error handler never meet the caller's. MPI must be initialised (MPI_THREAD_FUNNELED is
// enough) and the call must come from the thread that may call MPI. Waiting ranks test an
// MPI_Ibarrier between sleeps: they use next to no CPU, however long rank 0 takes.
// Options::stop of any rank ends the run on all, within 5 s: the work is on a second thread, and a
// system call of it that does not return is left behind on that thread, which calls nothing of the
// caller's any more and may still publish the file that it is at. When rank 0 is lost, or any
// node's lowest rank while files are copied to the nodes, or a rank does not come, the others
// return kNetwork with the reason "peer_lost" after Options::rank_timeout without a heartbeat; the
// communicator that was passed cannot be used any more then, and MPI_Abort is what is left. Nothing
// here aborts, exits or prints.
#pragma once

#include <mpi.h>

#include <string>

#include "fvprefetch/checkpoint.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch::mpi {

/// Collective. Rank 0 runs fvprefetch::prefetch; the report reaches every rank by broadcast.
/// Blocks until all ranks have it. The same report, error and exit code on every rank.
[[nodiscard]] Report prefetch(MPI_Comm comm, const Manifest& manifest, const Options& options = {});

/// Collective. ensure_checkpoint for a whole job: the same path, or the same error, on every rank.
[[nodiscard]] Result<std::string> ensure_checkpoint(MPI_Comm comm, const std::string& name,
                                                    const std::string& source,
                                                    const std::string& filename = {},
                                                    const Options& options = {});

}  // namespace fvprefetch::mpi
