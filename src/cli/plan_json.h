// What `plan --json` and `status --json` print.
//
// {"schema": 1, "command", "status", "exit_code", "error", "entries": [{"name", "kind", "state",
// "source", "path", "commit", "holder", "bytes_total", "bytes_missing", "bytes_partial", "error",
// "files": [{"path", "url", "size", "present", "digest_rule"}]}], "totals"}. Version rule as for
// the report: "schema" changes when a field changes its meaning or goes away; new fields do not.
#pragma once

#include <string>
#include <string_view>

#include "fvprefetch/plan.h"

namespace fvprefetch::cli {

/// One JSON document, no newline at the end. `command`: "plan" or "status".
[[nodiscard]] std::string plan_to_json(const Plan& plan, std::string_view command);

}  // namespace fvprefetch::cli
