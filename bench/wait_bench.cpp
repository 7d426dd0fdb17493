// Question: what does a rank burn while it waits for rank 0, and how late does it notice that rank
// 0 is done? Ours (quiet_wait) against MPI_Barrier, in one run:
//
//   mpirun -n 4 build/bench/wait_bench [SECONDS]
//
// Prints one table: CPU seconds of the waiting ranks (largest), and the time between rank 0's
// arrival and the last rank's return, for both.
#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>

#include "cpu_time.h"
#include "mpi/mpi_collective.h"

namespace {

struct Figures {
  double cpu = 0;   ///< of the waiting rank that used most
  double late = 0;  ///< seconds after rank 0 arrived until the last rank was out
};

/// Rank 0 comes `seconds` late. All ranks run on one clock (one machine), as the lateness needs.
Figures measure(double seconds, const std::function<void()>& wait) {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Barrier(MPI_COMM_WORLD);
  const double cpu_before = cpu_seconds();
  if (rank == 0) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  double arrived = rank == 0 ? MPI_Wtime() : 0;
  wait();
  const double out = MPI_Wtime();
  double cpu = rank == 0 ? 0 : cpu_seconds() - cpu_before;
  MPI_Bcast(&arrived, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
  double late = out - arrived;
  Figures figures;
  MPI_Allreduce(&cpu, &figures.cpu, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  MPI_Allreduce(&late, &figures.late, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return figures;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  int code = 0;
  {
    auto ranks = fvprefetch::mpi::make_mpi_collective(MPI_COMM_WORLD);
    if (!ranks) {
      code = 1;
    } else {
      const Figures barrier = measure(seconds, [] { MPI_Barrier(MPI_COMM_WORLD); });
      const Figures quiet = measure(seconds, [&] {
        if (!(*ranks)->quiet_wait()) code = 1;
      });
      if (rank == 0) {
        std::printf("%d ranks, rank 0 is %.1f s late\n", size, seconds);
        std::printf("%-12s %18s %18s\n", "", "CPU s of a waiter", "last rank out, ms");
        std::printf("%-12s %18.3f %18.1f\n", "MPI_Barrier", barrier.cpu, barrier.late * 1e3);
        std::printf("%-12s %18.3f %18.1f\n", "quiet_wait", quiet.cpu, quiet.late * 1e3);
        std::printf("%-12s %18.3f\n", "ratio", quiet.cpu / barrier.cpu);
      }
    }
  }
  MPI_Finalize();
  return code;
}
