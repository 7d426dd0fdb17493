// `doctor`: what a fetch will meet on every node of the job, and which lock excludes between them.
//
// The leader of each node examines it (prefetch/examine); then the locks are tested in every cache
// directory that lies on a file system of its own (cluster/self_test).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cluster/collective.h"
#include "cluster/self_test.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/examine.h"

namespace fvprefetch {

struct TestedDirectory {
  std::string role;     ///< as in ExaminedDirectory
  std::string same_as;  ///< role of the one that lies on the same file system; "" when tested
  SelfTest test;        ///< when `same_as` is empty
};

struct Diagnosis {
  int ranks = 1;
  int nodes = 1;
  std::vector<ExaminedNode> examined;  ///< by leader's rank
  std::vector<TestedDirectory> tested;
  std::vector<Finding> findings;  ///< of the job as a whole
  std::optional<Error> error;     ///< the first failure

  [[nodiscard]] ErrorCode code() const { return error ? error->code : ErrorCode::kOk; }
};

struct DiagnoseOptions {
  SelfTestOptions self_test;
  /// Found already, about the job as a whole; the same on every rank.
  std::vector<Finding> findings;
  enum class Locks {
    kTest,
    kLeave  ///< another process of this job tests them
  };
  Locks locks = Locks::kTest;
};

/// Collective: every rank passes options of the same kind. The same answer on every rank; a broken
/// communicator is in `error`. Never throws.
[[nodiscard]] Diagnosis diagnose(Collective& ranks, const Options& options,
                                 const DiagnoseOptions& how);

}  // namespace fvprefetch
