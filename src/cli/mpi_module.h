// Finds and loads the command's MPI module (mpi/module.h).
#pragma once

#include <string>

#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"
#include "mpi/module.h"

namespace fvprefetch::cli {

/// The directory of this executable; "" when the system does not say.
[[nodiscard]] std::string executable_directory();

/// $FVPREFETCH_MPI_MODULE when that is set; else the first that exists of `directory`,
/// ../lib/fvprefetch and ../lib*/fvprefetch. kLauncher names the places when there is none.
[[nodiscard]] Result<std::string> find_mpi_module(const EnvironmentLookup& env,
                                                  const std::string& directory);

/// Loads `path`, for the life of the process: no MPI library bears being unloaded. kLauncher when
/// it cannot be loaded (no libmpi here, say) or was built for another fvprefetch.
[[nodiscard]] Result<const MpiModule*> load_mpi_module(const std::string& path);

}  // namespace fvprefetch::cli
