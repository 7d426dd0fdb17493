#include "faults.h"

#include "digest.h"
#include "gzip.h"
#include "url.h"

#include <nlohmann/json.hpp>

#include <fnmatch.h>
#include <strings.h>

#include <algorithm>
#include <array>
#include <stdexcept>

namespace fvprefetch::testhub {

namespace {

using nlohmann::json;

struct KindName {
  const char* name;
  FaultKind kind;
};
constexpr std::array<KindName, 16> kKinds{{{"status", FaultKind::kStatus},
                                           {"html", FaultKind::kHtml},
                                           {"lfs_pointer", FaultKind::kLfsPointer},
                                           {"redirect_loop", FaultKind::kRedirectLoop},
                                           {"delay", FaultKind::kDelay},
                                           {"no_ranges", FaultKind::kNoRanges},
                                           {"cut", FaultKind::kCut},
                                           {"reset", FaultKind::kReset},
                                           {"stall", FaultKind::kStall},
                                           {"flip", FaultKind::kFlip},
                                           {"throttle", FaultKind::kThrottle},
                                           {"no_length", FaultKind::kNoLength},
                                           {"wrong_length", FaultKind::kWrongLength},
                                           {"gzip", FaultKind::kGzip},
                                           {"other_etag", FaultKind::kOtherEtag},
                                           {"wrong_range", FaultKind::kWrongRange}}};

// gzip is the one fault that needs the whole body in memory.
constexpr std::uint64_t kGzipLimit = 64 << 20;

FaultKind kind_named(const std::string& name) {
  for (const KindName& known : kKinds) {
    if (name == known.name) return known.kind;
  }
  throw std::invalid_argument("unknown fault kind \"" + name + "\"");
}

const char* name_of(FaultKind kind) {
  for (const KindName& known : kKinds) {
    if (kind == known.kind) return known.name;
  }
  return "?";
}

Fault parse_fault(const json& rule) {
  if (!rule.is_object()) throw std::invalid_argument("a fault is a JSON object");
  Fault fault;
  bool has_path = false;
  bool has_kind = false;
  for (const auto& [key, value] : rule.items()) {
    if (key == "path") {
      fault.path = value.get<std::string>();
      has_path = true;
    } else if (key == "kind") {
      fault.kind = kind_named(value.get<std::string>());
      has_kind = true;
    } else if (key == "method") {
      fault.method = value.get<std::string>();
    } else if (key == "status") {
      fault.status = value.get<int>();
    } else if (key == "headers") {
      for (const auto& [name, text] : value.items()) {
        fault.headers.emplace_back(name, text.get<std::string>());
      }
    } else if (key == "body") {
      fault.body = value.get<std::string>();
    } else if (key == "after_bytes") {
      fault.after_bytes = value.get<std::uint64_t>();
    } else if (key == "times") {
      fault.times = value.get<std::uint64_t>();
    } else if (key == "skip") {
      fault.skip = value.get<std::uint64_t>();
    } else if (key == "seconds") {
      fault.seconds = value.get<double>();
    } else if (key == "bytes_per_second") {
      fault.bytes_per_second = value.get<std::uint64_t>();
    } else {
      throw std::invalid_argument("unknown field \"" + key + "\" in a fault");
    }
  }
  if (!has_path || !has_kind) throw std::invalid_argument("a fault needs path and kind");
  return fault;
}

bool matches_path(const std::string& pattern, const std::string& path) {
  return ::fnmatch(pattern.c_str(), path.c_str(), FNM_NOESCAPE) == 0 ||
         ::fnmatch(pattern.c_str(), percent_decode(path).c_str(), FNM_NOESCAPE) == 0;
}

bool replaces(FaultKind kind) {
  return kind == FaultKind::kStatus || kind == FaultKind::kHtml || kind == FaultKind::kLfsPointer ||
         kind == FaultKind::kRedirectLoop;
}

bool is_early(FaultKind kind) {
  return replaces(kind) || kind == FaultKind::kDelay || kind == FaultKind::kNoRanges;
}

std::uint64_t flip_position(const Fault& fault, const Reply& reply) {
  const std::uint64_t whole = reply.body.file ? reply.body.file->size() : reply.body.length;
  return fault.after_bytes.value_or(whole / 2);
}

std::uint64_t stop_position(const Fault& fault, const Reply& reply) {
  const bool stall = fault.kind == FaultKind::kStall;
  return fault.after_bytes.value_or(stall ? 0 : reply.body.length / 2);
}

bool has_effect(const Fault& fault, const Request& request, const Reply& reply) {
  if (reply.status < 200 || reply.status > 299 || reply.body.length == 0) return false;
  const bool get = request.method == "GET";
  switch (fault.kind) {
    case FaultKind::kCut:
    case FaultKind::kReset:
    case FaultKind::kStall:
      return get && stop_position(fault, reply) < reply.body.length;
    case FaultKind::kFlip: {
      const std::uint64_t at = flip_position(fault, reply);
      return get && at >= reply.body.offset && at < reply.body.offset + reply.body.length;
    }
    case FaultKind::kThrottle:
      return get;
    case FaultKind::kWrongRange:
      return get && reply.status == 206 && fault.after_bytes.value_or(0) != reply.body.offset;
    default:
      return true;
  }
}

void set_header(Reply& reply, const std::string& name, const std::string& value) {
  const auto same = [&](const auto& header) {
    return ::strcasecmp(header.first.c_str(), name.c_str()) == 0;
  };
  std::erase_if(reply.headers, same);
  if (::strcasecmp(name.c_str(), "Content-Type") == 0) {
    reply.content_type = value;
  } else {
    reply.add(name, value);
  }
}

std::string lfs_pointer_of(const Reply& reply) {
  const auto file = OpenFile::open(reply.real_file);
  const std::string digest = file ? file_sha256(reply.real_file) : sha256_hex("");
  return "version https://git-lfs.github.com/spec/v1\noid sha256:" + digest + "\nsize " +
         std::to_string(file ? file->size() : 0) + "\n";
}

void send_another_range(std::uint64_t begin, Reply& reply) {
  Body& body = reply.body;
  body.offset = begin;
  body.length = std::min(body.length, body.file->size() - std::min(begin, body.file->size()));
  set_header(reply, "Content-Range",
             "bytes " + std::to_string(begin) + "-" + std::to_string(begin + body.length - 1) +
                 "/" + std::to_string(body.file->size()));
}

std::string gzipped(const Body& body) {
  if (body.length > kGzipLimit) throw std::length_error("the gzip fault is for files up to 64 MiB");
  std::string plain(static_cast<std::size_t>(body.length), '\0');
  plain.resize(body.read_at(0, plain.data(), plain.size()));
  return gzip(std::move(plain));
}

}  // namespace

void Faults::set(const std::string& text) {
  std::vector<Fault> rules;
  try {
    const json parsed = json::parse(text);
    if (!parsed.is_array()) throw std::invalid_argument("faults are a JSON array");
    for (const json& rule : parsed) rules.push_back(parse_fault(rule));
  } catch (const json::exception& error) {
    throw std::invalid_argument(error.what());
  }
  const std::lock_guard lock(mutex_);
  rules_ = std::move(rules);
}

void Faults::clear() {
  const std::lock_guard lock(mutex_);
  rules_.clear();
}

std::string Faults::to_json() const {
  const std::lock_guard lock(mutex_);
  json all = json::array();
  for (const Fault& rule : rules_) {
    all.push_back({{"path", rule.path},
                   {"kind", name_of(rule.kind)},
                   {"matched", rule.matched},
                   {"hits", rule.hits}});
  }
  return all.dump(1) + "\n";
}

template <class Applies>
std::vector<Fault> Faults::take(const Request& request, Applies applies) {
  std::vector<Fault> taken;
  bool replaced = false;
  const std::lock_guard lock(mutex_);
  for (Fault& rule : rules_) {
    if (rule.times && rule.hits >= *rule.times) continue;
    if (!rule.method.empty() && rule.method != request.method) continue;
    if (!matches_path(rule.path, request.path) || !applies(rule)) continue;
    if (replaces(rule.kind) && replaced) continue;
    if (rule.matched++ < rule.skip) continue;
    ++rule.hits;
    replaced = replaced || replaces(rule.kind);
    taken.push_back(rule);
  }
  return taken;
}

std::vector<Fault> Faults::take_early(const Request& request) {
  return take(request, [](const Fault& rule) { return is_early(rule.kind); });
}

std::vector<Fault> Faults::take_late(const Request& request, const Reply& reply) {
  return take(request, [&](const Fault& rule) {
    return !is_early(rule.kind) && has_effect(rule, request, reply);
  });
}

void replace_reply(const std::vector<Fault>& faults, const Request& request, Reply& reply) {
  for (const Fault& fault : faults) {
    Reply other;
    other.real_file = reply.real_file;
    switch (fault.kind) {
      case FaultKind::kStatus:
        other.status = fault.status.value_or(500);
        other.body = Body::of_text(fault.body);
        reply = std::move(other);
        break;
      case FaultKind::kHtml:
        other.content_type = "text/html; charset=utf-8";
        other.body = Body::of_text(
            "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>"
            "<body><p>Please accept the terms of use of this network.</p></body></html>\n");
        reply = std::move(other);
        break;
      case FaultKind::kLfsPointer:
        other.body = Body::of_text(lfs_pointer_of(reply));
        reply = std::move(other);
        break;
      case FaultKind::kRedirectLoop:
        other.status = fault.status.value_or(302);
        other.add("Location", request.target);
        other.body = Body::of_text("Redirecting to " + request.target);
        reply = std::move(other);
        break;
      default:
        break;
    }
    for (const auto& [name, value] : fault.headers) set_header(reply, name, value);
  }
}

Delivery deliver_with(const std::vector<Fault>& faults, Reply& reply) {
  Delivery delivery;
  for (const Fault& fault : faults) {
    switch (fault.kind) {
      case FaultKind::kCut:
        delivery.cut_after = stop_position(fault, reply);
        break;
      case FaultKind::kReset:
        delivery.cut_after = stop_position(fault, reply);
        delivery.cut_resets = true;
        break;
      case FaultKind::kStall:
        delivery.stall_after = stop_position(fault, reply);
        break;
      case FaultKind::kFlip:
        delivery.flip_at = flip_position(fault, reply);
        break;
      case FaultKind::kThrottle:
        delivery.bytes_per_second = fault.bytes_per_second;
        break;
      case FaultKind::kNoLength:
        delivery.hide_length = true;
        break;
      case FaultKind::kWrongLength:
        delivery.announced_length = fault.after_bytes.value_or(reply.body.length / 2);
        break;
      case FaultKind::kGzip:
        reply.body = Body::of_text(gzipped(reply.body));
        set_header(reply, "Content-Encoding", "gzip");
        break;
      case FaultKind::kOtherEtag:
        set_header(reply, "ETag", "\"another\"");
        break;
      case FaultKind::kWrongRange:
        send_another_range(fault.after_bytes.value_or(0), reply);
        break;
      default:
        break;
    }
    for (const auto& [name, value] : fault.headers) set_header(reply, name, value);
  }
  return delivery;
}

}  // namespace fvprefetch::testhub
