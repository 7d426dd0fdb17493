// That a process of a task has used MPI, noted for the next one of the same task: a second MPI_Init
// would end the job. A file in the node's memory, named after the task's first process, so that it
// means nothing any more when that is gone.
#pragma once

#include "base/process.h"

namespace fvprefetch {

enum class MpiUse {
  kFirst,  ///< no process of the task is known to have used MPI
  kRepeated
};

/// Notes that a process of `task` is about to call MPI_Init, unless that is the calling process:
/// then there will be no other. Best effort: where no file can be made each use is the first.
[[nodiscard]] MpiUse claim_mpi(const ProcessInfo& task);

}  // namespace fvprefetch
