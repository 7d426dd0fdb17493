#include "base/url.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "base/ascii.h"
#include "base/try.h"

namespace fvprefetch {
namespace {

struct UrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Handle = std::unique_ptr<CURLU, UrlDeleter>;

// One part of a URL, nullopt when the URL has none.
std::optional<std::string> part(const Handle& url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url.get(), which, &text, flags) != CURLUE_OK || text == nullptr) {
    return std::nullopt;
  }
  const std::unique_ptr<char, decltype(&curl_free)> owner(text, &curl_free);
  return std::string(text);
}

bool set_url(const Handle& url, const std::string& text, unsigned flags) {
  // libcurl would stop at a NUL and judge another text than we were given.
  return url != nullptr && text.find('\0') == std::string::npos &&
         curl_url_set(url.get(), CURLUPART_URL, text.c_str(), flags) == CURLUE_OK;
}

bool is_http(const std::string& scheme) {
  return scheme == "http" || scheme == "https";
}

}  // namespace

std::string Url::origin() const {
  return scheme + "://" + host + ":" + std::to_string(port);
}

Result<Url> parse_url(const std::string& text) {
  const auto refuse = [&text](const std::string& why) {
    return fail(ErrorCode::kUsage, redact(text) + " " + why,
                "an address looks like https://host/path/file");
  };
  const Handle handle(curl_url());
  if (!set_url(handle, text, 0)) return refuse("is not a URL that can be asked for");

  Url url;
  url.scheme = lower(part(handle, CURLUPART_SCHEME).value_or(""));
  if (!is_http(url.scheme)) return refuse("is neither an http nor an https URL");
  url.host = lower(part(handle, CURLUPART_HOST).value_or(""));
  if (url.host.empty()) return refuse("has no host");
  const std::string port = part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT).value_or("");
  url.port = static_cast<int>(std::strtol(port.c_str(), nullptr, 10));
  if (url.port < 1 || url.port > 65535) return refuse("has no valid port");
  url.path = part(handle, CURLUPART_PATH).value_or("/");
  url.query = part(handle, CURLUPART_QUERY).value_or("");
  url.has_user =
      part(handle, CURLUPART_USER).has_value() || part(handle, CURLUPART_PASSWORD).has_value();
  return url;
}

std::string origin_of(const std::string& url) {
  const auto parsed = parse_url(url);
  return parsed ? parsed->origin() : std::string();
}

Result<std::string> resolve_reference(const std::string& base, const std::string& reference) {
  FVP_CHECK_OK(parse_url(base));
  const Handle handle(curl_url());
  // As libcurl itself takes a Location: blanks and raw bytes in it are encoded, not refused.
  constexpr unsigned kLocation = CURLU_URLENCODE | CURLU_ALLOW_SPACE;
  if (!set_url(handle, base, 0) || !set_url(handle, reference, kLocation)) {
    return fail(ErrorCode::kUsage, redact(base) + " leads to something that is not a URL");
  }
  (void)curl_url_set(handle.get(), CURLUPART_FRAGMENT, nullptr, 0);  // never sent to a server
  const auto resolved = part(handle, CURLUPART_URL);
  if (!resolved) return fail(ErrorCode::kUsage, redact(base) + " leads to an incomplete URL");
  FVP_CHECK_OK(parse_url(*resolved));
  return *resolved;
}

Result<std::string> redirect_target(const std::string& from, const std::string& location) {
  FVP_TRY(std::string target, resolve_reference(from, location));
  FVP_TRY(const Url before, parse_url(from));
  FVP_TRY(const Url after, parse_url(target));
  if (before.scheme == "https" && after.scheme != "https") {
    return fail(ErrorCode::kNetwork, "redirect from https to " + redact(target) + " refused");
  }
  return target;
}

std::string redact(const std::string& url) {
  try {
    const Handle handle(curl_url());
    // What the parser does not understand is not shown at all: a secret could be anywhere in it.
    // Blanks come out encoded, so that the text stays one word of a message.
    constexpr unsigned kAny = CURLU_NON_SUPPORT_SCHEME | CURLU_ALLOW_SPACE | CURLU_URLENCODE;
    if (!set_url(handle, url, kAny)) return "<URL>";
    for (const CURLUPart secret : {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_OPTIONS,
                                   CURLUPART_QUERY, CURLUPART_FRAGMENT}) {
      (void)curl_url_set(handle.get(), secret, nullptr, 0);
    }
    const auto text = part(handle, CURLUPART_URL);
    if (!text) return "<URL>";
    return *text;
  } catch (...) {
    return "<URL>";  // out of memory; fits the string's own buffer
  }
}

std::string quote(std::string_view text, std::string_view keep) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string quoted;
  for (const char c : text) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos ||
                       keep.find(c) != std::string_view::npos;
    if (plain) {
      quoted += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      quoted += '%';
      quoted += kHex[byte >> 4U];
      quoted += kHex[byte & 15U];
    }
  }
  return quoted;
}

}  // namespace fvprefetch
