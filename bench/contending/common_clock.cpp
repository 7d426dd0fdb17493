#include "common_clock.h"

#include <array>
#include <cstring>
#include <limits>

#include "base/process.h"
#include "contender.h"

namespace fvprefetch::contending {
namespace {

constexpr int kRoundTrips = 60;
constexpr int kTag = 1;

/// The name of this run of this kernel.
std::array<char, 64> kernel() {
  std::array<char, 64> name{};
  std::strncpy(name.data(), this_process().boot.c_str(), name.size() - 1);
  return name;
}

Offset ask(MPI_Comm comm) {
  Offset best{0, std::numeric_limits<std::int64_t>::max()};
  for (int i = 0; i < kRoundTrips; ++i) {
    std::int64_t theirs = 0;
    const std::int64_t sent = now_ns();
    MPI_Send(&sent, 1, MPI_INT64_T, 0, kTag, comm);
    MPI_Recv(&theirs, 1, MPI_INT64_T, 0, kTag, comm, MPI_STATUS_IGNORE);
    const std::int64_t half = (now_ns() - sent) / 2;
    if (half < best.error) best = {theirs - (sent + half), half};
  }
  return best;
}

void answer(MPI_Comm comm, int rank) {
  for (int i = 0; i < kRoundTrips; ++i) {
    std::int64_t sent = 0;
    MPI_Recv(&sent, 1, MPI_INT64_T, rank, kTag, comm, MPI_STATUS_IGNORE);
    const std::int64_t now = now_ns();
    MPI_Send(&now, 1, MPI_INT64_T, rank, kTag, comm);
  }
}

}  // namespace

Offset measure_offset(MPI_Comm comm) {
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  const std::array<char, 64> mine = kernel();
  std::array<char, 64> first = mine;
  MPI_Bcast(first.data(), static_cast<int>(first.size()), MPI_CHAR, 0, comm);
  const int asks = first == mine && first[0] != '\0' ? 0 : 1;
  Offset offset;
  for (int i = 1; i < size; ++i) {
    // One at a time: two who ask together would both measure the other's turn as well.
    int asking = asks;
    MPI_Bcast(&asking, 1, MPI_INT, i, comm);
    if (asking == 0) continue;
    if (rank == 0) answer(comm, i);
    if (rank == i) offset = ask(comm);
  }
  return offset;
}

}  // namespace fvprefetch::contending
