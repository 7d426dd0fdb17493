#include "mpi/module.h"

#include <mpi.h>

#include <algorithm>
#include <string>

#include "base/try.h"
#include "mpi/mpi_collective.h"

namespace fvprefetch {
namespace {

bool initialized_here = false;  // only the main thread calls MPI

Result<std::unique_ptr<Collective>> open_world(const std::string& greeting) {
  return guard([&]() -> Result<std::unique_ptr<Collective>> {
    int initialized = 0;
    MPI_Initialized(&initialized);
    if (initialized == 0) {
      int provided = MPI_THREAD_SINGLE;
      if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        return fail(ErrorCode::kLauncher, "MPI_Init_thread failed");
      }
      initialized_here = true;
    }
    mpi::MpiOptions options;
    options.greeting = greeting;
    return mpi::make_mpi_collective(MPI_COMM_WORLD, options);
  });
}

void finalize() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (initialized_here && finalized == 0) MPI_Finalize();
  initialized_here = false;
}

void abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
}

std::string library() {
  std::string text(MPI_MAX_LIBRARY_VERSION_STRING, '\0');
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) != MPI_SUCCESS) return {};
  // MPICH adds lines about how it was configured, Open MPI parts of a sentence about its package.
  text.resize(static_cast<std::size_t>(length));
  text.resize(std::min({text.size(), text.find('\n'), text.find(',')}));
  std::replace(text.begin(), text.end(), '\t', ' ');
  return text;
}

constexpr MpiModule kModule{kMpiModuleVersion, &open_world, &finalize, &abort, &library};

}  // namespace
}  // namespace fvprefetch

extern "C" __attribute__((visibility("default"))) const fvprefetch::MpiModule*
fvprefetch_mpi_module() {
  return &fvprefetch::kModule;
}
