// HTTP as a seam: requests go in, events come out, all on one thread.
//
// Two implementations: curl_transport (libcurl multi) and the tests' scripted transport, which pass
// one contract suite. A Transport neither retries nor follows redirects nor judges a status: who
// may see a credential is decided in redirect.h, what a failure means in retry.h.
//
// Threads: one; poll() delivers every callback. Sinks must outlive their transfer.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/url.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

/// A token and the origins that may see it ("https://host:443").
struct Credential {
  Secret token;
  std::vector<std::string> origins;
};

/// Whether a request to `url` may carry the token: the one place where this is decided. False for
/// an empty token and for what is no URL.
[[nodiscard]] bool may_see(const Credential& credential, const std::string& url);

/// Bytes per second that a body has to bring on average, or else its server only pretends to send.
inline constexpr std::uint64_t kSlowest = 1024;

struct Request {
  enum class Method { kGet, kHead };
  Method method = Method::kGet;
  std::string url;
  /// Travel with every hop of a redirect, so no secret belongs here.
  std::vector<std::pair<std::string, std::string>> headers;
  /// Sent as `Authorization: Bearer` on requests to its origins only.
  Credential credential;
  /// Of earlier redirects of the same chain, as Completion::cookies has told them: each is sent
  /// where its server allows it to be.
  std::vector<std::string> cookies;
  /// Only the head of a 2xx answer is wanted: a Fetcher ends the transfer there. (HEAD would be
  /// another request than the one that matters, and servers treat it as such.)
  bool head_only = false;
  /// Few bytes are expected: may go over one connection with others, where the server has HTTP/2.
  /// (Large bodies would share that connection's window, and be cut together.)
  bool small = false;
  /// Longer than this is not waited until a rate limit of its host ends: it is answered at once, as
  /// it was last. (There is another address to go to.)
  std::chrono::seconds patience = std::chrono::hours(24 * 365);
  /// No byte for this long, or fewer than kSlowest over it, ends the transfer (kStalled).
  std::chrono::milliseconds stall_timeout{60'000};
};

/// Status line and headers of a response.
struct ResponseHead {
  int status = 0;   ///< 0: no answer
  std::string url;  ///< that answered (after redirects), or was asked when none did
  std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case

  /// The redirects that led there have set cookies: its address alone may be answered otherwise.
  bool by_cookies = false;
  /// The body ends when the connection does: an end that comes too early is not seen.
  bool ends_with_connection = false;

  /// First header of that (lower-case) name, or "".
  [[nodiscard]] std::string header(std::string_view name) const;
  /// All of that name, as the one list that they are.
  [[nodiscard]] std::string headers_of(std::string_view name) const;
  /// Content-Length when it is told: bytes of the body as it comes, encoded or not.
  [[nodiscard]] std::optional<std::uint64_t> content_length() const;
};

/// A piece of a body.
struct BodyPiece {
  std::span<const std::byte> data;  ///< there until on_body() returns
  /// Where it is not nullptr, who holds it, on whatever thread, may read `data` on. Not for long: a
  /// transport lends a few of these at a time.
  std::shared_ptr<const void> kept;

  [[nodiscard]] BodyPiece part(std::uint64_t from, std::uint64_t size) const {
    return {data.subspan(from, size), kept};
  }
};

/// Receives a response. Returning false from either function ends the transfer (kRefusedBySink).
class BodySink {
 public:
  virtual ~BodySink() = default;
  virtual bool on_head(const ResponseHead& head) = 0;
  virtual bool on_body(const BodyPiece& piece) = 0;
};

using TransferId = std::uint64_t;

/// How a transfer ended below HTTP.
enum class TransportFailure {
  kNone,           ///< a complete response, whatever its status
  kRefusedBySink,  ///< the sink said stop; the sink knows why
  kResolve,        ///< host name not found
  kConnect,        ///< refused, unreachable, timed out, or ended during the TLS handshake
  kTls,            ///< the certificate is not trusted, or the trust store cannot be used
  kProxy,
  kDescriptors,  ///< this process, or this host, has too many open files
  kStalled,      ///< no byte, or next to none, for stall_timeout
  kCut,          ///< connection ended before the body did
  kProtocol,     ///< malformed answer
  kUrl           ///< not a URL that can be asked for
};

struct Completion {
  TransferId id = 0;
  TransportFailure failure = TransportFailure::kNone;
  std::string detail;          ///< the transport's words, redacted; empty for kNone
  ResponseHead head;           ///< status 0 when none arrived; the url is there in any case
  std::uint64_t requests = 1;  ///< that it took: one for each redirect hop
  /// Of a redirect: those of the request and those that it sets, in words of the transport's own.
  std::vector<std::string> cookies;
};

class Transport {
 public:
  virtual ~Transport() = default;
  /// Begins a request. `sink` is called from poll() until the completion is delivered.
  virtual TransferId start(const Request& request, BodySink& sink) = 0;
  /// Moves data until something completed, `until` has passed, or `stop` was asked. May return
  /// nothing; returns at once when no transfer runs. What a sink throws comes out here.
  virtual std::vector<Completion> poll(Clock::TimePoint until, const std::stop_token& stop) = 0;
  /// Forgets a transfer: no further callback, no completion.
  virtual void cancel(TransferId id) = 0;
  /// Requests begun so far (each redirect hop counts); a bad URL begins none.
  [[nodiscard]] virtual std::uint64_t requests() const = 0;
};

/// A whole small response.
struct Response {
  ResponseHead head;
  std::string body;
};

/// Asks for a small document and waits for it: with redirects followed, transient failures tried
/// again, and the body bounded. What source/ uses to talk to the Hub; never for checkpoints.
class Fetcher {
 public:
  virtual ~Fetcher() = default;
  /// Any complete HTTP answer is a value, whatever its status. Errors: kNetwork, kRateLimited,
  /// kSignalBase + n.
  [[nodiscard]] virtual Result<Response> fetch(const Request& request) = 0;
};

}  // namespace fvprefetch
