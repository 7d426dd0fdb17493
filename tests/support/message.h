// What a route sees of a request and what it answers, free of any HTTP library.
// Values; a Reply with a file body shares one open descriptor with its copies.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fvprefetch::testhub {

struct Request {
  std::string method;
  std::string target;  // as on the wire
  std::string path;    // target without query, still percent-encoded
  std::string query;
  std::vector<std::string> segments;      // of path, decoded one by one: "refs%2Fpr%2F1" is one
  std::vector<std::string> raw_segments;  // the same, as sent
  std::string host;                       // Host header
  std::optional<std::string> authorization;
  std::string range;
  std::string if_range;
  std::string if_none_match;
  std::string if_modified_since;
  std::string content;  // of a POST
};

/// One open file, read with pread from any number of threads.
class OpenFile {
 public:
  /// nullptr when it is not a readable regular file.
  static std::shared_ptr<const OpenFile> open(const std::filesystem::path& path);
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  std::uint64_t size() const { return size_; }
  std::int64_t modified_ns() const { return modified_ns_; }
  /// Bytes read; fewer than asked only at the end of the file or on an error.
  std::size_t read_at(std::uint64_t offset, char* out, std::size_t count) const;

 private:
  OpenFile(int fd, std::uint64_t size, std::int64_t modified_ns)
      : fd_(fd), size_(size), modified_ns_(modified_ns) {}

  int fd_;
  std::uint64_t size_;
  std::int64_t modified_ns_;
};

/// A text, or `length` bytes of a file from `offset`.
struct Body {
  std::string text;
  std::shared_ptr<const OpenFile> file;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  static Body of_text(std::string text);
  static Body of_file(std::shared_ptr<const OpenFile> file, std::uint64_t offset,
                      std::uint64_t length);
  std::size_t read_at(std::uint64_t position, char* out, std::size_t count) const;
};

struct Reply {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string content_type = "text/plain; charset=utf-8";
  Body body;
  // Bytes of a checkpoint, not of an answer about one: what the counters call body bytes.
  bool is_file_body = false;
  // Where the real bytes of this address lie, also when the answer is a redirect to them.
  std::filesystem::path real_file;

  void add(std::string name, std::string value);
};

}  // namespace fvprefetch::testhub
