// Question: what does it cost to take a lock and let it go, alone and with others who want it?
//
//   FVPREFETCH_BENCH_DIR=/shared build/bench/lock_bench       the folder; else a fresh one in the
//   temporary one
//
// BM_Alone: nobody else. BM_Contended/N: N processes take it in turns, as fast as they can; the
// time is that of one hand-off or re-acquisition, whoever got it. `acquisitions/s` is of all of
// them, `least/most` says how evenly they were served. How long hand-offs take and who starves when
// the lock is held for a while is what bench/contention measures.
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/posix.h"
#include "contending/contender.h"
#include "contending/way.h"

namespace {

using namespace fvprefetch;
using namespace fvprefetch::contending;

constexpr int kMost = 64;
constexpr std::int64_t kMillisecond = 1'000'000;

/// Shared with the contenders.
struct Shared {
  std::atomic<bool> go = false;
  std::atomic<bool> over = false;
  std::atomic<std::int64_t> had[kMost];  ///< acquisitions of each
};

class Folder {
 public:
  Folder() {
    const char* chosen = std::getenv("FVPREFETCH_BENCH_DIR");
    path_ = (chosen != nullptr ? std::string(chosen)
                               : std::filesystem::temp_directory_path().string()) +
            "/fvp-lock-bench." + posix::random_tag();
    std::filesystem::create_directories(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;  // nothing more can be done
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string lock() const { return path_ + "/x.lock"; }

 private:
  std::string path_;
};

std::unique_ptr<HeldLock> take(Way& way, const std::string& lock) {
  const auto deadline = Clock::TimePoint::clock::now() + std::chrono::seconds(10);
  auto held = way.take(
      lock, [] { return false; }, deadline);
  return held ? *std::move(held) : nullptr;
}

void BM_Alone(benchmark::State& state, Primitive primitive) {
  const Folder folder;
  const std::unique_ptr<Way> way = make_way(primitive);
  for (auto _ : state) {
    if (take(*way, folder.lock()) == nullptr) return state.SkipWithError("no lock");
  }
}

[[noreturn]] void contend(Shared& shared, int who, Primitive primitive, const std::string& lock) {
  std::unique_ptr<Way> way = make_way(primitive);
  while (!shared.go) sleep_until_ns(now_ns() + kMillisecond);
  while (!shared.over) {
    if (take(*way, lock) != nullptr) ++shared.had[who];
  }
  way.reset();
  ::_exit(0);
}

void BM_Contended(benchmark::State& state, Primitive primitive) {
  const Folder folder;
  const int count = static_cast<int>(state.range(0));
  void* const memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return state.SkipWithError("no memory");
  auto* const shared = new (memory) Shared;
  std::vector<pid_t> pids;
  for (int i = 0; i < count; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) contend(*shared, i, primitive, folder.lock());
    if (pid > 0) pids.push_back(pid);
  }
  const auto all = [&] {
    std::int64_t sum = 0;
    for (int i = 0; i < count; ++i) sum += shared->had[i];
    return sum;
  };
  shared->go = true;
  std::int64_t before = 0;
  // A batch is a stretch of time: this process only counts, and wants no core.
  for (auto _ : state) {
    const std::int64_t begin = now_ns();
    sleep_until_ns(begin + 100 * kMillisecond);
    const std::int64_t now = all();
    const auto got = static_cast<double>(std::max<std::int64_t>(now - before, 1));
    state.SetIterationTime(static_cast<double>(now_ns() - begin) / 1e9 / got);
    before = now;
  }
  shared->over = true;
  std::int64_t least = shared->had[0];
  std::int64_t most = 1;
  for (int i = 0; i < count; ++i) {
    least = std::min<std::int64_t>(least, shared->had[i]);
    most = std::max<std::int64_t>(most, shared->had[i]);
  }
  for (const pid_t pid : pids) {
    // A way that loses every time ends with its deadline; what hangs after that is ended.
    for (int i = 0; i < 1'500 && ::waitpid(pid, nullptr, WNOHANG) == 0; ++i) {
      if (i == 1'200) (void)::kill(pid, SIGKILL);
      sleep_until_ns(now_ns() + 10 * kMillisecond);
    }
  }
  state.counters["least/most"] = static_cast<double>(least) / static_cast<double>(most);
  state.counters["acquisitions/s"] = benchmark::Counter(10.0 * static_cast<double>(before) /
                                                        static_cast<double>(state.iterations()));
  ::munmap(memory, sizeof(Shared));
}

#define FVP_LOCK_BENCH(name, primitive)            \
  BENCHMARK_CAPTURE(BM_Alone, name, primitive);    \
  BENCHMARK_CAPTURE(BM_Contended, name, primitive) \
      ->RangeMultiplier(2)                         \
      ->Range(2, kMost)                            \
      ->UseManualTime()                            \
      ->Iterations(10)

FVP_LOCK_BENCH(flock, Primitive::kFlock);
FVP_LOCK_BENCH(ofd, Primitive::kOfd);
FVP_LOCK_BENCH(lease, Primitive::kLease);
FVP_LOCK_BENCH(auto, Primitive::kAuto);

}  // namespace

BENCHMARK_MAIN();
