// Whether the caches are the nodes' common ones or each node's own, found out and not asked: and
// where they are a node's own, they are filled over MPI from rank 0's, not by another download.
//
// Protocol, the same calls on every rank; nothing at all on a single node:
//   1. broadcast: rank 0's wish and the ids of its receipts (no bytes: nothing to find out)
//   2. each leader looks for these ids in the caches that it sees; max() of whether one has caches
//      apart from rank 0's
//   3. if so, staging (cluster/stage.h) into the caches themselves, to the nodes that are apart
// Under Scope::kAuto a node is apart that does not see an id in a directory of a file system of its
// own, like a local disk. What is not seen on a network file system may yet come: that is what the
// visibility check waits for.
#pragma once

#include <functional>

#include "cluster/collective.h"
#include "cluster/stage.h"
#include "fvprefetch/prefetch.h"
#include "fvprefetch/report.h"

namespace fvprefetch {

/// Collective. Only rank 0's manifest and options are looked at, when `report` is a success.
/// Returns the report; with the first node's error when one that is apart cannot be filled, since
/// it has no other copy. Never throws.
[[nodiscard]] Report fill_own_caches(Collective& ranks, Report report,
                                     const std::function<const Manifest&()>& manifest,
                                     const Options& options, StageOptions how);

}  // namespace fvprefetch
