// What `verify --json` prints.
//
// {"schema": 1, "command": "verify", "status", "exit_code", "error", "entries": [{"name", "kind",
// "state", "repaired", "optional", "source", "path", "commit", "listed_by", "error", "files":
// [{"path", "location", "state", "algorithm", "expected", "actual", "size", "actual_size",
// "note"}]}], "totals", "repair"}; "repair" is the report of the fetching, or null. Version rule as
// for the report: "schema" changes when a field changes its meaning or goes away; new fields do
// not.
#pragma once

#include <string>

#include "fvprefetch/verification.h"

namespace fvprefetch::cli {

/// One JSON document, no newline at the end.
[[nodiscard]] std::string verification_to_json(const Verification& verification);

}  // namespace fvprefetch::cli
