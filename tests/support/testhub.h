// A Hugging Face hub and a plain file server over a folder, for tests and for the demo.
//
//   testhub::TestHub hub({.root = folder});
//   ... HF_ENDPOINT=hub.url() ...
//   EXPECT_EQ(json::parse(hub.stats())["requests"], 0);
//
// Under `root`: models/, datasets/, spaces/ (see repo_store.h), files/<path> served at
// <url>/files/<path>, plain/<host>/<path> served at <url>/plain/<host>/<path>. LFS bytes come from
// a second server at cdn_url(). Control, for other processes:
//   GET /_testhub/stats   POST /_testhub/reset
//   GET, POST, DELETE /_testhub/faults   (see faults.h)
// All members may be called from any thread. The destructor closes all connections.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace fvprefetch::testhub {

struct HubOptions {
  std::filesystem::path root;
  std::string bind = "127.0.0.1";
  int port = 0;          // 0: the kernel chooses
  std::string cdn_bind;  // empty: as bind. Its port is always the kernel's choice
  std::size_t page_size = 1000;
  std::uint64_t bytes_per_second = 0;  // all file bodies together; 0 = no limit
  bool log_requests = false;           // one line per request to stderr
};

class TestHub {
 public:
  /// Both servers listen when it returns. Throws std::runtime_error.
  explicit TestHub(HubOptions options);
  ~TestHub();
  TestHub(const TestHub&) = delete;
  TestHub& operator=(const TestHub&) = delete;

  std::string url() const;
  std::string cdn_url() const;

  std::string stats() const;
  void reset_stats();
  void set_faults(const std::string& json);
  void clear_faults();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fvprefetch::testhub
