#include "fvprefetch/mpi.h"

#include <atomic>
#include <functional>
#include <memory>
#include <stop_token>
#include <utility>

#include "base/clock.h"
#include "base/environment.h"
#include "base/try.h"
#include "cluster/attended.h"
#include "cluster/distribute.h"
#include "cluster/launcher.h"
#include "cluster/scope.h"
#include "cluster/stage.h"
#include "mpi/mpi_collective.h"
#include "prefetch/run.h"

namespace fvprefetch::mpi {

// A Collective per call: the caller's communicator may be gone before the next one, and nothing of
// ours must be left when MPI_Finalize comes.
Report prefetch(MPI_Comm comm, const Manifest& wanted, const Options& wished) {
  const Clock::TimePoint begin = real_clock().now();
  // All ranks stop when any rank is asked to. Owned together with work that may be left behind.
  struct Stop {
    std::stop_source source;
    std::atomic<int> told = 0;  // by another rank
  };
  const auto stop = std::make_shared<Stop>();
  const std::stop_callback asked(wished.stop, [&stop] { stop->source.request_stop(); });
  const auto manifest = std::make_shared<const Manifest>(wanted);
  const OwnedOptions owned(wished);
  Options options = owned.options();
  options.stop = stop->source.get_token();
  options.stop_signal = [stop, own = options.stop_signal] {
    const int told = stop->told;
    return told != 0 ? told : own();
  };
  auto report = guard([&]() -> Result<Report> {
    MpiOptions meeting;
    meeting.limit = options.rank_timeout;
    FVP_TRY(const std::unique_ptr<Collective> ranks, make_mpi_collective(comm, meeting));
    DistributeOptions how = distribute_options(options, begin);
    how.launcher =
        decide_launch(environment::or_process(wished.environment), MpiWish::kAuto, true).launcher;
    how.attendance.vigil.on_signal = [stop](int number) {
      stop->told = number;
      stop->source.request_stop();
    };
    const StageOptions staging = stage_options(options, how.attendance);
    how.fill = [&](Report found) {
      return fill_own_caches(
          *ranks, std::move(found), [manifest]() -> const Manifest& { return *manifest; }, options,
          staging);
    };
    const Report shared = distribute(
        *ranks, [manifest, options] { return fvprefetch::prefetch(*manifest, options); }, how);
    // Only rank 0's options count: the others learn in there whether there is anything to do.
    return stage(
        *ranks, shared,
        [manifest, options, shared] { return stage_order(*manifest, options, shared); }, staging);
  });
  return report ? *std::move(report) : failed_report(std::move(report).error());
}

Result<std::string> ensure_checkpoint(MPI_Comm comm, const std::string& name,
                                      const std::string& source, const std::string& filename,
                                      const Options& options) {
  // As the function of one process does it, so that the contract cannot differ; the arguments are
  // checked on rank 0 only.
  const Manifest manifest = checkpoint_manifest(name, source, filename);
  return checkpoint_path(prefetch(comm, manifest, options));
}

}  // namespace fvprefetch::mpi
