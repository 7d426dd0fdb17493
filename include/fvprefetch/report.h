// The result of a run, the same on every rank. As JSON it is what `--json` prints and what rank 0
// broadcasts: one format (schema 1), one serialiser (src/prefetch/report.cpp).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"

namespace fvprefetch {

enum class EntryState { kHit, kFetched, kResumed, kStaged, kFailed, kSkipped };

/// "hit", "fetched", "resumed" (fetched, but for what an earlier run had brought), "staged" (there,
/// and `path` is a copy on this rank's node), "failed", "skipped" (not tried, since a required
/// entry had failed before).
[[nodiscard]] std::string_view name(EntryState state);

/// The entry is there.
[[nodiscard]] constexpr bool succeeded(EntryState state) {
  return state == EntryState::kHit || state == EntryState::kFetched ||
         state == EntryState::kResumed || state == EntryState::kStaged;
}

struct EntryReport {
  std::string name;
  EntryKind kind = EntryKind::kPath;
  EntryState state = EntryState::kFailed;
  bool optional = false;
  /// What ensure_checkpoint returns for the entry; empty when it failed.
  std::string path;
  std::string commit;       ///< Hub only
  std::string resolved_at;  ///< when `commit` was looked up, RFC 3339 UTC; empty for a pinned one
  /// How a hit is known to be complete: "receipt", "tree", "manifest" (its `files`), "size",
  /// "present", "unverified".
  std::string verified_by;
  std::uint64_t files = 0;
  std::uint64_t bytes_total = 0;
  std::uint64_t bytes_fetched = 0;
  std::uint64_t requests = 0;
  double seconds = 0;
  std::vector<std::string> warnings;
  std::optional<Error> error;
};

struct LockReport {
  std::string kind = "none";  ///< "flock+lease", or the one that was taken
  double waited_seconds = 0;
  std::string holder;  ///< the last one that was waited for
};

/// What was copied to one node's own disk.
struct NodeReport {
  std::string node;
  std::uint64_t entries = 0;  ///< complete there now
  std::uint64_t files = 0;    ///< that came in this run; what was there already did not
  std::uint64_t bytes = 0;    ///< of these
  double seconds = 0;
  /// Why the node does not have all entries; it uses the shared copies of the others.
  std::optional<Error> error;
};

struct StageReport {
  std::string directory;
  std::uint64_t bytes_read = 0;  ///< from the shared caches, for all nodes together
  std::vector<NodeReport> nodes;
};

struct Report {
  /// The first failed required entry in manifest order; kPartial when only optional ones failed.
  std::optional<Error> error;
  int ranks = 1;
  int nodes = 1;
  std::string launcher = "none";
  std::vector<EntryReport> entries;
  LockReport lock;
  std::optional<StageReport> stage;  ///< with Options::stage only
  /// Requests that belong to no entry or to several (revision, tree).
  std::uint64_t requests = 0;
  double seconds = 0;

  [[nodiscard]] bool ok() const { return !error.has_value(); }
  [[nodiscard]] ErrorCode code() const { return error ? error->code : ErrorCode::kOk; }
};

/// A report that consists of one error: what a run that could not begin returns.
[[nodiscard]] Report failed_report(Error error);

/// One JSON document, `"schema": 1`, no newline at the end.
[[nodiscard]] std::string to_json(const Report& report);

/// The inverse of to_json; kInternal when `text` is no report of a schema that we know.
[[nodiscard]] Result<Report> report_from_json(std::string_view text);

}  // namespace fvprefetch
