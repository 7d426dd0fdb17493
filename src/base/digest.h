// SHA-256 and git's blob SHA-1, fed piece by piece. The only user of OpenSSL.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/posix.h"
#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"

namespace fvprefetch {

/// Hashes a stream. Not copyable, one thread at a time.
class Hasher {
 public:
  /// For kGitSha1 the length is part of what is hashed, so `size` must be known.
  Hasher(Digest::Kind kind, std::uint64_t size);
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  ~Hasher();
  void update(std::span<const std::byte> data);
  /// Lower-case hex; the hasher is spent afterwards.
  [[nodiscard]] std::string finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Hex SHA-256 of a text.
[[nodiscard]] std::string sha256_hex(std::string_view text);
/// Hex SHA-1 (git blob form) of a text.
[[nodiscard]] std::string git_sha1_hex(std::string_view text);
/// Why long work has to end now (a signal, a deadline); nullopt: it may go on.
using StopCheck = std::function<std::optional<Error>()>;

/// A digest, and the file that has it: a path can be given to another file at any time.
struct HashedFile {
  std::string hex;
  posix::FileInfo info;
};
/// Told of the bytes of each piece that was read.
using ReadMeter = std::function<void(std::uint64_t bytes)>;
/// Reads the file at `path` once; blocks on the disk, asks `must_stop` before and tells `meter`
/// after each 4 MiB (both may be empty). A file that is written to meanwhile is read again, three
/// times at most; then kInternal.
[[nodiscard]] Result<HashedFile> hash_file(const std::string& path, Digest::Kind kind,
                                           const StopCheck& must_stop, const ReadMeter& meter = {});

/// The same of a file that another node may have removed: stat() may tell of it for seconds more.
/// nullopt: it is not there.
[[nodiscard]] Result<std::optional<HashedFile>> hash_if_there(const std::string& path,
                                                              Digest::Kind kind,
                                                              const StopCheck& must_stop);

/// Whether `actual` (full hex) agrees with `expected` (full, or a prefix for kSha256).
[[nodiscard]] bool agrees(const Digest& expected, std::string_view actual);

/// One or more lower-case hex digits and nothing else.
[[nodiscard]] bool is_hex(std::string_view text);

}  // namespace fvprefetch
