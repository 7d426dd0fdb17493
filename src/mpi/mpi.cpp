#include "fvprefetch/mpi.h"

#include <csignal>
#include <functional>
#include <memory>
#include <stop_token>
#include <utility>

#include "base/clock.h"
#include "base/environment.h"
#include "base/try.h"
#include "cluster/distribute.h"
#include "cluster/launcher.h"
#include "cluster/scope.h"
#include "cluster/stage.h"
#include "mpi/mpi_collective.h"
#include "prefetch/run.h"

namespace fvprefetch::mpi {

// A Collective per call: the caller's communicator may be gone before the next one, and nothing of
// ours must be left when MPI_Finalize comes.
Report prefetch(MPI_Comm comm, const Manifest& manifest, const Options& wished) {
  const Clock::TimePoint begin = real_clock().now();
  // Rank 0 stops when any rank is asked to.
  std::stop_source stop;
  const std::stop_callback asked(wished.stop, [&stop] { stop.request_stop(); });
  int told = 0;  // by another rank
  Options options = wished;
  options.stop = stop.get_token();
  options.stop_signal = [&] {
    if (told != 0) return told;
    return wished.stop_signal ? wished.stop_signal() : SIGTERM;
  };
  auto report = guard([&]() -> Result<Report> {
    FVP_TRY(const std::unique_ptr<Collective> ranks, make_mpi_collective(comm));
    DistributeOptions how;
    how.launcher =
        decide_launch(environment::or_process(options.environment), MpiWish::kAuto, true).launcher;
    how.vigil.signal = [&] { return options.stop.stop_requested() ? options.stop_signal() : 0; };
    how.vigil.on_signal = [&](int number) {
      told = number;
      stop.request_stop();
    };
    how.fill = [&](Report found) {
      return fill_own_caches(
          *ranks, std::move(found), [&]() -> const Manifest& { return manifest; }, options,
          stage_options(options, how.vigil, begin));
    };
    const Report shared = distribute(
        *ranks, [&] { return fvprefetch::prefetch(manifest, options); }, how);
    // Only rank 0's options count: the others learn in there whether there is anything to do.
    return stage(
        *ranks, shared, [&] { return stage_order(manifest, options, shared); },
        stage_options(options, how.vigil, begin));
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
