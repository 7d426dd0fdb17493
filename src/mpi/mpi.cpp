#include "fvprefetch/mpi.h"

#include <functional>
#include <memory>
#include <utility>

#include "base/environment.h"
#include "base/try.h"
#include "cluster/distribute.h"
#include "cluster/launcher.h"
#include "mpi/mpi_collective.h"

namespace fvprefetch::mpi {
namespace {

// A Collective per call: the caller's communicator may be gone before the next one, and nothing of
// ours must be left when MPI_Finalize comes.
Report collectively(MPI_Comm comm, const Options& options, const std::function<Report()>& work) {
  auto report = guard([&]() -> Result<Report> {
    FVP_TRY(const std::unique_ptr<Collective> ranks, make_mpi_collective(comm));
    DistributeOptions how;
    how.launcher =
        decide_launch(environment::or_process(options.environment), MpiWish::kAuto, true).launcher;
    return distribute(*ranks, work, how);
  });
  return report ? *std::move(report) : failed_report(std::move(report).error());
}

}  // namespace

Report prefetch(MPI_Comm comm, const Manifest& manifest, const Options& options) {
  return collectively(comm, options, [&] { return fvprefetch::prefetch(manifest, options); });
}

Result<std::string> ensure_checkpoint(MPI_Comm comm, const std::string& name,
                                      const std::string& source, const std::string& filename,
                                      const Options& options) {
  // The very function of one process, so that the contract cannot differ; its arguments are
  // checked inside it, on rank 0 only. Every rank learns the answer as a report of one entry.
  const Report report = collectively(comm, options, [&]() -> Report {
    auto path = fvprefetch::ensure_checkpoint(name, source, filename, options);
    if (!path) return failed_report(std::move(path).error());
    EntryReport entry;
    entry.name = name;
    entry.state = EntryState::kHit;
    entry.path = *std::move(path);
    Report done;
    done.entries.push_back(std::move(entry));
    return done;
  });
  if (report.error) return fail(*report.error);
  if (report.entries.empty()) return fail(ErrorCode::kInternal, "the report names no path");
  return report.entries.front().path;
}

}  // namespace fvprefetch::mpi
