#include "transfer/journal.h"

#include <nlohmann/json.hpp>

namespace fvprefetch {
namespace {

using nlohmann::ordered_json;

constexpr int kVersion = 1;

ordered_json ranges_json(const RangeSet& set) {
  ordered_json json = ordered_json::array();
  for (const Range& range : set.ranges()) json.push_back({range.begin, range.end});
  return json;
}

template <typename T>
ordered_json or_null(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

// The functions below answer nullopt or false for what has not the form that we write.

std::optional<std::uint64_t> number(const ordered_json& json) {
  if (!json.is_number_unsigned()) return std::nullopt;
  return json.get<std::uint64_t>();
}

const ordered_json* member(const ordered_json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

bool read(const ordered_json& object, const char* key, std::string& value) {
  const ordered_json* const json = member(object, key);
  if (json == nullptr || !json->is_string()) return false;
  value = json->get<std::string>();
  return true;
}

bool read(const ordered_json& object, const char* key, std::optional<std::uint64_t>& value) {
  const ordered_json* const json = member(object, key);
  if (json == nullptr) return false;
  value = number(*json);
  return value || json->is_null();
}

bool read(const ordered_json& object, const char* key, RangeSet& set) {
  const ordered_json* const json = member(object, key);
  if (json == nullptr || !json->is_array()) return false;
  for (const ordered_json& pair : *json) {
    if (!pair.is_array() || pair.size() != 2) return false;
    const auto begin = number(pair[0]);
    const auto end = number(pair[1]);
    if (!begin || !end || *begin >= *end) return false;
    set.add({*begin, *end});
  }
  return true;
}

bool read(const ordered_json& object, const char* key, std::optional<ProcessName>& owner) {
  const ordered_json* const json = member(object, key);
  if (json == nullptr) return false;
  if (json->is_null()) return true;
  if (!json->is_object()) return false;
  ProcessName name;
  std::optional<std::uint64_t> pid;
  std::optional<std::uint64_t> started;
  const bool right = read(*json, "host", name.host) && read(*json, "boot", name.boot) &&
                     read(*json, "pid_namespace", name.pid_namespace) && read(*json, "pid", pid) &&
                     read(*json, "started", started) && pid && started;
  if (!right) return false;
  name.pid = static_cast<std::int64_t>(*pid);
  name.started = *started;
  owner = std::move(name);
  return true;
}

}  // namespace

std::string to_text(const Journal& journal) {
  ordered_json owner(nullptr);
  if (journal.owner) {
    owner = {{"host", journal.owner->host},
             {"boot", journal.owner->boot},
             {"pid_namespace", journal.owner->pid_namespace},
             {"pid", static_cast<std::uint64_t>(journal.owner->pid)},
             {"started", journal.owner->started}};
  }
  const ordered_json json = {{"version", kVersion},
                             {"size", or_null(journal.size)},
                             {"digest", journal.digest},
                             {"address", journal.address},
                             {"etag", journal.etag},
                             {"total", or_null(journal.total)},
                             {"done", ranges_json(journal.done)},
                             {"durable", ranges_json(journal.durable)},
                             {"boot", journal.boot},
                             {"owner", std::move(owner)}};
  // A server's ETag may hold any byte.
  return json.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
}

std::optional<Journal> parse_journal(std::string_view text) {
  const ordered_json json = ordered_json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  std::optional<std::uint64_t> version;
  Journal journal;
  const bool right = read(json, "version", version) && version == kVersion &&
                     read(json, "size", journal.size) && read(json, "digest", journal.digest) &&
                     read(json, "address", journal.address) && read(json, "etag", journal.etag) &&
                     read(json, "total", journal.total) && read(json, "done", journal.done) &&
                     read(json, "durable", journal.durable) && read(json, "boot", journal.boot) &&
                     read(json, "owner", journal.owner);
  return right ? std::optional(std::move(journal)) : std::nullopt;
}

}  // namespace fvprefetch
