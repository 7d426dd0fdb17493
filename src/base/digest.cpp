#include "base/digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/posix.h"
#include "base/try.h"

namespace fvprefetch {
namespace {

constexpr std::size_t kShortestPrefix = 8;

std::string to_hex(std::span<const unsigned char> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const unsigned char byte : bytes) {
    hex += kDigits[byte >> 4U];
    hex += kDigits[byte & 15U];
  }
  return hex;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string hash_text(std::string_view text, Digest::Kind kind) {
  Hasher hasher(kind, text.size());
  hasher.update(bytes_of(text));
  return hasher.finish();
}

struct ContextDeleter {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

}  // namespace

struct Hasher::Impl {
  std::unique_ptr<EVP_MD_CTX, ContextDeleter> context{EVP_MD_CTX_new()};
  // Once something failed (out of memory, an algorithm that a security policy forbids) the digest
  // is "", which agrees with nothing: a file that could not be checked is never accepted.
  bool ok = false;
};

Hasher::Hasher(Digest::Kind kind, std::uint64_t size) : impl_(std::make_unique<Impl>()) {
  // Fetched once and never freed: EVP_sha256() is looked up again by each EVP_DigestInit.
  static const EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  static const EVP_MD* const sha1 = EVP_MD_fetch(nullptr, "SHA1", nullptr);
  const EVP_MD* const algorithm = kind == Digest::Kind::kSha256 ? sha256 : sha1;
  impl_->ok = impl_->context != nullptr && algorithm != nullptr &&
              EVP_DigestInit_ex(impl_->context.get(), algorithm, nullptr) == 1;
  if (kind == Digest::Kind::kGitSha1) {
    const std::string header = "blob " + std::to_string(size);
    update(bytes_of(std::string_view(header.c_str(), header.size() + 1)));  // with its NUL
  }
}

Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;
Hasher::~Hasher() = default;

void Hasher::update(std::span<const std::byte> data) {
  impl_->ok = impl_->ok && EVP_DigestUpdate(impl_->context.get(), data.data(), data.size()) == 1;
}

std::string Hasher::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  impl_->ok = impl_->ok && EVP_DigestFinal_ex(impl_->context.get(), digest.data(), &length) == 1;
  std::string hex = impl_->ok ? to_hex(std::span(digest).first(length)) : std::string();
  impl_->ok = false;
  return hex;
}

std::string sha256_hex(std::string_view text) {
  return hash_text(text, Digest::Kind::kSha256);
}

std::string git_sha1_hex(std::string_view text) {
  return hash_text(text, Digest::Kind::kGitSha1);
}

Result<HashedFile> hash_file(const std::string& path, Digest::Kind kind, const StopCheck& must_stop,
                             const ReadMeter& meter) {
  FVP_TRY(const posix::Fd fd, posix::open_read(path));
  constexpr std::size_t kPiece = 4U << 20U;
  std::vector<std::byte> piece(kPiece);
  constexpr int kTries = 3;
  for (int i = 0; i < kTries; ++i) {
    FVP_TRY(const posix::FileInfo info, posix::stat(fd, path));
    Hasher hasher(kind, info.size);
    for (std::uint64_t offset = 0; offset <= info.size;) {  // one that grows on has changed
      if (must_stop) {
        if (std::optional<Error> stop = must_stop()) return fail(*std::move(stop));
      }
      FVP_TRY(const std::size_t length, posix::read_at(fd, offset, piece, path));
      if (length == 0) break;
      hasher.update(std::span(piece).first(length));
      offset += length;
      if (meter) meter(length);
    }
    std::string hex = hasher.finish();
    if (hex.empty()) return fail(ErrorCode::kInternal, "cannot hash " + path);
    FVP_TRY(const posix::FileInfo after, posix::stat(fd, path));
    if (after.size == info.size && after.mtime_ns == info.mtime_ns) {
      return HashedFile{std::move(hex), info};
    }
  }
  return fail(ErrorCode::kInternal, path + " is being written to while it is read",
              "find out which program writes there; fvprefetch replaces files by rename only");
}

Result<std::optional<HashedFile>> hash_if_there(const std::string& path, Digest::Kind kind,
                                                const StopCheck& must_stop) {
  auto hashed = hash_file(path, kind, must_stop);
  if (!hashed && hashed.error().code == ErrorCode::kNotFound) return std::nullopt;
  if (!hashed) return fail(std::move(hashed).error());
  return *std::move(hashed);
}

bool agrees(const Digest& expected, std::string_view actual) {
  std::string hex = expected.hex;
  std::transform(hex.begin(), hex.end(), hex.begin(), [](char c) {
    return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (!is_hex(hex) || !is_hex(actual)) return false;
  if (hex == actual) return true;
  return expected.kind == Digest::Kind::kSha256 && hex.size() >= kShortestPrefix &&
         actual.starts_with(hex);
}

bool is_hex(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
}

}  // namespace fvprefetch
