#include "transfer/transport.h"

#include <algorithm>
#include <charconv>

namespace fvprefetch {

bool may_see(const Credential& credential, const std::string& url) {
  if (credential.token.empty()) return false;
  const auto parsed = parse_url(url);
  return parsed && std::find(credential.origins.begin(), credential.origins.end(),
                             parsed->origin()) != credential.origins.end();
}

std::string ResponseHead::header(std::string_view name) const {
  const auto found = std::find_if(headers.begin(), headers.end(),
                                  [name](const auto& header) { return header.first == name; });
  return found == headers.end() ? std::string() : found->second;
}

std::string ResponseHead::headers_of(std::string_view name) const {
  std::string list;
  for (const auto& [each, value] : headers) {
    if (each == name) list += (list.empty() ? "" : ", ") + value;
  }
  return list;
}

std::optional<std::uint64_t> ResponseHead::content_length() const {
  // Chunked: the length that stands there as well is to be ignored (RFC 9112, 6.3).
  if (!header("transfer-encoding").empty()) return std::nullopt;

  const std::string text = header("content-length");
  const char* const end = text.data() + text.size();
  std::uint64_t length = 0;
  const auto [stopped, error] = std::from_chars(text.data(), end, length);
  if (text.empty() || error != std::errc() || stopped != end) return std::nullopt;
  return length;
}

}  // namespace fvprefetch
