#include "cli/job.h"

#include <utility>

#include "base/posix.h"
#include "base/try.h"
#include "cli/mpi_module.h"

#ifndef FVPREFETCH_HAS_MPI
#define FVPREFETCH_HAS_MPI 0
#endif

namespace fvprefetch::cli {

Result<Job> Job::open(MpiWish wish, const EnvironmentLookup& env) {
  Job job;
  job.launch_ = decide_launch(env, wish, FVPREFETCH_HAS_MPI != 0);
  if (job.launch_.mode == Launch::Mode::kMpi) {
    FVP_CHECK_OK(job.start_mpi(wish, env));
  } else if (wish == MpiWish::kOn) {
    return fail(ErrorCode::kLauncher, job.launch_.advice.empty()
                                          ? "MPI was required, and there is none here"
                                          : job.launch_.advice);
  } else if (!job.launch_.advice.empty()) {
    job.go_on_without_mpi(job.launch_.advice);
  }
  if (job.ranks_ == nullptr) job.ranks_ = make_self_collective(posix::host_name());
  return job;
}

Status Job::start_mpi(MpiWish wish, const EnvironmentLookup& env) {
  const auto without = [&](const Error& error) -> Status {
    if (wish == MpiWish::kOn) {
      return fail(ErrorCode::kLauncher, describe(error), std::string(hint(error)));
    }
    // Only a hint of its own: the table's is for those who required MPI.
    go_on_without_mpi("MPI is not used: " + describe(error) +
                      (error.hint.empty() ? "" : "; " + error.hint));
    return {};
  };

  const auto path = find_mpi_module(env, executable_directory());
  if (!path) return without(path.error());
  const auto module = load_mpi_module(*path);
  if (!module) return without(module.error());

  module_ = *module;  // from here on finalize() is due, whatever comes
  auto ranks = module_->open();
  if (!ranks) return without(ranks.error());
  ranks_ = *std::move(ranks);

  // Every process as rank 0 of 1: MPI runs, and unites nobody.
  if (const auto mismatch = size_mismatch(launch_, ranks_->size())) {
    if (wish == MpiWish::kOn) return fail(ErrorCode::kLauncher, *mismatch);
    go_on_without_mpi(*mismatch);
    ranks_.reset();
  } else if (wish != MpiWish::kOn && may_have_others(launch_, ranks_->size())) {
    // They go on without MPI, and wait for us. Said by none: perhaps there are no others.
    launch_.mode = Launch::Mode::kLockOnly;
    ranks_.reset();
  }
  return {};
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

bool Job::speaks() const {
  if (launch_.mode == Launch::Mode::kLockOnly) return launch_.rank.value_or(0) == 0;
  return ranks_->rank() == 0;
}

std::string Job::mpi_library() const {
  return module_ != nullptr ? module_->library() : std::string();
}

std::optional<int> told_rank(const EnvironmentLookup& env) {
  return decide_launch(env, MpiWish::kOff, FVPREFETCH_HAS_MPI != 0).rank;
}

}  // namespace fvprefetch::cli
