// stdout of `doctor` as a table for people. Pure.
#pragma once

#include <string>

#include "cli/diagnosis_json.h"
#include "cluster/diagnose.h"

namespace fvprefetch::cli {

/// Nodes that say the same share a table. Ends with a newline.
[[nodiscard]] std::string diagnosis_text(const Diagnosis& diagnosis, const Start& start);

}  // namespace fvprefetch::cli
