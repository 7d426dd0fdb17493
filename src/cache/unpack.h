// An archive from somewhere, unpacked into a private directory: zip, or tar, as it is or in gzip,
// xz or zstd. With decompress.cpp the only user of libarchive.
//
// The archive is not trusted, whoever serves it. Refused as a whole, naming the member:
//   names     absolute, with "..", not UTF-8, with a control character, too long, or one of ours
//   twice     a name that is there already, or that lies below a file or a link
//   links     symbolic ones that lead out of the directory, by themselves or through other links,
//             or in a circle, or whose text is too long for one; hard ones to anything but an
//             earlier file of the archive
//   kinds     devices, FIFOs, sockets, encrypted members
//   size      more than 1,000,000 members, or folders that they lie in; more than 1 GiB and 100
//             times the archive's own size, as bombs have; more than there is room for
//   damage    cut short, a wrong checksum (of gzip, xz, zstd, tar's headers, zip's members and the
//             texts of its links), two places of a zip that disagree, other bytes behind its end,
//             two zips, or no archive at all
// Tars that were joined are unpacked to the end of the last.
// No link exists while files are written, so that nothing is written through one. Modes, owners and
// times of the archive are not taken over, but that a file is for its owner to run: no set-user-ID
// bit, and no old time, by which a scratch file system would purge the file soon. Hard links become
// files of their own.
//
// A tar that is cut exactly between two members differs from a whole one by the zeros at its end
// alone, which some writers leave out: without them it is refused unless it is pinned.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/posix.h"
#include "cache/receipt.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

constexpr std::uint64_t kMostMembers = 1'000'000;
/// Unpacked bytes for each byte of the archive.
constexpr std::uint64_t kMostGrowth = 100;
/// Unpacked bytes that are no bomb, however small the archive.
constexpr std::uint64_t kHarmlessBytes = std::uint64_t{1} << 30U;

struct UnpackOptions {
  /// Leading folders to leave out of every name, as tar does: what is not that deep is left out
  /// itself.
  std::uint64_t strip_components = 0;
  /// Bytes that there is room for; nullopt: that is not known, or not to be asked.
  std::optional<std::uint64_t> room;
  /// The archive is known to be whole: its size or digest was told and is right.
  bool pinned = false;
  StopCheck must_stop;  ///< asked within members, too, large or skipped; may be empty
  ReadMeter meter;      ///< told of the bytes that were written; may be empty
};

/// Unpacks the file `archive`, called `name` in messages, into `directory`, which must not exist;
/// all of it is synced. Returns its files and links, sorted, each file with size and sha256.
/// Blocks.
///
/// kIntegrity: as above; kNoSpace; kUsage: nothing is that deep. Where sizes stand in front of the
/// data (zip, tar as it is) what is too large is refused before a byte is written. On failure the
/// caller removes `directory`.
[[nodiscard]] Result<std::vector<ReceiptFile>> unpack(const posix::Fd& archive,
                                                      const std::string& name,
                                                      const std::string& directory,
                                                      const UnpackOptions& options);

}  // namespace fvprefetch
