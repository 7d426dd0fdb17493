// Copies what rank 0 has to every node's own disk: the shared storage is read once by the job, not
// once by every node.
//
// Protocol, the same calls on every rank whatever happens:
//   1. await_work(), broadcast: rank 0's order, which is the cargo list or the reason why there is
//      none
//   2. leaders: each looks what it lacks; await_work()
//   3. leaders among themselves: all_gather of that. Nothing is lacking: nothing is read
//   4. leaders: the files that anybody lacks flow down the chain (cluster/chain.h), in the order of
//      the list. Each node writes them privately, hashes them on the way, and publishes by rename
//      those whose digests agree: small ones several at once, for the sake of the syncs
//   5. await_work(), all_gather of how each node fared
// A node whose disk fails does not leave: it goes on passing on, and uses the shared copies of what
// it could not take, unless the order says that this is everybody's failure.
//
// The stream is a sequence of records {u32 file, u32 kind, u64 length} and as many bytes; no record
// lies in two frames.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/clock.h"
#include "cluster/attended.h"
#include "cluster/chain.h"
#include "cluster/collective.h"
#include "fvprefetch/progress.h"
#include "fvprefetch/report.h"
#include "prefetch/cargo.h"

namespace fvprefetch {

/// What rank 0 wants done.
struct StageOrder {
  Cargo cargo;
  /// For the report. Empty: the caches themselves are filled, and there is no other copy for a node
  /// to use.
  std::string directory;
  bool required = false;  ///< a node that does not have all of it is everybody's failure
  int min_nodes = 0;      ///< so are fewer than so many nodes that have all of it
};

/// As `options` wish, of what `report` has; nullopt: they wish for none. To be called where the run
/// was.
[[nodiscard]] Result<std::optional<StageOrder>> stage_order(const Manifest& manifest,
                                                            const Options& options,
                                                            const Report& report);

struct StageOptions {
  bool takes = true;  ///< this leader's node; false: it has all of it, whatever it sees
  ChainOptions chain;
  Attendance attendance;         ///< its patience is the chain's, too
  Observer* observer = nullptr;  ///< rank 0's is told how far it is; may be null
};

/// The patience and the observer of `options`.
[[nodiscard]] StageOptions stage_options(const Options& options, const Attendance& attendance);

/// Collective. Rank 0's `order` is called when `report` is a success, only rank 0's, on a
/// second thread which may be left behind (run_attended()); nullopt: there is nothing to stage.
/// Returns `report` with what came of it: the same on every rank, but that EntryReport::path is a
/// path on the rank's own node. A report that is no success is returned as it is. Never throws.
[[nodiscard]] Report stage(Collective& ranks, Report report,
                           const std::function<Result<std::optional<StageOrder>>()>& order,
                           const StageOptions& options = {});

}  // namespace fvprefetch
