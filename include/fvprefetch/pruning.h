// What prune() found of the private files that fvprefetch makes in a cache: unfinished downloads
// with their journals, small files on their way, records of who holds a lock.
//
// Plain values. Only the rank that called prune() has them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch {

enum class PruneState {
  kRemoved,  ///< an orphan; it is gone
  kOrphan,   ///< an orphan; Options::dry_run left it
  kInUse,    ///< its process lives on this host, or somebody holds the lock of its target
  kYoung,    ///< it changed within the last day
  kFailed    ///< an orphan that could not be removed
};

/// "removed", "orphan", "in_use", "young", "failed".
[[nodiscard]] std::string_view name(PruneState state);

struct PrunedFile {
  std::string path;
  PruneState state = PruneState::kYoung;
  std::uint64_t bytes = 0;     ///< that it takes (took) on the disk
  std::optional<Error> error;  ///< kFailed: why
};

struct Pruning {
  struct Amount {
    std::uint64_t files = 0;
    std::uint64_t bytes = 0;
  };

  bool dry_run = false;
  std::vector<PrunedFile> files;  ///< every private file of ours that was found
  /// Places that could not be looked into.
  std::vector<Error> warnings;
  /// The first file that should have been removed and could not be; a signal, the deadline; or the
  /// first place that this user may not look into.
  std::optional<Error> error;

  /// Of the files in that state.
  [[nodiscard]] Amount amount(PruneState state) const;
  [[nodiscard]] bool ok() const { return !error.has_value(); }
  [[nodiscard]] ErrorCode code() const { return error ? error->code : ErrorCode::kOk; }
};

}  // namespace fvprefetch
