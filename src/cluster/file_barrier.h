// One rank does the work, every rank returns its report, without MPI: over files in the eval cache
// (prefetch/step). For processes of which a launcher has told rank and step, but which cannot meet
// in MPI (`srun --mpi=none`, a wrong PMI, a build without MPI).
//
// Every rank:
//   1. looks into the caches. All there: its own report; no rank writes or locks anything
//   2. rank 0 takes the step's lease, removes an older record, works, writes its report as the
//      record, lets the lease go. A failure is a record like any other
//   3. the others wait for the record. Where no process has held the lease for --lease-timeout, or
//      its holder is dead, one of them takes it and does what rank 0 would have done. A process
//      that a script has started may have been called on its rank alone: it waits 5 s for rank 0
//      A failure is kept until every rank has taken it, 5 s at most: `srun -K1` ends all ranks as
//      soon as one has failed, and each should end with the error's own code
//   4. whoever has the record looks whether it sees the files itself; if not (a cache of each
//      node's own), it works for itself
// Where no record can be written (a read-only cache, a full one) each rank works for itself, kept
// apart by the locks of the files alone.
//
// Whose record is it? One of another run must not be taken, and no two hosts' clocks are compared:
//   another job, step, requeue      has another name: <job>.<step>.<restart>
//   another manifest or options     has another name: 12 digits of a digest of both. (In the
//                                   record alone it would make two that run side by side in one
//                                   step wait for, and overwrite, each other)
//   a job id given again, another   the digest is also of what the launcher says of this start
//   cluster on the same cache       (cluster name, start time, srun's port)
//   the same command before, in     rank 0 removes the old record under its lease, before it
//   the same step (a loop)          works. Whoever comes even before that: a rank that has
//                                   returned a failure, or the result of a --refresh, has noted
//                                   which record that was, and does not take it twice. Of any other
//                                   success it would return what it has looked at in step 4
// What remains: a rank that joins a loop in its second round may be told the failure of the first.
//
// Where the caches lie on this host's own disk, each node has a meeting of its own, led by its
// first rank.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cluster/launcher.h"
#include "fvprefetch/manifest.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch {

struct FileBarrierOptions {
  std::chrono::milliseconds visible_timeout{60'000};
  Clock* clock = nullptr;  ///< null: the real one
  /// Called when this process, though not the preferred one, begins to do the work. May be empty.
  std::function<void()> on_take_over;
  /// Empty: prefetch(). The options are this rank's, with an observer of the barrier's.
  std::function<Report(const Manifest&, const Options&)> work;
};

/// The manifest on the launcher's standard input, of which each process has a copy or a share, or
/// none: rank 0 calls `read` and leaves the text for the others, which wait for it. The text, and
/// from whom it came. Blocks; `options` say when to stop and whom to tell of the wait.
[[nodiscard]] Result<std::string> manifest_in_step(
    const Launch& launch, const Options& options, const std::function<Result<std::string>()>& read);

/// Of a failure that each process has met by itself before it came to prefetch_in_step(): waits
/// until all have, 5 s at most, so that none is ended by the launcher before it can tell its code.
void fail_together(const Launch& launch, const Options& options);

/// This rank cannot use MPI, for the others that wait for it in MPI_Init. Best effort.
void note_without_mpi(const Launch& launch, const Options& options, const std::string& why);
/// What ranks of the step have noted so.
[[nodiscard]] std::vector<std::string> notes_without_mpi(const Launch& launch,
                                                         const Options& options);

struct StepResult {
  Report report;
  bool shared = false;  ///< it is another rank's, which has told of it
};

/// Whether the ranks of `launch` can meet over files at all.
[[nodiscard]] bool has_file_barrier(const Launch& launch);

/// Blocks until the step has a result. `launch` must have a file barrier.
[[nodiscard]] StepResult prefetch_in_step(const Manifest& manifest, const Options& options,
                                          const Launch& launch, const FileBarrierOptions& how = {});

}  // namespace fvprefetch
