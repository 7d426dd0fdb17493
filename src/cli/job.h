// How this process takes part in its job: alone, as a rank of an MPI job, or as one of several
// processes that meet over files alone (cluster/file_barrier). Decided before MPI is touched
// (cluster/launcher); MPI that cannot be had is a line for people, or kLauncher when it was
// required.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/signals.h"
#include "cluster/collective.h"
#include "cluster/launcher.h"
#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"
#include "mpi/module.h"

namespace fvprefetch::cli {

class Job {
 public:
  /// Collective when it starts MPI; then the process ends (kNetwork) when a rank does not come to
  /// MPI_Init within Options::rank_timeout or the deadline, and by a signal. Errors: kLauncher, and
  /// kUsage when ranks run different versions or were given different manifests; the same on every
  /// rank, before anything was done. `options`: with the environment set.
  [[nodiscard]] static Result<Job> open(const Invocation& call, const Options& options,
                                        const Signals& signals);

  Job(Job&& other) noexcept;
  Job& operator=(Job&&) = delete;
  ~Job();  ///< Collective: MPI_Finalize when open() has called MPI_Init

  [[nodiscard]] Collective& ranks() { return *ranks_; }
  /// Ends all ranks with that code. Returns where there is no MPI to do it.
  void abort(int exit_code);
  [[nodiscard]] const Launch& launch() const { return launch_; }
  /// Rank 0, as MPI or the launcher tells it; and every process that was not told its rank (the
  /// tasks of a job array). It tells people what the job does.
  [[nodiscard]] bool is_first() const;
  /// One of several processes without MPI: each may have to work for itself, and then has its own
  /// result.
  [[nodiscard]] bool works_for_itself() const { return launch_.mode == Launch::Mode::kLockOnly; }
  /// The MPI library, when one was loaded; else "".
  [[nodiscard]] std::string mpi_library() const;
  /// Lines for people about how the job was started, for the first process.
  [[nodiscard]] const std::vector<std::string>& notices() const { return notices_; }

 private:
  Job() = default;
  Status start_mpi(const Invocation& call, const Options& options, const Signals& signals);
  void go_on_without_mpi(std::string why);

  Launch launch_;
  const MpiModule* module_ = nullptr;  ///< when finalize() is due
  std::unique_ptr<Collective> ranks_;
  std::vector<std::string> notices_;
};

/// Whether this process has results to print, without MPI: what the launcher tells, who started it,
/// and the user's wish.
[[nodiscard]] bool prints_results(PrintMode mode, const Launch& launch, bool is_first);

/// This build has MPI.
[[nodiscard]] bool has_mpi();

/// How this process was started, as far as can be told without MPI.
[[nodiscard]] Launch launch_without_mpi(const EnvironmentLookup& env);

}  // namespace fvprefetch::cli
