#include "cli/job.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/digest.h"
#include "base/posix.h"
#include "base/try.h"
#include "cli/init_watch.h"
#include "cli/mpi_module.h"
#include "cli/version.h"
#include "cluster/attended.h"
#include "cluster/distribute.h"
#include "cluster/file_barrier.h"
#include "cluster/task_claim.h"
#include "source/manifest_input.h"

#ifndef FVPREFETCH_HAS_MPI
#define FVPREFETCH_HAS_MPI 0
#endif

namespace fvprefetch::cli {
namespace {

// What has to be the same on all ranks: the version, whether they stage, and what the command was
// given.
std::string greeting_of(const Invocation& call) {
  std::string given = call.target;
  if (call.command == Command::kEnsure) {
    for (const std::string& word : {call.name, call.filename, call.revision}) given += '\n' + word;
  }
  const std::string stage = call.options.stage.empty() ? "" : "--stage";
  return std::string(program_version()) + '\n' + stage + '\n' + given;
}

std::string line_of(const std::string& text, int number) {
  std::size_t begin = 0;
  for (int i = 0; i < number && begin != std::string::npos; ++i) {
    begin = text.find('\n', begin);
    if (begin != std::string::npos) ++begin;
  }
  return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
}

// Only a manifest's path may differ, when the files are the same. A pipe can be read but once.
std::string digest_of_manifest(const std::string& target, const InputWait& wait) {
  const auto info = posix::stat(target);
  if (!info || !*info || !(*info)->regular) return target;
  const auto text = read_manifest_text(target, wait);
  return text ? sha256_hex(*text) : target;
}

Status check_greetings(Collective& ranks, const Invocation& call, const Options& options) {
  const std::vector<std::string>& all = ranks.greetings();
  if (std::adjacent_find(all.begin(), all.end(), std::not_equal_to<>()) == all.end()) return {};
  // The same on every rank from here on.
  const auto other = std::find_if(all.begin(), all.end(),
                                  [&](const std::string& one) { return one != all.front(); });
  const std::string who = "rank " + std::to_string(other - all.begin());
  if (line_of(*other, 0) != line_of(all.front(), 0)) {
    return fail(
        ErrorCode::kUsage,
        who + " runs fvprefetch " + line_of(*other, 0) + ", rank 0 " + line_of(all.front(), 0),
        "start the same fvprefetch on every node");
  }
  if (line_of(*other, 1) != line_of(all.front(), 1)) {
    const bool stages = !line_of(*other, 1).empty();
    return fail(ErrorCode::kUsage,
                stages ? who + " was given --stage, rank 0 was not"
                       : "rank 0 was given --stage, " + who + " was not",
                "give it to every rank, or set FVPREFETCH_STAGE on every node");
  }
  const Attendance attendance = distribute_options(options, real_clock().now()).attendance;
  std::string digest = line_of(all[static_cast<std::size_t>(ranks.rank())], 2);
  if (call.command != Command::kEnsure && call.target != "-") {
    InputWait wait;
    wait.must_stop = attendance.must_stop;
    digest = attended(ranks, attendance, [target = call.target, wait]() -> Result<std::string> {
               return digest_of_manifest(target, wait);
             }).value_or(call.target);
  }
  FVP_CHECK_OK(ranks.await_work(attendance.vigil));
  const WaitLimit limit(ranks, options.rank_timeout);
  FVP_TRY(const std::vector<std::string> digests, ranks.all_gather(digest));
  const bool same_files =
      std::adjacent_find(digests.begin(), digests.end(), std::not_equal_to<>()) == digests.end();
  if (same_files && call.command != Command::kEnsure) return {};
  return fail(ErrorCode::kUsage,
              who + " was given `" + line_of(*other, 2) + "`, rank 0 `" + line_of(all.front(), 2) +
                  "`, and all ranks return one result",
              "give every rank the same; for one of its own, start each with --mpi off");
}

}  // namespace

Result<Job> Job::open(const Invocation& call, const Options& options, const Signals& signals) {
  Job job;
  job.launch_ = launch_of_this_process(options.environment, call.mpi, has_mpi());
  Launch& launch = job.launch_;
  if (launch.mode == Launch::Mode::kMpi && launch.launcher != "none" &&
      claim_mpi(launch.starter.task) == MpiUse::kRepeated) {
    launch.mode = Launch::Mode::kLockOnly;
    launch.remark =
        "another process of this task has used MPI, and a second MPI_Init would end "
        "the job";
    if (call.mpi == MpiWish::kOn) launch.advice = "MPI cannot start: " + launch.remark;
  }
  if (launch.mode == Launch::Mode::kMpi) {
    FVP_CHECK_OK(job.start_mpi(call, options, signals));
  } else if (call.mpi == MpiWish::kOn) {
    return fail(ErrorCode::kLauncher,
                launch.advice.empty() ? "MPI was required, and there is none here" : launch.advice,
                // What another process has done is not the launcher's fault.
                launch.remark.empty() ? ""
                                      : "leave out --mpi on: the ranks share one download by files "
                                        "in the cache; an MPI program can call the library "
                                        "(fvprefetch/mpi.h)");
  } else if (!launch.advice.empty()) {
    job.go_on_without_mpi(launch.advice);
  } else if (!launch.remark.empty()) {
    std::string lost;
    if (!call.options.stage.empty()) {
      lost = "; each process copies to --stage for itself, so that each node reads the caches";
    } else if (call.options.scope == Scope::kNode) {
      lost = "; caches of each node's own (--scope node) are not filled from rank 0's";
    }
    if (call.verbose || !lost.empty()) job.notices_.push_back(launch.remark + lost);
  }
  if (job.ranks_ == nullptr) job.ranks_ = make_self_collective(posix::host_name());
  return job;
}

Status Job::start_mpi(const Invocation& call, const Options& options, const Signals& signals) {
  const auto without = [&](const Error& error) -> Status {
    if (call.mpi == MpiWish::kOn) {
      return fail(ErrorCode::kLauncher, describe(error), std::string(hint(error)));
    }
    // Only a hint of its own: the table's is for those who required MPI.
    go_on_without_mpi("MPI is not used: " + describe(error) +
                      (error.hint.empty() ? "" : "; " + error.hint));
    return {};
  };
  // A module that is missing may be so on this node alone.
  const auto module_missing = [&](const Error& error) -> Status {
    const Launch before = launch_;
    Status done = without(error);
    Launch noted = before;
    noted.mode = Launch::Mode::kLockOnly;
    note_without_mpi(noted, options, describe(error));
    return done;
  };

  const auto path = find_mpi_module(options.environment, executable_directory());
  if (!path) return module_missing(path.error());
  const auto module = load_mpi_module(*path);
  if (!module) return module_missing(module.error());

  module_ = *module;  // from here on finalize() is due, whatever comes
  auto ranks = [&] {
    const InitWatch watch(launch_, options, signals, call.quiet);
    return module_->open(greeting_of(call));
  }();
  if (!ranks) return without(ranks.error());
  ranks_ = *std::move(ranks);

  // Every process as rank 0 of 1: MPI runs, and unites nobody.
  if (const auto mismatch = size_mismatch(launch_, ranks_->size())) {
    if (call.mpi == MpiWish::kOn) return fail(ErrorCode::kLauncher, *mismatch);
    go_on_without_mpi(*mismatch);
    ranks_.reset();
    return {};
  }
  if (call.mpi != MpiWish::kOn && may_have_others(launch_, ranks_->size())) {
    // They go on without MPI, and wait for us. Said by none: perhaps there are no others.
    launch_.mode = Launch::Mode::kLockOnly;
    ranks_.reset();
    return {};
  }
  return check_greetings(*ranks_, call, options);
}

void Job::go_on_without_mpi(std::string why) {
  launch_.mode = launch_.launcher == "none" ? Launch::Mode::kAlone : Launch::Mode::kLockOnly;
  notices_.push_back(std::move(why) + (works_for_itself() ? "; going on with the file lock alone"
                                                          : "; going on without it"));
}

Job::Job(Job&& other) noexcept
    : launch_(std::move(other.launch_)),
      module_(std::exchange(other.module_, nullptr)),
      ranks_(std::move(other.ranks_)),
      notices_(std::move(other.notices_)) {}

Job::~Job() {
  ranks_.reset();  // before MPI_Finalize
  if (module_ != nullptr) module_->finalize();
}

void Job::abort(int exit_code) {
  if (module_ != nullptr) module_->abort(exit_code);
}

bool Job::is_first() const {
  if (launch_.mode == Launch::Mode::kLockOnly) return launch_.rank.value_or(0) == 0;
  return ranks_->rank() == 0;
}

std::string Job::mpi_library() const {
  return module_ != nullptr ? module_->library() : std::string();
}

bool prints_results(PrintMode mode, const Launch& launch, bool is_first) {
  switch (mode) {
    case PrintMode::kAuto:
      return is_first || !launch.by_launcher();
    case PrintMode::kRank0:
      return is_first;
    case PrintMode::kAll:
      return true;
    case PrintMode::kNone:
      return false;
  }
  return is_first;
}

bool has_mpi() {
  return FVPREFETCH_HAS_MPI != 0;
}

Launch launch_without_mpi(const EnvironmentLookup& env) {
  return launch_of_this_process(env, MpiWish::kOff, has_mpi());
}

}  // namespace fvprefetch::cli
