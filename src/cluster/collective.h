// The ranks of a job as a seam, without MPI types: a handful of collective verbs.
//
// Three implementations pass one contract suite: SelfCollective (one rank), the tests' threads, and
// mpi/mpi_collective. Every function marked Collective must be called by every rank in the same
// order; between two of them no rank may return early (design section D5).
//
// An Error from a collective itself means that the communicator is not usable any more.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch {

class Collective {
 public:
  virtual ~Collective() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  /// One rank per node is its leader: the lowest one.
  [[nodiscard]] virtual bool node_leader() const = 0;
  [[nodiscard]] virtual int nodes() const = 0;
  /// Name of this rank's node.
  [[nodiscard]] virtual const std::string& node() const = 0;

  /// Collective: returns on every rank when all ranks are here. Waiting uses next to no CPU; the
  /// wake-up comes at most 10 + 50 x ceil(log2 N) ms late.
  [[nodiscard]] virtual Status quiet_wait() = 0;
  /// Collective: rank 0's `bytes` on every rank; the argument of other ranks is ignored. Any size.
  [[nodiscard]] virtual Result<std::string> broadcast(std::string bytes) = 0;
  /// Collective: the largest `value` of all ranks, on every rank.
  [[nodiscard]] virtual Result<int> max(int value) = 0;
  /// Collective: every rank's `text`, by rank, on every rank. For short texts.
  [[nodiscard]] virtual Result<std::vector<std::string>> all_gather(const std::string& text) = 0;
};

/// One rank: nothing to wait for.
[[nodiscard]] std::unique_ptr<Collective> make_self_collective(std::string node);

/// Collective: the same answer on every rank: the Error of the lowest rank that passes one, with a
/// count of the others; nullopt when none does. The result itself fails when the collective does.
[[nodiscard]] Result<std::optional<Error>> first_failure(Collective& ranks,
                                                         const std::optional<Error>& mine);

}  // namespace fvprefetch
