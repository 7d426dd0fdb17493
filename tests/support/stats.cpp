#include "stats.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace fvprefetch::testhub {

void Stats::Ticket::add_body_bytes(std::int64_t bytes) {
  const std::lock_guard lock(stats_.mutex_);
  stats_.body_bytes_ += bytes;
  stats_.by_path_[path_].body_bytes += bytes;
}

void Stats::Ticket::finish() {
  const std::lock_guard lock(stats_.mutex_);
  if (finished_) return;
  finished_ = true;
  --stats_.in_flight_;
}

std::shared_ptr<Stats::Ticket> Stats::begin(const std::string& path, const std::string& method,
                                            Kind kind) {
  {
    const std::lock_guard lock(mutex_);
    ++requests_;
    if (kind == Kind::kApi) ++api_requests_;
    PerPath& counts = by_path_[path];
    ++counts.requests;
    if (method == "GET") ++counts.gets;
    if (method == "HEAD") ++counts.heads;
    max_concurrent_ = std::max(max_concurrent_, ++in_flight_);
  }
  return std::make_shared<Ticket>(*this, path);
}

void Stats::saw_cdn_authorization() {
  const std::lock_guard lock(mutex_);
  ++cdn_authorization_seen_;
}

void Stats::reset() {
  const std::lock_guard lock(mutex_);
  by_path_.clear();
  requests_ = 0;
  api_requests_ = 0;
  body_bytes_ = 0;
  cdn_authorization_seen_ = 0;
  max_concurrent_ = in_flight_;
}

std::string Stats::to_json() const {
  const std::lock_guard lock(mutex_);
  nlohmann::ordered_json paths = nlohmann::ordered_json::object();
  for (const auto& [path, counts] : by_path_) {
    paths[path] = {{"requests", counts.requests},
                   {"gets", counts.gets},
                   {"heads", counts.heads},
                   {"body_bytes", counts.body_bytes}};
  }
  const nlohmann::ordered_json all = {{"requests", requests_},
                                      {"body_bytes", body_bytes_},
                                      {"api_requests", api_requests_},
                                      {"max_concurrent", max_concurrent_},
                                      {"cdn_authorization_seen", cdn_authorization_seen_},
                                      {"by_path", paths}};
  // A path may hold any byte; a test that sends broken UTF-8 still gets its counters.
  return all.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace fvprefetch::testhub
