// SHA-1 and SHA-256 as lower-case hex: what the Hub puts into etags, oids and commits.
// Written apart from src/base/digest on purpose: the hub is the oracle of those digests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace fvprefetch::testhub {

enum class Algorithm { kSha1, kSha256 };

class Digest {
 public:
  explicit Digest(Algorithm algorithm);
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void update(std::string_view bytes);
  /// Call once; the object is spent afterwards.
  std::string finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string sha1_hex(std::string_view bytes);
std::string sha256_hex(std::string_view bytes);

/// Git's name of a blob: sha1("blob <size>\0" + bytes).
std::string git_blob_sha1(std::string_view bytes);

/// Streams the file; throws std::system_error when it cannot be read.
std::string file_sha256(const std::filesystem::path& path);
std::string file_git_blob_sha1(const std::filesystem::path& path, std::uint64_t size);

}  // namespace fvprefetch::testhub
