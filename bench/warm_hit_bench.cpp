// Question: what does a job pay for calling fvprefetch when everything is there already, and how
// far is that from the least it could be, one stat() per file? The number users feel.
//
// BM_WarmRun: prefetch() of a snapshot of N files, complete, with a receipt.
// BM_StatEachFile: the same N files, followed by stat() and nothing else: the lower bound.
#include <benchmark/benchmark.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/digest.h"
#include "cache/hf_store.h"
#include "fvprefetch/prefetch.h"

namespace {

using namespace fvprefetch;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";

/// A complete snapshot of `files` small files, as a download leaves it; removed at the end.
class Snapshot {
 public:
  explicit Snapshot(int files) {
    std::string pattern = (std::filesystem::temp_directory_path() / "fvp-bench-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    root_ = pattern;
    const HubStore store(root_ + "/hub", "model", "org/bench");
    std::vector<RepoFile> tree;
    bool ok = store.prepare(kCommit).has_value();
    for (int i = 0; i < files; ++i) {
      const std::string text = "file " + std::to_string(i);
      FileSpec file;
      file.path = "layer" + std::to_string(i % 10) + "/part-" + std::to_string(i) + ".bin";
      file.size = text.size();
      file.blob = git_sha1_hex(text);
      const std::string partial = store.paths().partial(file.blob, posix::random_tag());
      auto fd = posix::create_private(partial);
      ok = ok && fd && posix::write_at(*fd, 0, std::as_bytes(std::span(text)), partial) &&
           store.publish_blob(*std::move(fd), partial, file.blob) &&
           store.publish_pointer(kCommit, file, HubStore::Blob::kMoves);
      tree.push_back({.path = file.path,
                      .size = text.size(),
                      .git_oid = file.blob,
                      .lfs_sha256 = {},
                      .lfs_size = 0,
                      .xet_hash = {}});
      paths_.push_back(store.paths().pointer(kCommit, file.path));
    }
    ok = ok && store.write_tree(kCommit, tree) && store.write_ref("main", kCommit);
    if (!ok) std::abort();
  }
  ~Snapshot() { std::filesystem::remove_all(root_); }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  [[nodiscard]] Options options() const {
    Options options;
    options.hf_cache_dir = root_ + "/hub";
    options.cache_dir = root_ + "/eval";
    return options;
  }
  [[nodiscard]] const std::vector<std::string>& paths() const { return paths_; }

 private:
  std::string root_;
  std::vector<std::string> paths_;
};

void BM_WarmRun(benchmark::State& state) {
  const Snapshot snapshot(static_cast<int>(state.range(0)));
  const auto manifest = parse_manifest(R"([{"name": "m", "source": "org/bench"}])");
  const Options options = snapshot.options();
  if (!manifest || !prefetch(*manifest, options).ok()) std::abort();  // leaves the receipt
  std::uint64_t requests = 0;
  for (auto _ : state) {
    const Report report = prefetch(*manifest, options);
    if (!report.ok()) std::abort();
    requests += report.requests + report.entries.front().requests;
  }
  state.counters["requests"] = static_cast<double>(requests);
  state.counters["files/s"] = benchmark::Counter(static_cast<double>(state.range(0)),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_WarmRun)->Arg(1)->Arg(100)->Arg(1000)->Unit(benchmark::kMillisecond);

void BM_StatEachFile(benchmark::State& state) {
  const Snapshot snapshot(static_cast<int>(state.range(0)));
  for (auto _ : state) {
    for (const std::string& path : snapshot.paths()) {
      struct stat info {};
      if (::stat(path.c_str(), &info) != 0) std::abort();
      benchmark::DoNotOptimize(info);
    }
  }
  state.counters["files/s"] = benchmark::Counter(static_cast<double>(state.range(0)),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_StatEachFile)->Arg(1)->Arg(100)->Arg(1000)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
