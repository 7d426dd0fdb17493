// Question: what does a lock cost when all ranks of a job want it at once, on the file system where
// they want it?
//
//   srun -N4 build/bench/contention --dir DIR --ranks 1,2,4,8,16,32,64
//   mpirun -n 2 build/bench/contention --dir DIR --ranks 64
//
// Needs no root and no installation; writes a table, contention.csv and contention.json; leaves
// nothing in DIR. N contenders are processes that the ranks start, so N may be larger than the
// number of MPI ranks; the collective path alone is of MPI ranks, and measured up to their number.
// bench/README.md says how to read it.
#include <mpi.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/posix.h"
#include "base/try.h"
#include "contending/cases.h"
#include "contending/contender.h"
#include "contending/report.h"
#include "filelock_worker.h"
#include "mpi/mpi_collective.h"

namespace {

using namespace fvprefetch;
using namespace fvprefetch::contending;

struct Options {
  std::string dir;
  std::vector<int> ranks{1, 2, 4, 8, 16, 32, 64};
  std::vector<std::string> primitives{"flock",    "ofd",          "lease",     "auto",
                                      "FileLock", "SoftFileLock", "collective"};
  std::string python;
  std::string output = "contention";
  Amount amount;
  double case_seconds = 5;
  double wait_seconds = 3;
  double load_seconds = 60;
  double time_cap = 1800;
  std::int64_t operation_cap = 2'000'000;
};

int parse(int argc, char** argv, bool speaks, Options& options) {
  CLI::App app("What a lock costs when all ranks of a job want it at once", "contention");
  app.add_option("--dir", options.dir, "folder on the file system to be measured")->required();
  app.add_option("--ranks", options.ranks, "numbers of contenders")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  app.add_option("--primitives", options.primitives,
                 "some of flock,ofd,lease,auto,FileLock,SoftFileLock,collective")
      ->delimiter(',');
  app.add_option("--python", options.python, "interpreter with filelock; else that is left out");
  app.add_option("--output", options.output, "writes <output>.csv and <output>.json");
  Amount& amount = options.amount;
  app.add_option("--repeats", amount.repeats, "the primitives take turns so often")
      ->check(CLI::Range(1, 100));
  app.add_option("--cold-rounds", amount.cold_rounds, "in all")->check(CLI::Range(1, 10'000));
  app.add_option("--hand-offs", amount.hand_offs, "in all, about");
  app.add_option("--acquisitions", amount.acquisitions, "of each contender under load");
  app.add_option("--case-seconds", options.case_seconds, "for the rounds of a case in a repeat");
  app.add_option("--load-seconds", options.load_seconds, "until the load is broken off");
  app.add_option("--wait-seconds", options.wait_seconds, "that waiters are watched; 0: not");
  app.add_option("--operations", amount.operations, "count calls with strace (default: true)");
  app.add_option("--time-cap", options.time_cap, "seconds; what is left then is left out");
  app.add_option("--operation-cap", options.operation_cap, "locks taken in all");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = speaks ? app.exit(error) : error.get_exit_code();
    return code == 0 ? -1 : 2;
  }
  amount.case_time = static_cast<std::int64_t>(options.case_seconds * 1e9);
  amount.wait = static_cast<std::int64_t>(options.wait_seconds * 1e9);
  amount.load_limit = static_cast<std::int64_t>(options.load_seconds * 1e9);
  return 0;
}

/// Removes what rank 0 made, however the run ends.
class Scratch {
 public:
  explicit Scratch(std::string path) : path_(std::move(path)) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;  // nothing more can be done
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }

 private:
  std::string path_;
};

bool of_python(const std::string& primitive) {
  return primitive == "FileLock" || primitive == "SoftFileLock";
}

class Measuring {
 public:
  Measuring(Collective& ranks, const Options& options)
      : ranks_(ranks), options_(options), begun_(now_ns()) {}

  Status all() {
    const bool first = ranks_.rank() == 0;
    // In a folder below the scratch one, so that a log of strace beside it names no operation's
    // file.
    std::string scratch;
    if (first) scratch = posix::real_path(options_.dir) + "/fvp-contention." + posix::random_tag();
    const Scratch removed(scratch);
    std::string failed;
    if (first) {
      if (const auto made = posix::make_directories(scratch + "/x"); !made) {
        failed = made.error().message;
      }
    }
    FVP_TRY(failed, ranks_.broadcast(failed));
    if (!failed.empty()) return fail(ErrorCode::kUsage, failed);

    Caps caps;
    caps.end = begun_ + static_cast<std::int64_t>(options_.time_cap * 1e9);
    caps.acquisitions = options_.operation_cap;
    Field field(ranks_, MPI_COMM_WORLD, scratch + "/x", caps);
    if (first) {
      run_.place = place_of(options_.dir);
      run_.mpi_ranks = ranks_.size();
      run_.nodes = ranks_.nodes();
      run_.acquisitions = options_.amount.acquisitions;
      run_.hold_us = options_.amount.hold / 1000;
      run_.repeats = options_.amount.repeats;
      run_.begun = rfc3339_now();
      print_head(run_);
    }
    for (const int n : options_.ranks) FVP_CHECK_OK(one(field, n));
    if (first && stopping()) remark("stopped by a signal");
    if (first && now_ns() > caps.end) remark("the time cap was reached: cases are missing");
    return first ? write() : Status{};
  }

 private:
  Status one(Field& field, int n) {
    FVP_TRY(const int stop, ranks_.max(stopping() ? 1 : 0));
    if (stop != 0) return {};
    const int mine = field.share_of(n);
    std::vector<Contenders> contenders;
    std::vector<std::string> ours;
    std::vector<std::string> pythons;
    for (const std::string& name : options_.primitives) {
      if (name == "collective") continue;
      (of_python(name) ? pythons : ours).push_back(name);
    }
    Crew crew({"/proc/self/exe", "--contender"}, ours.empty() ? 0 : mine);
    FVP_TRY(const bool ours_work, all_started(crew, ours.empty() ? 0 : mine));
    const bool local = posix::is_local(options_.dir);
    const int python_workers = pythons.empty() || options_.python.empty() ? 0 : mine;
    Crew python({options_.python, "-u", "-c", std::string(kFilelockWorker), local ? "local" : ""},
                python_workers);
    FVP_TRY(const bool python_works, all_started(python, python_workers));
    for (const std::string& name : options_.primitives) {
      if (name == "collective") continue;
      if (of_python(name) ? !python_works || options_.python.empty() : !ours_work) {
        if (n == options_.ranks.front()) remark(name + " is left out: no --python with filelock");
        continue;
      }
      contenders.push_back({name, of_python(name) ? &python : &crew});
    }
    Amount amount = options_.amount;
    const int most = *std::max_element(options_.ranks.begin(), options_.ranks.end());
    // Who waits costs the same whatever the number of the others, but for the memory they share.
    if (n != 2 && n != most) amount.wait = 0;
    FVP_TRY(const std::vector<Row> rows, measure(field, n, contenders, amount));
    for (const Row& row : rows) keep(row);
    const bool collective = std::find(options_.primitives.begin(), options_.primitives.end(),
                                      "collective") != options_.primitives.end();
    if (collective && n <= ranks_.size()) {
      FVP_TRY(const Row row, measure_collective(field, MPI_COMM_WORLD, n, amount));
      keep(row);
    } else if (collective) {
      remark("collective of " + std::to_string(n) +
             " ranks is left out: " + std::to_string(ranks_.size()) + " MPI ranks");
    }
    return ranks_.rank() == 0 ? write() : Status{};  // what there is survives an interruption
  }

  /// Collective: whether the contenders of all ranks are there.
  Result<bool> all_started(const Crew& crew, int wanted) {
    const bool missing = crew.size() < wanted;
    if (missing) std::fprintf(stderr, "contention: %s\n", crew.why_empty().c_str());
    FVP_TRY(const int any, ranks_.max(missing ? 1 : 0));
    return any == 0;
  }

  void keep(const Row& row) {
    if (ranks_.rank() != 0) return;
    if (row.each.empty()) {  // it would read as a row of zeros; that time was up is told once
      for (const std::string& text : row.remarks) remark(text);
      return;
    }
    print_row(row);
    run_.rows.push_back(row);
  }
  void remark(const std::string& text) {
    if (ranks_.rank() != 0) return;
    std::printf("      %s\n", text.c_str());
    run_.remarks.push_back(text);
  }
  Status write() {
    run_.seconds = static_cast<double>(now_ns() - begun_) / 1e9;
    return write_files(run_, options_.output);
  }

  Collective& ranks_;
  const Options& options_;
  std::int64_t begun_;
  Run run_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--contender") return run_contender();
  MPI_Init(&argc, &argv);
  notice_signals();
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  Options options;
  int code = parse(argc, argv, rank == 0, options);
  if (code == 0) {
    auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
    Status done = ranks ? Measuring(**ranks, options).all() : fail(std::move(ranks).error());
    if (!done) {
      std::fprintf(stderr, "contention: %s\n", done.error().message.c_str());
      code = 1;
    }
  }
  MPI_Finalize();
  return code < 0 ? 0 : code;
}
