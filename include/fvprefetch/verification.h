// What verify() found: every file of a manifest as it lies on disk, beside what it ought to be.
//
// Plain values. Only the rank that called verify() has them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"
#include "fvprefetch/report.h"

namespace fvprefetch {

enum class FileState {
  kOk,            ///< read and hashed; everything that is known of it agrees
  kCorrupt,       ///< it is there, and its bytes are others than expected
  kMissing,       ///< not there, or a link that leads to no file
  kUnverifiable,  ///< it is there, and nothing tells its digest: no failure
  kUnchecked      ///< it could not be read, or the run ended before
};

/// "ok", "corrupt", "missing", "unverifiable", "unchecked".
[[nodiscard]] std::string_view name(FileState state);

struct VerifiedFile {
  std::string path;      ///< inside the entry, as in FileSpec
  std::string location;  ///< where it lies, or ought to
  FileState state = FileState::kUnchecked;
  std::optional<Digest> expected;     ///< nullopt: nothing tells
  std::string actual;                 ///< hex, of the kind of `expected`; empty when not hashed
  std::optional<std::uint64_t> size;  ///< bytes, as expected; nullopt: nothing tells
  std::optional<std::uint64_t> actual_size;  ///< bytes; nullopt: not there
  std::string note;  ///< one line for people: why it is unverifiable, missing or unchecked
};

struct VerifiedEntry {
  std::string name;
  EntryKind kind = EntryKind::kPath;
  bool optional = false;
  std::string source;  ///< redacted
  std::string path;    ///< what the entry resolves to; empty when that is not known
  std::string commit;  ///< Hub only
  /// What told which files there ought to be: "receipt", "tree", "manifest", or "snapshot" (nothing
  /// did, so that a file which is absent altogether was not missed). Empty: the entry is not there.
  std::string listed_by;
  std::vector<VerifiedFile> files;
  /// "ok", "corrupt", "missing", "unverifiable", "unchecked", or "failed" (see `error`). As it was
  /// found: a repair does not change it.
  std::string state;
  /// What was wrong has been fetched, checked and published.
  bool repaired = false;
  /// kIntegrity: files are corrupt. kOfflineMissing: files are missing. Else why it could not be
  /// looked at, or why it could not be repaired.
  std::optional<Error> error;
};

struct Verification {
  std::vector<VerifiedEntry> entries;  ///< in manifest order
  /// kIntegrity when a required entry has a corrupt file; else the first required entry that could
  /// not be looked at; else kOfflineMissing; kPartial when only optional entries have errors. After
  /// a repair, that of the repair. A signal or the deadline comes before all of these.
  std::optional<Error> error;
  std::uint64_t files_read = 0;  ///< each once, however many entries have it
  std::uint64_t bytes_read = 0;
  double seconds = 0;
  /// Options::repair, when there was something to repair: how the fetching of it went. Its entries
  /// are those that needed it.
  std::optional<Report> repair;

  [[nodiscard]] bool ok() const { return !error.has_value(); }
  [[nodiscard]] ErrorCode code() const { return error ? error->code : ErrorCode::kOk; }
};

}  // namespace fvprefetch
