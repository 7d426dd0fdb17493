// The commands: from an argument list to an exit code.
#pragma once

#include <string>
#include <vector>

namespace fvprefetch::cli {

/// Runs the program. `arguments` without the program's name. The result is the exit code, the same
/// on every rank of an MPI job.
[[nodiscard]] int run(const std::vector<std::string>& arguments);

}  // namespace fvprefetch::cli
