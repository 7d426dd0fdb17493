// How this process takes part in its job: alone, as a rank of an MPI job, or as one of several
// processes that meet over files alone (cluster/file_barrier). Decided before MPI is touched
// (cluster/launcher); MPI that cannot be had is a line for people, or kLauncher when it was
// required.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/collective.h"
#include "cluster/launcher.h"
#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"
#include "mpi/module.h"

namespace fvprefetch::cli {

class Job {
 public:
  /// Collective when it starts MPI. Errors (kLauncher) are the same on every rank, and come before
  /// anything was done.
  [[nodiscard]] static Result<Job> open(MpiWish wish, const EnvironmentLookup& env);

  Job(Job&& other) noexcept;
  Job& operator=(Job&&) = delete;
  ~Job();  ///< Collective: MPI_Finalize when open() has called MPI_Init

  [[nodiscard]] Collective& ranks() { return *ranks_; }
  /// Ends all ranks with that code. Returns where there is no MPI to do it.
  void abort(int exit_code);
  [[nodiscard]] const Launch& launch() const { return launch_; }
  /// Whether this process speaks for the job: rank 0 as MPI or the launcher tells it, and every
  /// process that nobody has told its rank (the tasks of a job array).
  [[nodiscard]] bool speaks() const;
  /// One of several processes without MPI: each may have to work for itself, and then has its own
  /// result.
  [[nodiscard]] bool works_for_itself() const { return launch_.mode == Launch::Mode::kLockOnly; }
  /// The MPI library, when one was loaded; else "".
  [[nodiscard]] std::string mpi_library() const;
  /// Lines for people about how the job was started, for the process that speaks.
  [[nodiscard]] const std::vector<std::string>& notices() const { return notices_; }

 private:
  Job() = default;
  Status start_mpi(MpiWish wish, const EnvironmentLookup& env);
  void go_on_without_mpi(std::string why);

  Launch launch_;
  const MpiModule* module_ = nullptr;  ///< when finalize() is due
  std::unique_ptr<Collective> ranks_;
  std::vector<std::string> notices_;
};

/// The rank that the launcher tells, when it tells one. Needs no MPI.
[[nodiscard]] std::optional<int> told_rank(const EnvironmentLookup& env);

}  // namespace fvprefetch::cli
