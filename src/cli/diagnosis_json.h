// What `doctor --json` prints.
//
// {"schema": 1, "command": "doctor", "status", "exit_code", "error", "launcher": {"name", "mode":
// "alone"|"mpi"|"lock_only", "ranks", "mpi_library"}, "nodes": [what prefetch/examine_json.cpp
// says], "locks": [{"role", "same_as", "directory", "between": "nodes"|"processes"|null, "parties",
// "blind", "not_run", "primitives": [{"name", "verdict", "detail", "slowest_try_ms"}],
// "new_name": {"looked_afresh_ms", "looked_again_ms", "waited_for_ms"}, "auto_relies_on"}],
// "findings"}. Version rule as for the report: "schema" changes when a field changes its meaning or
// goes away; new fields do not.
#pragma once

#include <string>

#include "cluster/diagnose.h"
#include "cluster/launcher.h"

namespace fvprefetch::cli {

/// How the job was started, as far as `doctor` tells of it.
struct Start {
  Launch launch;
  std::string mpi_library;  ///< "" when none was loaded
};

/// One JSON document, no newline at the end.
[[nodiscard]] std::string diagnosis_to_json(const Diagnosis& diagnosis, const Start& start);

}  // namespace fvprefetch::cli
