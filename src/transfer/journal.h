// What lies in an unfinished download, as the next process finds it. One small JSON file for each
// private data file, replaced by rename, so that a reader sees one state or another and never half.
//
//   {"version": 1,
//    "size": 1000, "digest": "sha256:ab..",       what was expected; null when nobody told
//    "address": "<sha256 of the URL>", "etag": "\"v1\"", "total": 1000,   what the server said
//    "done": [[0, 500], [700, 800]], "durable": [[0, 400]],
//    "boot": "..",                                 the kernel that has written it
//    "owner": {"host", "boot", "pid_namespace", "pid", "started"}}        null: nobody's any more
//
// Constraints: a URL may hold a secret, so only its hash is told. A killed process loses nothing
// that it wrote, since the kernel has it: `done` holds for a reader under the same `boot`. A power
// failure (or an NFS client that is gone) may lose all that was not synced: for everybody else only
// `durable` holds. Neither is believed in the end: the digest decides, or else the strong
// validator, which is asked for again with If-Range.
//
// Versions: a reader refuses every version but its own, and the file is fetched anew; an unfinished
// download is not worth a migration. Refused: a bitmap of pieces (fixes the piece size for good), a
// record that is appended to (grows, and its end needs a checksum), the data's own holes (SEEK_DATA
// shows none on many network file systems).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/process.h"
#include "transfer/ranges.h"

namespace fvprefetch {

struct Journal {
  std::optional<std::uint64_t> size;   ///< expected, bytes
  std::string digest;                  ///< expected, "sha256:<hex>"; may be empty
  std::string address;                 ///< SHA-256 of the URL that the bytes came from
  std::string etag;                    ///< strong, of the bytes; may be empty
  std::optional<std::uint64_t> total;  ///< bytes, as far as anybody told
  RangeSet done;
  RangeSet durable;
  std::string boot;
  std::optional<ProcessName> owner;

  /// The ranges that can be relied on under the kernel `here`.
  [[nodiscard]] const RangeSet& reliable(const std::string& here) const {
    return !boot.empty() && boot == here ? done : durable;
  }
};

[[nodiscard]] std::string to_text(const Journal& journal);
/// nullopt: no journal of this version, or nonsense.
[[nodiscard]] std::optional<Journal> parse_journal(std::string_view text);

}  // namespace fvprefetch
