// Question: what does it cost to bring files from a shared folder to every node's own folder? Ours
// (cluster/stage) and what people do by hand, each rank being a node with a folder of its own:
//
//   mpirun -n 4 stage_bench SHARED NODES REPO ROUNDS
//   srun -N4 --ntasks-per-node=1 stage_bench SHARED OWN REPO ROUNDS --cold
//   mpirun -n 4 stage_bench                             an empty MPI program
//
// SHARED is a Hub cache that holds REPO; NODES is a folder where each rank makes one. With --cold
// each rank is alone on a node, OWN is there on every node's own disk, and SHARED on NFS: before
// each run all nodes forget what they have cached (for root only), what counts as read is what came
// from the server, and sbcast joins in. Writes a line of JSON for each run: seconds, CPU seconds
// and bytes read of all ranks. ./bench/stage_bench makes the folders, calls this, and prints the
// table.
#include <mpi.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/posix.h"
#include "cluster/stage.h"
#include "contending/common_clock.h"
#include "contending/contender.h"
#include "cpu_time.h"
#include "fvprefetch/prefetch.h"
#include "mpi/mpi_collective.h"

namespace {

namespace fs = std::filesystem;
namespace posix = fvprefetch::posix;
using fvprefetch::Result;
using fvprefetch::Status;

constexpr std::size_t kChunk = std::size_t{1} << 20U;
// The same text on every rank, and another folder for each: its working directory.
constexpr const char* kStage = "/proc/self/cwd/stage";

void need(const Status& status) {
  if (!status) throw std::runtime_error(fvprefetch::describe(status.error()));
}
template <typename T>
T need(Result<T> result) {
  if (!result) throw std::runtime_error(fvprefetch::describe(result.error()));
  return *std::move(result);
}

struct File {
  std::string from;
  std::string name;  ///< in the repository
  std::size_t size = 0;
};

enum class Nodes {
  kFolders,  ///< ranks of one machine with folders of their own
  kCold      ///< each rank alone on a machine, which caches nothing of the shared files
};

struct Job {
  int rank = 0;
  int size = 1;
  Nodes nodes = Nodes::kFolders;
  std::string shared;
  std::vector<File> files;
  fvprefetch::contending::Offset clock;  ///< to rank 0's

  [[nodiscard]] static posix::Fd open_own(const File& file) {
    return need(posix::create_private("copy/" + file.name));
  }
};

std::size_t read_at(const posix::Fd& fd, std::size_t offset, std::span<std::byte> room,
                    const File& file) {
  std::size_t length = 0;
  while (length < room.size()) {
    const std::size_t more =
        need(posix::read_at(fd, offset + length, room.subspan(length), file.from));
    if (more == 0) throw std::runtime_error("a file became shorter");
    length += more;
  }
  return length;
}

// --- The ways ------------------------------------------------------------------------------------

// What most people write first: no digest, and the final name from the first byte on.
void by_broadcast(const Job& job) {
  std::vector<std::byte> chunk(kChunk);
  for (const File& file : job.files) {
    posix::Fd from;
    if (job.rank == 0) from = need(posix::open_read(file.from));
    const posix::Fd to = Job::open_own(file);
    for (std::size_t at = 0; at < file.size; at += kChunk) {
      const auto piece = std::span(chunk).first(std::min(kChunk, file.size - at));
      if (job.rank == 0) read_at(from, at, piece, file);
      MPI_Bcast(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, 0, MPI_COMM_WORLD);
      need(posix::write_at(to, at, piece, file.name));
    }
  }
}

void by_reading(const Job& job, bool hashes) {
  std::vector<std::byte> chunk(kChunk);
  for (const File& file : job.files) {
    const posix::Fd from = need(posix::open_read(file.from));
    const posix::Fd to = Job::open_own(file);
    fvprefetch::Hasher hasher(fvprefetch::Digest::Kind::kSha256, file.size);
    for (std::size_t at = 0; at < file.size; at += kChunk) {
      const auto piece = std::span(chunk).first(std::min(kChunk, file.size - at));
      read_at(from, at, piece, file);
      if (hashes) hasher.update(piece);
      need(posix::write_at(to, at, piece, file.name));
    }
    if (hashes && hasher.finish().empty()) throw std::runtime_error("no digest");
  }
}

// Hands pieces to a thread that writes them, by two buffers: dbcast's writer process with its
// segment of shared memory.
class Writer {
 public:
  Writer(const posix::Fd& to, const File& file)
      : to_(to), file_(file), thread_([this] { write(); }) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    put({}, 0);
    thread_.join();
  }
  /// Empty: no more.
  void put(std::span<const std::byte> bytes, std::size_t offset) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return put_ - written_ < 2; });
    Piece& piece = pieces_[put_ % 2];
    lock.unlock();
    piece.bytes.assign(bytes.begin(), bytes.end());
    piece.offset = offset;
    lock.lock();
    ++put_;
    changed_.notify_all();
  }

 private:
  struct Piece {
    std::vector<std::byte> bytes;
    std::size_t offset = 0;
  };

  void write() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return put_ > written_; });
      const Piece& piece = pieces_[written_ % 2];
      if (piece.bytes.empty()) return;
      lock.unlock();
      // What was not written is found when sizes are compared.
      (void)posix::write_at(to_, piece.offset, piece.bytes, file_.name);
      lock.lock();
      ++written_;
      changed_.notify_all();
    }
  }

  const posix::Fd& to_;
  const File& file_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<Piece, 2> pieces_;
  std::size_t put_ = 0;
  std::size_t written_ = 0;
  std::thread thread_;
};

// dbcast as documented: the readers of all nodes read different chunks of 1 MiB, and pass them
// round a ring, in lock step. (One reader a node; its writer is a thread here.)
void by_ring(const Job& job) {
  std::vector<std::byte> have(kChunk);
  std::vector<std::byte> next(kChunk);
  const auto ranks = static_cast<std::size_t>(job.size);
  for (const File& file : job.files) {
    const posix::Fd from = need(posix::open_read(file.from));
    const posix::Fd to = Job::open_own(file);
    const auto length_at = [&](std::size_t at) {
      return at < file.size ? std::min(kChunk, file.size - at) : 0;
    };
    Writer writer(to, file);
    for (std::size_t begin = 0; begin < file.size; begin += ranks * kChunk) {
      std::size_t mine = static_cast<std::size_t>(job.rank);
      read_at(from, begin + mine * kChunk, std::span(have).first(length_at(begin + mine * kChunk)),
              file);
      for (std::size_t hop = 0; hop < ranks; ++hop) {
        const std::size_t at = begin + mine * kChunk;
        const std::size_t length = length_at(at);
        if (length > 0) writer.put(std::span(have).first(length), at);
        if (hop + 1 == ranks) break;
        mine = (mine + ranks - 1) % ranks;
        MPI_Sendrecv(have.data(), static_cast<int>(length), MPI_BYTE, (job.rank + 1) % job.size, 0,
                     next.data(), static_cast<int>(kChunk), MPI_BYTE,
                     (job.rank + job.size - 1) % job.size, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        have.swap(next);
      }
    }
  }
}

// From the first node, as in a batch script. Only that one knows when it is done.
void by_sbcast(const Job& job) {
  if (job.rank != 0) return;
  const File& file = job.files.front();
  std::string program = "sbcast";
  std::string from = file.from;
  std::string to = fs::current_path() / "copy" / file.name;
  const std::array<char*, 4> argv{program.data(), from.data(), to.data(), nullptr};
  pid_t child = 0;
  if (posix_spawnp(&child, "sbcast", nullptr, nullptr, argv.data(), environ) != 0) {
    throw std::runtime_error("sbcast does not start");
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) {
    throw std::runtime_error("sbcast failed");
  }
}

// --- Measuring -----------------------------------------------------------------------------------

// What the kernel has counted for this process; who reads does not get a say.
double bytes_read_here() {
  std::ifstream io("/proc/self/io");
  std::string word;
  double bytes = 0;
  while (io >> word >> bytes) {
    if (word == "rchar:") return bytes;
  }
  throw std::runtime_error("/proc/self/io does not tell what was read");
}

// By all of this node, through the NFS mount that has the folder.
double bytes_from_server(const std::string& folder) {
  std::ifstream mounts("/proc/self/mountstats");
  bool is_it = false;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (first == "device") {  // SERVER mounted on POINT with fstype TYPE
      std::string point;
      std::string type;
      std::string skipped;
      words >> skipped >> skipped >> skipped >> point >> skipped >> skipped >> type;
      is_it = type.starts_with("nfs") && (folder + "/").starts_with(point + "/");
    }
    if (first == "bytes:" && is_it) {
      std::array<double, 5> counts{};  // read, written; the same past the cache; from the server
      for (double& count : counts) words >> count;
      if (words) return counts.back();
    }
  }
  throw std::runtime_error(folder + " is on no NFS mount that tells what was read");
}

double bytes_read(const Job& job) {
  return job.nodes == Nodes::kCold ? bytes_from_server(job.shared) : bytes_read_here();
}

void forget_caches() {
  sync();  // what is not written yet stays
  std::ofstream drop("/proc/sys/vm/drop_caches");
  drop << "3\n" << std::flush;
  if (!drop) {
    throw std::runtime_error(
        "/proc/sys/vm/drop_caches cannot be written, so this node forgets nothing");
  }
}

double seconds_on_common_clock(const Job& job) {
  return static_cast<double>(fvprefetch::contending::now_ns() + job.clock.ns) / 1e9;
}

std::vector<File> files_of(const std::string& snapshots) {
  std::vector<File> files;
  for (const auto& snapshot : fs::directory_iterator(snapshots)) {
    for (const auto& file : fs::directory_iterator(snapshot.path())) {
      files.push_back({file.path(), file.path().filename(), fs::file_size(file.path())});
    }
  }
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.name < b.name; });
  return files;
}

void check(const Job& job, const std::string& folder) {
  for (const File& file : job.files) {
    if (fs::file_size(folder + "/" + file.name) != file.size) {
      throw std::runtime_error(folder + "/" + file.name + " is not whole");
    }
  }
}

struct Way {
  const char* name;
  std::function<std::string()> run;  ///< returns the folder that has the files then
};

void measure(const Job& job, fvprefetch::Collective& ranks, const Way& way, int round) {
  fs::remove_all("copy");
  fs::remove_all("stage");
  fs::create_directory("copy");
  if (job.nodes == Nodes::kCold) forget_caches();
  MPI_Barrier(MPI_COMM_WORLD);
  const double read_before = bytes_read(job);
  const double cpu_before = cpu_seconds();
  const double begin = seconds_on_common_clock(job);
  const std::string folder = way.run();
  const double end = seconds_on_common_clock(job);
  std::array<double, 2> mine{cpu_seconds() - cpu_before, bytes_read(job) - read_before};
  need(ranks.quiet_wait());  // who is done takes no core from those who are not
  std::array<double, 2> sums{};
  double first = 0;
  double last = 0;
  MPI_Reduce(mine.data(), sums.data(), 2, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
  MPI_Reduce(&begin, &first, 1, MPI_DOUBLE, MPI_MIN, 0, MPI_COMM_WORLD);
  MPI_Reduce(&end, &last, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  check(job, folder);
  if (job.rank == 0) {
    std::printf(R"({"way": "%s", "round": %d, "wall": %.4f, "cpu": %.3f, "read": %.0f})"
                "\n",
                way.name, round, last - first, sums[0], sums[1]);
    std::fflush(stdout);
  }
}

// Makes the working directory of this rank. Returns what is to be removed in the end.
std::string enter_own_folder(const Job& job, const std::string& nodes) {
  std::string own = nodes;
  if (job.nodes == Nodes::kFolders) {
    setenv("SLURM_NODEID", std::to_string(job.rank).c_str(), 1);  // a node of its own
    own += "/" + std::to_string(job.rank);
  }
  fs::create_directories(own);
  fs::current_path(own);
  return own;
}

void run(const std::string& nodes, const std::string& repo, int rounds, Job job) {
  MPI_Comm_rank(MPI_COMM_WORLD, &job.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &job.size);
  job.clock = fvprefetch::contending::measure_offset(MPI_COMM_WORLD);
  std::string folder = "models--" + repo;
  folder.replace(folder.find('/'), 1, "--");
  job.files = files_of(job.shared + "/hub/" + folder + "/snapshots");
  const std::string own = enter_own_folder(job, nodes);

  fvprefetch::Manifest manifest;
  manifest.entries.resize(1);
  manifest.entries[0].name = "m";
  manifest.entries[0].source = repo;
  fvprefetch::Options options;
  options.cache_dir = job.shared + "/eval";
  options.hf_cache_dir = job.shared + "/hub";
  options.offline = true;
  options.environment = [](std::string_view) { return std::nullopt; };
  options.stage = kStage;
  options.stage_required = true;
  // As after a run that found all of it: the same on every rank.
  fvprefetch::Report there;
  there.entries.resize(1);
  there.entries[0].state = fvprefetch::EntryState::kHit;
  if (job.rank == 0) there = fvprefetch::prefetch(manifest, options);
  if (there.error) throw std::runtime_error(fvprefetch::describe(*there.error));
  const auto ranks = need(fvprefetch::mpi::make_mpi_collective(MPI_COMM_WORLD));
  if (ranks->nodes() != job.size) throw std::runtime_error("not one rank a node");

  std::vector<Way> ways{
      {"ours",
       [&] {
         const fvprefetch::Report report = fvprefetch::stage(
             *ranks, there, [&] { return fvprefetch::stage_order(manifest, options, there); });
         if (report.error) throw std::runtime_error(fvprefetch::describe(*report.error));
         return report.entries[0].path;
       }},
      {"bcast", [&] { return by_broadcast(job), std::string("copy"); }},
      {"each reads", [&] { return by_reading(job, false), std::string("copy"); }},
      {"each reads + sha256", [&] { return by_reading(job, true), std::string("copy"); }}};
  if (job.files.size() == 1) {  // dbcast takes no folders
    ways.push_back({"dbcast's ring", [&] { return by_ring(job), std::string("copy"); }});
  }
  if (job.files.size() == 1 && job.nodes == Nodes::kCold) {
    ways.push_back({"sbcast", [&] { return by_sbcast(job), std::string("copy"); }});
  }
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < ways.size(); ++i) {
      measure(job, *ranks, ways[(i + static_cast<std::size_t>(round)) % ways.size()], round);
    }
  }
  fs::current_path("/");
  fs::remove_all(own);
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const std::vector<std::string> words(argv + 1, argv + argc);
  const bool cold = words.size() == 5 && words.back() == "--cold";
  const bool runs = words.size() == 4 || cold;
  if (runs) {
    try {
      Job job;
      job.nodes = cold ? Nodes::kCold : Nodes::kFolders;
      job.shared = words[0];
      run(words[1], words[2], std::clamp(std::stoi(words[3]), 1, 100), std::move(job));
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
  }
  MPI_Finalize();
  return runs || words.empty() ? 0 : 2;
}
