#include <fvprefetch/mpi.h>

#include <cstdio>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const auto path = fvprefetch::mpi::ensure_checkpoint(MPI_COMM_WORLD, "mine", argv[1]);
  if (path) std::puts(path->c_str());
  MPI_Finalize();
  return path ? 0 : fvprefetch::exit_code(path.error().code);
}
