// Which lock excludes, on this very mount: found out by trying, since neither the file system's
// type nor a call that succeeds tells (a flock that is local to each node succeeds on all of them).
//
// Who takes part: the leaders of the nodes; on a single node its first two ranks, and then nothing
// is proved about others. For each primitive (prefetch/lock_probe), in a directory of its own:
//
//   1. the first takes it, and holds it while all others try; then the second does the same
//   2. all try at the same time, several times: one may have it
//
// and once: the first makes a name, and the others count how long it takes until they see it, both
// those who look afresh, as fvprefetch does, and those who had looked for it before and just look
// again, as other programs do.
//
// All ranks make the same collective calls in the same order, whatever happens on one of them: what
// comes next depends only on what all have told. Each step between two of them has a deadline.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "cluster/collective.h"
#include "fvprefetch/error.h"
#include "prefetch/lock_probe.h"

namespace fvprefetch {

enum class Verdict {
  kExcludes,
  kDoesNotExclude,  ///< two had it at the same time
  kHangs,           ///< a call did not return
  kRefused,         ///< the file system does not have it
  kUnclear          ///< nobody got it, or nobody after it was let go
};
/// "excludes", "does not exclude", "hangs", "refused", "unclear".
[[nodiscard]] std::string_view name(Verdict verdict);

struct TriedPrimitive {
  Primitive primitive = Primitive::kFlock;
  Verdict verdict = Verdict::kUnclear;
  std::string detail;                        ///< who and what, when it is not kExcludes
  std::chrono::milliseconds slowest_try{0};  ///< of any rank
};

struct SelfTest {
  std::string directory;  ///< rank 0's: what was tested is inside it
  /// Nodes, or "<host> (rank 1)", that took part.
  std::vector<std::string> parties;
  bool between_nodes = false;
  /// Nodes that do not see what rank 0 makes in it: the directory is not shared with them.
  std::vector<std::string> blind;
  std::string not_run;  ///< why nothing was tried; "" when it was
  /// kNoSpace, kPermission: the probe directory or something in it could not be made, and no more
  /// can what is fetched.
  std::optional<Error> could_not_write;
  std::vector<TriedPrimitive> tried;
  /// How long a new name took to show on the slowest; nullopt: longer than `waited_for`.
  std::optional<std::chrono::milliseconds> shows_afresh;
  std::optional<std::chrono::milliseconds> shows_again;
  std::chrono::milliseconds waited_for{0};
  std::optional<Error> left_behind;  ///< the probe directory could not be removed

  [[nodiscard]] const TriedPrimitive* find(Primitive primitive) const;
};

/// What `--lock auto` comes to there, as words: "flock, and a lease made by link inside it".
[[nodiscard]] std::string relied_on(const SelfTest& test);
/// Whether any of what `auto` uses excludes.
[[nodiscard]] bool any_lock_excludes(const SelfTest& test);

struct SelfTestOptions {
  std::chrono::milliseconds visible_timeout{60'000};
  std::chrono::milliseconds patience{10'000};  ///< of one call
  std::stop_token stop;                        ///< ends waiting, not the protocol
  Clock* clock = nullptr;                      ///< null: the real one
  /// Tests put liars in here; empty: make_lock_probe().
  std::function<std::unique_ptr<LockProbe>(Primitive, const std::string& directory,
                                           const std::string& who)>
      make_probe;
};

/// What is tested, as each rank has it.
struct SelfTestPlace {
  std::string base;    ///< the probe directory is made in here; "" when this rank cannot
  bool local = false;  ///< what does not show at once never will, as far as that is known
};

/// Collective: every rank passes its own `place`. The same answer on every rank; the error is a
/// broken communicator. Never throws.
[[nodiscard]] Result<SelfTest> self_test(Collective& ranks, const SelfTestPlace& place,
                                         const SelfTestOptions& options);

}  // namespace fvprefetch
