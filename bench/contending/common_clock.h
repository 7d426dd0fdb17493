// Rank 0's clock on every rank: where nodes differ, a hand-off from one to the other can be timed
// on one clock alone. The offset is that of the quickest of many round trips (Cristian's way), and
// half of that round trip bounds its error.
#pragma once

#include <mpi.h>

#include <cstdint>

namespace fvprefetch::contending {

struct Offset {
  std::int64_t ns = 0;     ///< rank 0's clock minus ours
  std::int64_t error = 0;  ///< at most, either way; 0 on rank 0's node
};

/// Collective: measures. Ranks that run under rank 0's kernel share its clock and are not asked.
[[nodiscard]] Offset measure_offset(MPI_Comm comm);

}  // namespace fvprefetch::contending
