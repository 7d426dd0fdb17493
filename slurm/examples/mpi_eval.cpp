// An MPI evaluation that brings its own checkpoint: one rank downloads, all ranks open the file.
//
//   srun mpi_eval raft sbalani/raft-things raft-things.pth
//   srun mpi_eval alexnet https://download.pytorch.org/models/alexnet-owt-7be5be79.pth
#include <fvprefetch/mpi.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace {

// What your evaluation does with the checkpoint. Here: how many bytes can be read of it, or -1.
long long evaluate(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return -1;
  std::vector<char> buffer(1 << 20);
  long long bytes = 0;
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), file.gcount() > 0)
    bytes += file.gcount();
  return file.bad() ? -1 : bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::fprintf(stderr, "usage: mpi_eval NAME SOURCE [FILENAME]\n");
    return fvprefetch::exit_code(fvprefetch::ErrorCode::kUsage);
  }
  const std::string name = argv[1], source = argv[2], filename = argc > 3 ? argv[3] : "";

  // fvprefetch needs no more than FUNNELED. Call it from the thread that called this.
  int provided = MPI_THREAD_SINGLE;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  int rank = 0, length = 0;
  char node[MPI_MAX_PROCESSOR_NAME] = "";
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Get_processor_name(node, &length);

  // Every rank calls this, and every rank gets the same answer: a path that its node can see, or an
  // error. Where it is there already no request is sent. Ranks that wait use next to no CPU.
  const auto path = fvprefetch::mpi::ensure_checkpoint(MPI_COMM_WORLD, name, source, filename);
  if (!path) {
    const int code = fvprefetch::exit_code(path.error().code);
    const bool lost =
        path.error().reason == "peer_lost";  // rank 0 died: none can finalise any more
    if (rank == 0 || lost) std::fprintf(stderr, "%s\n", fvprefetch::describe(path.error()).c_str());
    if (lost) MPI_Abort(MPI_COMM_WORLD, code);
    MPI_Finalize();
    return code;
  }

  const long long bytes = evaluate(*path);
  std::printf("rank %d on %s: %s, %lld bytes\n", rank, node, path->c_str(), bytes);
  MPI_Finalize();
  return bytes < 0 ? 1 : 0;
}
