// Question: what does the engine make of 1 to 16 connections when the network costs nothing? The
// whole way of a file: request, write, SHA-256, fsync, rename; bytes/s of prefetch() on loopback.
//
//   build/bench/transfer_bench          caches below $FVP_BENCH_DIR, else /dev/shm, else $TMPDIR
//
// BM_Files/N: N files of 256/N MiB, one connection each. BM_OneFile/N: one file of 256 MiB over at
// most N connections. The server sends with sendfile() from memory, so its part is small, but it
// has the same cores, and the CPU time is that of both.
#include <arpa/inet.h>
#include <benchmark/benchmark.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/digest.h"
#include "base/posix.h"
#include "fvprefetch/prefetch.h"

namespace {

using namespace fvprefetch;

constexpr std::size_t kTotal = 256U << 20U;

/// GET /<bytes> answers with the first `bytes` of one memory file, Range: bytes=A-B with a part of
/// them. A thread for each connection; all end with the server.
class MemoryServer {
 public:
  MemoryServer() {
    memory_ = posix::Fd(::memfd_create("fvp-bench", MFD_CLOEXEC));
    std::string block(1U << 20U, '\0');
    std::uint32_t noise = 1;  // not zeros: a file system might skip those
    for (std::size_t at = 0; at < kTotal; at += block.size()) {
      for (char& byte : block)
        byte = static_cast<char>((noise = noise * 1664525U + 1013904223U) >> 24U);
      if (!posix::write_at(memory_, at, std::as_bytes(std::span(block)), "memory")) std::abort();
    }
    listener_ = posix::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listener_.get(), 64) != 0 ||
        ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      std::abort();
    }
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~MemoryServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
  }
  MemoryServer(const MemoryServer&) = delete;
  MemoryServer& operator=(const MemoryServer&) = delete;

  [[nodiscard]] std::string url(std::size_t bytes) const { return url_ + std::to_string(bytes); }

  /// SHA-256 of the first `bytes`.
  [[nodiscard]] std::string sha256(std::size_t bytes) const {
    void* const map = ::mmap(nullptr, kTotal, PROT_READ, MAP_SHARED, memory_.get(), 0);
    if (map == MAP_FAILED) std::abort();
    const std::string hex = sha256_hex({static_cast<const char*>(map), bytes});
    ::munmap(map, kTotal);
    return hex;
  }

 private:
  void accept_all() {
    while (true) {
      const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      const std::lock_guard lock(mutex_);
      open_.push_back(fd);
      threads_.emplace_back([this, fd] {
        serve(fd);
        const std::lock_guard closing(mutex_);
        std::erase(open_, fd);
        ::close(fd);
      });
    }
  }

  void serve(int fd) const {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    std::string head;
    char piece[4096];
    while (true) {
      const std::size_t end = head.find("\r\n\r\n");
      if (end == std::string::npos) {
        const ssize_t n = ::recv(fd, piece, sizeof piece, 0);
        if (n <= 0) return;
        head.append(piece, static_cast<std::size_t>(n));
        continue;
      }
      if (!answer(fd, head.substr(0, end))) return;
      head.erase(0, end + 4);
    }
  }

  bool answer(int fd, const std::string& head) const {
    const auto number = [&](std::size_t at, std::size_t otherwise) {
      std::size_t value = otherwise;
      std::from_chars(head.data() + at, head.data() + head.size(), value);
      return value;
    };
    const std::size_t size = std::min(number(head.find('/') + 1, 0), kTotal);
    const std::size_t range = head.find("Range: bytes=");
    std::size_t first = 0;
    std::size_t last = size - 1;
    std::string reply = "HTTP/1.1 200 OK\r\n";
    if (range != std::string::npos) {
      const std::size_t at = range + std::string_view("Range: bytes=").size();
      first = std::min(number(at, 0), last);
      last = std::min(number(head.find('-', at) + 1, last), last);
      reply = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes " + std::to_string(first) +
              "-" + std::to_string(last) + "/" + std::to_string(size) + "\r\n";
    }
    reply += "ETag: \"one\"\r\nAccept-Ranges: bytes\r\nContent-Length: " +
             std::to_string(last - first + 1) + "\r\n\r\n";
    if (::send(fd, reply.data(), reply.size(), MSG_NOSIGNAL | MSG_MORE) < 0) return false;
    auto offset = static_cast<off_t>(first);
    while (static_cast<std::size_t>(offset) <= last) {
      if (::sendfile(fd, memory_.get(), &offset, last + 1 - static_cast<std::size_t>(offset)) <=
          0) {
        return false;
      }
    }
    return true;
  }

  posix::Fd memory_;
  posix::Fd listener_;
  std::string url_;
  std::thread acceptor_;
  std::mutex mutex_;  // guards what follows
  std::vector<int> open_;
  std::vector<std::thread> threads_;  // appended to by the acceptor, joined when that has ended
};

std::filesystem::path bench_dir() {
  if (const char* dir = std::getenv("FVP_BENCH_DIR")) return dir;
  if (::access("/dev/shm", W_OK) == 0) return "/dev/shm";
  return std::filesystem::temp_directory_path();
}

/// prefetch() of `files` files that are 256 MiB together, into empty caches each time.
void fetch(benchmark::State& state, std::size_t files, const Options& base) {
  MemoryServer server;
  const std::size_t size = kTotal / files;
  const std::string sha256 = server.sha256(size);
  std::string text = "[";
  for (std::size_t i = 0; i < files; ++i) {
    if (i > 0) text += ',';
    text += R"({"name":"f)" + std::to_string(i) + R"(","source":")" + server.url(size) +
            R"(","sha256":")" + sha256 + R"("})";
  }
  text += ']';
  const auto manifest = parse_manifest(text);
  std::string pattern = (bench_dir() / "fvp-transfer-XXXXXX").string();
  if (!manifest || ::mkdtemp(pattern.data()) == nullptr) std::abort();
  Options options = base;
  options.cache_dir = pattern + "/eval";
  options.hf_cache_dir = pattern + "/hub";
  (void)::setenv("TMPDIR", pattern.c_str(), 1);  // FastVideo's locks lie there
  for (auto _ : state) {
    const Report report = prefetch(*manifest, options);
    state.PauseTiming();
    if (!report.ok()) state.SkipWithError(describe(*report.error).c_str());
    std::filesystem::remove_all(pattern + "/eval");
    state.ResumeTiming();
    if (!report.ok()) break;
  }
  std::filesystem::remove_all(pattern);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * kTotal));
}

void BM_Files(benchmark::State& state) {
  Options options;
  options.max_active = static_cast<int>(state.range(0));
  fetch(state, static_cast<std::size_t>(state.range(0)), options);
}
void BM_OneFile(benchmark::State& state) {
  Options options;
  options.connections = static_cast<int>(state.range(0));
  fetch(state, 1, options);
}

void one_to_sixteen(benchmark::internal::Benchmark* bench) {
  bench->RangeMultiplier(2)
      ->Range(1, 16)
      ->Unit(benchmark::kMillisecond)
      ->MinTime(2)
      ->UseRealTime()
      ->MeasureProcessCPUTime();
}
BENCHMARK(BM_Files)->Apply(one_to_sixteen);
BENCHMARK(BM_OneFile)->Apply(one_to_sixteen);

}  // namespace

BENCHMARK_MAIN();
