// The program's version, as --version prints it and ranks compare it.
#pragma once

namespace fvprefetch::cli {

/// "0.1.0"
[[nodiscard]] const char* program_version();

}  // namespace fvprefetch::cli
