// One rank does the work, every rank gets the same report.
//
// Protocol (version 1), the same calls on every rank whatever happens:
//   1. rank 0 runs `work` on a second thread and attends to the others; they go straight on
//   2. await_work(): a wait that uses next to no CPU. A signal that any rank is sent ends the work
//   3. broadcast: 16-byte header {u32 version, u32 code, u64 length} and the report as JSON
//   4. `fill`, where there is one: collective, too
//   5. each node's leader opens what the report names (a network file system may show a new name
//      late), on a second thread; await_work(); first_failure() makes one node's failure that of
//      all ranks (kNotVisible). With one node rank 0 does it in step 1.
#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "base/clock.h"
#include "cluster/attended.h"
#include "cluster/collective.h"
#include "fvprefetch/prefetch.h"
#include "fvprefetch/report.h"

namespace fvprefetch {

struct DistributeOptions {
  std::chrono::milliseconds visible_timeout{60'000};
  HitCheck hits = HitCheck::kOneFile;
  std::string launcher = "none";  ///< for the report
  Clock* clock = nullptr;         ///< null: the real one
  Attendance attendance;          ///< of this rank, while it or another one works
  /// Told of a wait for files that this node does not see, on either thread; may be null.
  Observer* observer = nullptr;
  /// Collective: brings what nodes lack to caches of their own. Empty: they have none.
  std::function<Report(Report)> fill;
};

/// As `options` say, of a run that began at `begin`: patience, visibility, observer, when to stop.
/// The signal that `options.stop` stands for is this rank's own.
[[nodiscard]] DistributeOptions distribute_options(const Options& options, Clock::TimePoint begin);

/// Collective: every rank passes its own `work`; only rank 0's is called, on a second thread, which
/// may be left behind (run_attended()): it and the options must own what they use, or the process
/// must end. Returns the same report on every rank; a broken collective gives its error, kNetwork
/// for a lost rank. Never throws.
[[nodiscard]] Report distribute(Collective& ranks, const std::function<Report()>& work,
                                const DistributeOptions& options);

/// How to wait for files to show on this node.
struct VisibilityCheck {
  HitCheck hits = HitCheck::kOneFile;
  std::chrono::milliseconds timeout{60'000};
  Clock* clock = nullptr;                           ///< null: the real one
  std::function<std::optional<Error>()> must_stop;  ///< may be empty
  Observer* observer = nullptr;                     ///< may be null
};

/// Waits until this process sees what `report` names. The error of what it does not see after the
/// timeout, required entries first, or of must_stop(); nullopt: it sees all of it.
[[nodiscard]] std::optional<Error> unseen_here(const Report& report, const VisibilityCheck& check);

}  // namespace fvprefetch
