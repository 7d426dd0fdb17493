// One rank does the work, every rank gets the same report.
//
// Protocol (version 1), the same calls on every rank whatever happens:
//   1. rank 0 runs `work` behind guard(); the others go straight on
//   2. await_work(): a wait that uses no CPU to speak of; rank 0 gives signs of life, and hears of
//   a
//      signal that another rank was sent
//   3. broadcast: 16-byte header {u32 version, u32 code, u64 length} and the report as JSON
//   4. `fill`, where there is one: collective, too
//   5. each node's leader opens what the report names (a network file system may show a new name
//      late); first_failure() turns one node's failure into everybody's (kNotVisible)
#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "base/clock.h"
#include "cluster/collective.h"
#include "fvprefetch/report.h"

namespace fvprefetch {

/// What a node's leader looks at of a snapshot that was there before the job. (Of what the job
/// brought it always looks at every file.)
enum class HitCheck {
  kOneFile,  ///< enough to see that the node has the place
  kAll
};

struct DistributeOptions {
  std::chrono::milliseconds visible_timeout{60'000};
  HitCheck hits = HitCheck::kOneFile;
  std::string launcher = "none";  ///< for the report
  Clock* clock = nullptr;         ///< null: the real one
  Vigil vigil;  ///< while rank 0 works; afterwards nobody may be later than its patience
  /// Collective: brings what nodes lack to caches of their own. Empty: they have none.
  std::function<Report(Report)> fill;
};

/// Collective: every rank passes its own `work`; only rank 0's is called. Returns the same report
/// on every rank; a broken collective gives a kInternal report. Never throws.
[[nodiscard]] Report distribute(Collective& ranks, const std::function<Report()>& work,
                                const DistributeOptions& options);

/// Waits until this process sees what `report` names. The error of what it does not see after
/// `timeout`, required entries first; nullopt: it sees all of it.
[[nodiscard]] std::optional<Error> unseen_here(const Report& report,
                                               std::chrono::milliseconds timeout, Clock& clock);

}  // namespace fvprefetch
