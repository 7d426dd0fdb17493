// What `prune --json` prints.
//
// {"schema": 1, "command": "prune", "dry_run", "status", "exit_code", "error", "files": [{"path",
// "state", "bytes", "error"}], "warnings": [error], "totals"}; "state" is "removed", "orphan" (a
// dry run left it), "in_use", "young" or "failed". Version rule as for the report: "schema" changes
// when a field changes its meaning or goes away; new fields do not.
#pragma once

#include <string>

#include "fvprefetch/pruning.h"

namespace fvprefetch::cli {

/// One JSON document, no newline at the end.
[[nodiscard]] std::string pruning_to_json(const Pruning& pruning);

}  // namespace fvprefetch::cli
