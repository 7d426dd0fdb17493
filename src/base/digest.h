// SHA-256 and git's blob SHA-1, fed piece by piece. The only user of OpenSSL.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

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
/// Reads the file once. Blocks on the disk.
[[nodiscard]] Result<std::string> hash_file(const std::string& path, Digest::Kind kind);

/// Whether `actual` (full hex) agrees with `expected` (full, or a prefix for kSha256).
[[nodiscard]] bool agrees(const Digest& expected, std::string_view actual);

/// One or more lower-case hex digits and nothing else.
[[nodiscard]] bool is_hex(std::string_view text);

}  // namespace fvprefetch
