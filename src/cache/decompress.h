// The bytes of a file that is compressed as a whole: gzip, xz or zstd.
//
// All of it counts: each checksum that it carries is compared, and an end in the middle, or bytes
// behind the end that are no further member or frame, are errors. gzip is read with zlib, since
// libarchive passes over gzip's CRC-32 and length; the others with libarchive, whose libraries
// compare theirs. Whoever takes the bytes learns only from the end that they are right.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/posix.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

/// A file, piece by piece; `must_stop`, which may be empty, is asked before each.
class FilePieces {
 public:
  FilePieces(const posix::Fd& file, const std::string& name, const StopCheck& must_stop);

  /// The next bytes, valid until the next call; none at the end. Blocks on the file.
  [[nodiscard]] Result<std::span<const std::byte>> next();
  [[nodiscard]] std::uint64_t position() const { return position_; }
  void set_position(std::uint64_t position) { position_ = position; }

 private:
  const posix::Fd& file_;
  const std::string& name_;
  const StopCheck& must_stop_;
  std::vector<std::byte> buffer_;
  std::uint64_t position_ = 0;  ///< where the next piece begins
};

class Decompressed {
 public:
  Decompressed() = default;
  Decompressed(const Decompressed&) = delete;
  Decompressed& operator=(const Decompressed&) = delete;
  virtual ~Decompressed() = default;

  /// The next bytes, valid until the next call; none at the end, where all checksums were right.
  /// kIntegrity: it is broken or cut short, or other bytes are behind its end. Blocks on the file;
  /// `must_stop` is asked once for each bounded piece of work.
  [[nodiscard]] virtual Result<std::span<const std::byte>> next() = 0;
};

/// What is in `file`, which is called `name` in messages; nullptr: it is not compressed as a whole.
/// kIntegrity: it is, and cannot be read, or it is so more than once over. All arguments must
/// outlive the result.
[[nodiscard]] Result<std::unique_ptr<Decompressed>> decompress(const posix::Fd& file,
                                                               const std::string& name,
                                                               const StopCheck& must_stop);

}  // namespace fvprefetch
