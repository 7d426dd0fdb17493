// A user's MPI program: adds up the ranks, and may call the command before it ends.
//
//   mpi_program [--on RANK|all COMMAND]   COMMAND is run by system(); the file $OUT/code.RANK gets
//   its exit code
#include <mpi.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

int main(int argc, char** argv) {
  if (MPI_Init(&argc, &argv) != MPI_SUCCESS) return 1;
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (argc == 4 && (std::strcmp(argv[2], "all") == 0 || std::atoi(argv[2]) == rank)) {
    const int status = std::system(argv[3]);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    const char* folder = std::getenv("OUT");
    const std::string path =
        std::string(folder != nullptr ? folder : ".") + "/code." + std::to_string(rank);
    std::FILE* file = std::fopen(path.c_str(), "w");
    if (file == nullptr) MPI_Abort(MPI_COMM_WORLD, 1);
    std::fprintf(file, "%d\n", code);
    std::fclose(file);
  }
  int sum = 0;
  MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  std::printf("mpi_program: rank %d of %d, sum %d\n", rank, size, sum);
  std::fflush(stdout);
  MPI_Finalize();
  return 0;
}
