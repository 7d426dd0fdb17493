// The door between the command and MPI: the command has no MPI in it; it loads a module
// (fvprefetch-mpi.so, beside the executable or in ../lib/fvprefetch) when the launcher says that
// MPI can start. So the same binary runs on a login node without libmpi.
//
// This header is shared by both sides; it has no mpi.h.
#pragma once

#include <string>

#include "cluster/collective.h"

namespace fvprefetch {

/// The module and the command are built together: another number is refused.
inline constexpr int kMpiModuleVersion = 5;

struct MpiModule {
  int version;
  /// Calls MPI_Init_thread(FUNNELED) unless MPI runs already, and opens MPI_COMM_WORLD with this
  /// rank's greeting. Collective. MPI_Init itself cannot be told to give up.
  Result<std::unique_ptr<Collective>> (*open)(const std::string& greeting);
  /// MPI_Finalize, if open() had initialised it. All Collectives must be gone. Collective.
  void (*finalize)();
  /// MPI_Abort: ends all ranks, this one first. Not collective.
  void (*abort)(int exit_code);
  /// Name and version of the MPI library, as it tells them. Not collective; before open() as well.
  std::string (*library)();
};

/// Name and type of the one symbol that the module exports.
inline constexpr const char* kMpiModuleSymbol = "fvprefetch_mpi_module";
using MpiModuleEntry = const MpiModule* (*)();

}  // namespace fvprefetch
