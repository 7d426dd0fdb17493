// A user's MPI program: adds up the ranks, and may call the command before that.
//
//   mpi_program [--on RANK|all COMMAND]
//
// COMMAND is run by system(). In the folder $OUT each rank leaves sum.RANK, the sum of all ranks,
// and code.RANK, the exit code of COMMAND. In files, since launchers mix what ranks print.
#include <mpi.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

void leave(const char* what, int rank, int number) {
  const char* folder = std::getenv("OUT");
  const std::string path =
      std::string(folder != nullptr ? folder : ".") + "/" + what + "." + std::to_string(rank);
  std::FILE* file = std::fopen(path.c_str(), "w");
  const bool written = file != nullptr && std::fprintf(file, "%d\n", number) > 0;
  if (file == nullptr || std::fclose(file) != 0 || !written) MPI_Abort(MPI_COMM_WORLD, 1);
}

}  // namespace

int main(int argc, char** argv) {
  if (MPI_Init(&argc, &argv) != MPI_SUCCESS) return 1;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (argc == 4 && (std::strcmp(argv[2], "all") == 0 || std::atoi(argv[2]) == rank)) {
    const int status = std::system(argv[3]);
    leave("code", rank, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  int sum = 0;
  MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  leave("sum", rank, sum);
  MPI_Finalize();
  return 0;
}
