// URLs: parsed by libcurl's own parser, so that the host that we judge (may the token go there?)
// is the host that libcurl connects to. Two parsers that disagree are how tokens leak.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "fvprefetch/error.h"

namespace fvprefetch {

struct Url {
  std::string scheme;  ///< lower case
  std::string host;    ///< lower case, IPv6 in brackets
  int port = 0;        ///< explicit or the scheme's
  std::string path;    ///< still percent-encoded, begins with /
  std::string query;   ///< without ?, may be empty
  bool has_user = false;

  /// "https://host:443": what a credential is bound to.
  [[nodiscard]] std::string origin() const;
};

/// kUsage when `text` is no absolute http(s) URL with a host.
[[nodiscard]] Result<Url> parse_url(const std::string& text);

/// The origin of an absolute http(s) URL, "" of anything else.
[[nodiscard]] std::string origin_of(const std::string& url);

/// RFC 3986 resolution of `reference` (a Location header) against `base`.
[[nodiscard]] Result<std::string> resolve_reference(const std::string& base,
                                                    const std::string& reference);

/// Where a redirect from `from` leads: resolve_reference(), but never from https on to http
/// (kNetwork).
[[nodiscard]] Result<std::string> redirect_target(const std::string& from,
                                                  const std::string& location);

/// Safe to print: no user, password, query or fragment ("https://host/path").
[[nodiscard]] std::string redact(const std::string& url);

/// Percent-encodes everything but A-Z a-z 0-9 _ . - ~ and the characters of `keep` (Python's
/// urllib.parse.quote).
[[nodiscard]] std::string quote(std::string_view text, std::string_view keep = "/");

/// A secret cannot be printed by accident: it has no stream operator, and its text must be asked
/// for by name.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string text) : text_(std::move(text)) {}
  [[nodiscard]] bool empty() const { return text_.empty(); }
  [[nodiscard]] const std::string& reveal() const { return text_; }

 private:
  std::string text_;
};

}  // namespace fvprefetch
