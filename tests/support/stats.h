// The counters tests assert on: requests, body bytes, how many at once. Thread-safe.
//
// A client that has seen the last byte of an answer must find it counted, so bytes are added before
// they are handed to the kernel (and taken back when that fails), and a request stops counting as
// in flight before its last piece is sent. max_concurrent can therefore be too low by requests that
// were sending their last 64 KiB, never too high.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace fvprefetch::testhub {

class Stats {
 public:
  /// One request, from its headers to its last piece. Ends when told so or when destroyed.
  class Ticket {
   public:
    Ticket(Stats& stats, std::string path) : stats_(stats), path_(std::move(path)) {}
    ~Ticket() { finish(); }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    /// Negative takes back what could not be sent.
    void add_body_bytes(std::int64_t bytes);
    void finish();

   private:
    Stats& stats_;
    std::string path_;
    bool finished_ = false;
  };

  enum class Kind { kApi, kOther };
  std::shared_ptr<Ticket> begin(const std::string& path, const std::string& method, Kind kind);
  void saw_cdn_authorization();
  void reset();
  std::string to_json() const;

 private:
  struct PerPath {
    std::int64_t requests = 0;
    std::int64_t gets = 0;
    std::int64_t heads = 0;
    std::int64_t body_bytes = 0;
  };

  mutable std::mutex mutex_;  // guards everything below
  std::map<std::string, PerPath> by_path_;
  std::int64_t requests_ = 0;
  std::int64_t api_requests_ = 0;
  std::int64_t body_bytes_ = 0;
  std::int64_t cdn_authorization_seen_ = 0;
  std::int64_t in_flight_ = 0;
  std::int64_t max_concurrent_ = 0;
};

}  // namespace fvprefetch::testhub
