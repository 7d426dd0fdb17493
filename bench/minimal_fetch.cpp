// Question: how fast can libcurl be at the least work? One easy handle, a private file, SHA-256 on
// a second thread; no retry, no resume, no fsync, no rename: a measure and not a tool.
//
//   minimal_fetch URL FILE SHA256 [CA_FILE]
#include <curl/curl.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace {

constexpr std::size_t kBlock = 1 << 20;
constexpr std::size_t kBlocks = 8;  // that may wait for the digest

struct Block {
  std::size_t used = 0;
  std::array<char, kBlock> bytes;
};

/// A ring of blocks between the connection (writes the file, hands blocks on) and the digest.
class Pipe {
 public:
  explicit Pipe(int fd) : fd_(fd) {}

  bool put(const char* data, std::size_t size) {
    while (size > 0) {
      Block& block = ring_[filled_ % kBlocks];
      const std::size_t piece = std::min(size, kBlock - block.used);
      std::memcpy(block.bytes.data() + block.used, data, piece);
      block.used += piece;
      data += piece;
      size -= piece;
      if (block.used == kBlock && !hand_on()) return false;
    }
    return true;
  }

  /// The block in hand goes to the file and to the digest; waits while the ring is full.
  bool hand_on(bool last = false) {
    const Block& block = ring_[filled_ % kBlocks];
    const ssize_t n = ::write(fd_, block.bytes.data(), block.used);  // short: the disk is full
    std::unique_lock lock(mutex_);
    ++filled_;
    ended_ = last;
    changed_.notify_all();
    changed_.wait(lock, [&] { return filled_ - hashed_ < kBlocks; });
    ring_[filled_ % kBlocks].used = 0;
    return n == static_cast<ssize_t>(block.used);
  }

  std::string digest() {
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> md(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    EVP_DigestInit_ex(md.get(), EVP_sha256(), nullptr);
    std::unique_lock lock(mutex_);
    for (;; ++hashed_, changed_.notify_all()) {
      changed_.wait(lock, [&] { return hashed_ < filled_ || ended_; });
      if (hashed_ == filled_) break;
      const Block& block = ring_[hashed_ % kBlocks];
      lock.unlock();
      EVP_DigestUpdate(md.get(), block.bytes.data(), block.used);
      lock.lock();
    }
    unsigned char raw[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    EVP_DigestFinal_ex(md.get(), raw, nullptr);
    OPENSSL_buf2hexstr_ex(hex, sizeof hex, nullptr, raw, 32, '\0');
    return hex;
  }

 private:
  const int fd_;
  std::array<Block, kBlocks> ring_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::size_t filled_ = 0;
  std::size_t hashed_ = 0;
  bool ended_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const int fd = ::open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  CURL* curl = curl_easy_init();
  if (fd < 0 || curl == nullptr) return 1;
  const auto pipe = std::make_unique<Pipe>(fd);
  std::string sha256;
  std::thread digest([&] { sha256 = pipe->digest(); });
  const auto write = +[](char* data, std::size_t, std::size_t size, void* to) {
    return static_cast<Pipe*>(to)->put(data, size) ? size : 0;
  };
  curl_easy_setopt(curl, CURLOPT_URL, argv[1]);
  curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 512L << 10);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, write);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, pipe.get());
  if (argc > 4) curl_easy_setopt(curl, CURLOPT_CAINFO, argv[4]);
  const CURLcode code = curl_easy_perform(curl);
  const bool handed_on = pipe->hand_on(true);
  digest.join();
  curl_easy_cleanup(curl);
  const bool whole = code == CURLE_OK && handed_on && ::close(fd) == 0;
  if (whole && ::strcasecmp(sha256.c_str(), argv[3]) == 0) return 0;
  std::fprintf(stderr, "%s; sha256 %s\n", curl_easy_strerror(code), sha256.c_str());
  return 1;
}
