#include "file_reply.h"

#include "url.h"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <optional>

namespace fvprefetch::testhub {

namespace {

struct Slice {
  std::uint64_t offset;
  std::uint64_t length;
};

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::optional<std::uint64_t> number(const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// Outer nothing: not a range we serve, so the whole file. Inner nothing: not satisfiable.
std::optional<std::optional<Slice>> parse_range(const std::string& header, std::uint64_t size) {
  constexpr std::string_view kUnit = "bytes=";
  if (header.compare(0, kUnit.size(), kUnit) != 0) return std::nullopt;
  const std::string spec = trimmed(header.substr(kUnit.size()));
  const auto dash = spec.find('-');
  if (dash == std::string::npos || spec.find(',') != std::string::npos) return std::nullopt;
  const auto first = number(trimmed(spec.substr(0, dash)));
  const auto last = number(trimmed(spec.substr(dash + 1)));
  if (!first && !last) return std::nullopt;
  if (!first) {  // "-500": the last 500 bytes
    const std::uint64_t count = std::min(*last, size);
    if (count == 0) return std::optional<Slice>();
    return std::optional<Slice>({size - count, count});
  }
  if (*first >= size) return std::optional<Slice>();
  const std::uint64_t end = last ? std::min(*last, size - 1) : size - 1;
  if (end < *first) return std::nullopt;
  return std::optional<Slice>({*first, end - *first + 1});
}

}  // namespace

std::string http_date(std::int64_t modified_ns) {
  const std::time_t seconds = modified_ns / 1'000'000'000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  const std::size_t size = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text, size};
}

std::string content_type_of(const std::string& path) {
  const auto ends_with = [&](std::string_view suffix) { return path.ends_with(suffix); };
  if (ends_with(".json")) return "application/json";
  if (ends_with(".html") || ends_with(".htm")) return "text/html; charset=utf-8";
  if (ends_with(".txt") || ends_with(".md")) return "text/plain; charset=utf-8";
  if (ends_with(".zip")) return "application/zip";
  if (ends_with(".gz") || ends_with(".tgz")) return "application/gzip";
  return "application/octet-stream";
}

bool etag_listed(const std::string& if_none_match, const std::string& etag) {
  const auto strong = [](const std::string& text) {
    const std::string bare = trimmed(text);
    return bare.starts_with("W/") ? bare.substr(2) : bare;
  };
  for (const std::string& listed : split(if_none_match, ',')) {
    const std::string candidate = strong(listed);
    if (candidate == "*" || (!candidate.empty() && candidate == strong(etag))) return true;
  }
  return false;
}

Reply file_reply(const Request& request, std::shared_ptr<const OpenFile> file,
                 const std::string& etag, Ranges ranges) {
  const std::uint64_t size = file->size();
  const std::string modified = http_date(file->modified_ns());
  Reply reply;
  reply.is_file_body = true;
  reply.content_type = "application/octet-stream";
  reply.add("ETag", etag);
  reply.add("Last-Modified", modified);
  // "none" and not nothing: httplib adds "bytes" to every HEAD answer without this header.
  reply.add("Accept-Ranges", ranges == Ranges::kHonoured ? "bytes" : "none");

  const bool unchanged = request.if_none_match.empty() ? request.if_modified_since == modified
                                                       : etag_listed(request.if_none_match, etag);
  if (unchanged) {
    reply.status = 304;
    return reply;
  }

  std::optional<std::optional<Slice>> slice;
  const bool same_file =
      request.if_range.empty() || request.if_range == etag || request.if_range == modified;
  if (ranges == Ranges::kHonoured && same_file) slice = parse_range(request.range, size);
  if (!slice) {
    reply.body = Body::of_file(std::move(file), 0, size);
  } else if (*slice) {
    const auto [offset, length] = **slice;
    reply.status = 206;
    reply.add("Content-Range", "bytes " + std::to_string(offset) + "-" +
                                   std::to_string(offset + length - 1) + "/" +
                                   std::to_string(size));
    reply.body = Body::of_file(std::move(file), offset, length);
  } else {
    reply.status = 416;
    reply.is_file_body = false;
    reply.content_type = "text/plain; charset=utf-8";
    reply.add("Content-Range", "bytes */" + std::to_string(size));
  }
  return reply;
}

}  // namespace fvprefetch::testhub
