// A receipt says what was verified when a file or snapshot was published, so that a later run can
// call it complete without a request. It is a convenience, never a requirement: a read-only cache
// has none, and a broken one counts as absent.
//
// Format: JSON {"version": 1, ...} with the fields below; an unknown version counts as absent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch {

struct ReceiptFile {
  std::string path;
  std::uint64_t size = 0;
  std::string blob;           ///< Hub only
  std::string sha256;         ///< when known
  std::int64_t mtime_ns = 0;  ///< of a URL file: a changed file is not the verified one
  std::string link;           ///< unpacked: it is a symbolic link with this text, and has no size

  bool operator==(const ReceiptFile&) const = default;
};

/// What a directory was unpacked from. It is whole as long as each of the receipt's files has its
/// size and each of its links its text; their paths begin at the directory.
struct ReceiptArchive {
  std::string sha256;
  std::uint64_t size = 0;
  std::uint64_t strip_components = 0;

  bool operator==(const ReceiptArchive&) const = default;
};

struct Receipt {
  std::string id;           ///< random, 32 hex digits: tells one publication from another
  std::string source;       ///< redacted URL, or repo id
  std::string source_key;   ///< SHA-256 of the source as given, to notice another one; empty: a
                            ///< file that lay there already was looked into, and no more is known
  std::string revision;     ///< Hub: as asked for
  std::string commit;       ///< Hub
  std::string resolved_at;  ///< RFC 3339 UTC
  std::string written_at;   ///< RFC 3339 UTC
  /// Hub: the bytes of each file were hashed by us. Else some lay there already, with the right
  /// sizes.
  bool hashed = false;
  std::vector<ReceiptFile> files;
  std::optional<ReceiptArchive> archive;  ///< of an entry that is unpacked

  bool operator==(const Receipt&) const = default;
};

/// nullopt when there is none that can be read and understood, or when a name in it could not be
/// one of the cache's.
[[nodiscard]] std::optional<Receipt> read_receipt(const std::string& path);
/// Fills id and written_at, and publishes by way of `temp`.
[[nodiscard]] Status write_receipt(const std::string& temp, const std::string& path,
                                   Receipt receipt);

}  // namespace fvprefetch
