// The exports of a job whose checkpoints may lie on its node's own disk: DIR/hub is a Hub cache and
// DIR/eval an eval cache, laid out like the shared ones.
//
// A variable names a whole cache, so the choice is made for each cache: DIR's when this node has
// every entry there that the manifest wants from it, complete; else the shared one, with all of
// them. A cache that the manifest wants nothing from stays the shared one.
#pragma once

#include <string>
#include <vector>

#include "cli/text.h"
#include "fvprefetch/manifest.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch::cli {

struct StagedVariables {
  Variables variables;
  std::vector<std::string> notices;  ///< which cache stays the shared one, and why
};

/// As job_variables(), with `options.stage` for DIR. Looks at this node's files; sends no request
/// and writes nothing.
[[nodiscard]] StagedVariables staged_variables(const Manifest& manifest,
                                               const EnvironmentLookup& env,
                                               const Options& options);

}  // namespace fvprefetch::cli
