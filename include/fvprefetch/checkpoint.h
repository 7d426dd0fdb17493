// FastVideo's `ensure_checkpoint` for one process: from a source to a path that can be opened.
//
// The contract is fastvideo.eval.models: an existing path is returned as it is; an http(s) URL
// becomes <eval cache>/models/<name>; a Hub repo id becomes the file, or the snapshot folder, in
// the standard Hub cache. In an MPI program use mpi::ensure_checkpoint (mpi.h).
#pragma once

#include <string>

#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch {

/// The local path of a checkpoint; fetches it when it is missing. Blocks; any thread. Errors: those
/// of the table that a single entry can have (kNotFound, kAccess, kNetwork, kIntegrity, ...).
[[nodiscard]] Result<std::string> ensure_checkpoint(const std::string& name,
                                                    const std::string& source,
                                                    const std::string& filename = {},
                                                    const Options& options = {});

/// The eval cache: FASTVIDEO_EVAL_CACHE, else <FASTVIDEO_CACHE_ROOT>/eval, whose default is
/// ${XDG_CACHE_HOME:-~/.cache}/fastvideo. Does not create it.
[[nodiscard]] std::string get_cache_dir(const Options& options = {});

}  // namespace fvprefetch
