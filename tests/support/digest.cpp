#include "digest.h"

#include <openssl/evp.h>

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <vector>

namespace fvprefetch::testhub {

struct Digest::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

Digest::Digest(Algorithm algorithm) : impl_(std::make_unique<Impl>()) {
  const EVP_MD* type = algorithm == Algorithm::kSha1 ? EVP_sha1() : EVP_sha256();
  if (EVP_DigestInit_ex(impl_->context, type, nullptr) != 1) {
    throw std::runtime_error("OpenSSL has no such digest");
  }
}

Digest::~Digest() = default;

void Digest::update(std::string_view bytes) {
  if (EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()) != 1) {
    throw std::runtime_error("digest update failed");
  }
}

std::string Digest::finish() {
  static constexpr char kHex[] = "0123456789abcdef";
  std::array<unsigned char, EVP_MAX_MD_SIZE> raw{};
  unsigned int size = 0;
  if (EVP_DigestFinal_ex(impl_->context, raw.data(), &size) != 1) {
    throw std::runtime_error("digest final failed");
  }
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) hex += {kHex[raw[i] >> 4], kHex[raw[i] & 15]};
  return hex;
}

namespace {

std::string of_text(Algorithm algorithm, std::string_view bytes) {
  Digest digest(algorithm);
  digest.update(bytes);
  return digest.finish();
}

std::string git_header(std::uint64_t size) {
  return "blob " + std::to_string(size) + std::string(1, '\0');
}

void add_file(Digest& digest, const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), path.string());
  std::vector<char> buffer(1 << 20);
  ssize_t got = 0;
  while ((got = ::read(fd, buffer.data(), buffer.size())) > 0) {
    digest.update({buffer.data(), static_cast<std::size_t>(got)});
  }
  const int error = errno;
  ::close(fd);
  if (got < 0) throw std::system_error(error, std::generic_category(), path.string());
}

}  // namespace

std::string sha1_hex(std::string_view bytes) {
  return of_text(Algorithm::kSha1, bytes);
}

std::string sha256_hex(std::string_view bytes) {
  return of_text(Algorithm::kSha256, bytes);
}

std::string git_blob_sha1(std::string_view bytes) {
  return sha1_hex(git_header(bytes.size()).append(bytes));
}

std::string file_sha256(const std::filesystem::path& path) {
  Digest digest(Algorithm::kSha256);
  add_file(digest, path);
  return digest.finish();
}

std::string file_git_blob_sha1(const std::filesystem::path& path, std::uint64_t size) {
  Digest digest(Algorithm::kSha1);
  digest.update(git_header(size));
  add_file(digest, path);
  return digest.finish();
}

}  // namespace fvprefetch::testhub
