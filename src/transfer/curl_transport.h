// The Transport over libcurl's multi interface, the one place that includes curl's transfer API.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/environment.h"
#include "transfer/transport.h"

namespace fvprefetch {

struct CurlOptions {
  environment::TrustStore trust;
  std::string user_agent;
  /// For http:// addresses, where libcurl finds none: it does not read HTTP_PROXY in capitals.
  std::string http_proxy = {};
  /// Some addresses may be asked for through a proxy: what does not answer may be that.
  bool may_use_proxy = false;
  std::chrono::milliseconds connect_timeout{30'000};
  /// Bytes per second of all transfers together.
  std::optional<std::uint64_t> limit_rate = std::nullopt;
  /// Connections, idle ones included; 0: as many as are asked for.
  std::size_t most_sockets = 0;
};

/// HTTP/1.1 (HTTP/2 for what is small, where the server has it), `Accept-Encoding: identity`,
/// proxies from the environment as libcurl reads them, shared connections, DNS and TLS sessions.
/// Creating it does not open a socket.
[[nodiscard]] std::unique_ptr<Transport> make_curl_transport(CurlOptions options);

}  // namespace fvprefetch
