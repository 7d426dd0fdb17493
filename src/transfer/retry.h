// What a failed attempt means and when to try again: pure functions, tested as tables.
#pragma once

#include <chrono>
#include <optional>
#include <random>

#include "fvprefetch/error.h"
#include "transfer/transport.h"

namespace fvprefetch::retry {

enum class Verdict {
  kDone,        ///< 2xx
  kAgain,       ///< transient: the same address after a delay
  kNextMirror,  ///< this address will not work; another may
  kStop         ///< no address will
};

struct Attempt {
  TransportFailure failure = TransportFailure::kNone;
  int status = 0;
  bool rate_limited = false;  ///< is_rate_limit() of its head
};

/// The class of an attempt's end. 408, 425, 429, 5xx (but not 501, 505), a refusal that is a rate
/// limit and every failure of the connection are transient. A certificate, a redirect that cannot
/// be followed and a bad URL do not get better by waiting: the next address. kStop is what the sink
/// refused.
[[nodiscard]] Verdict classify(const Attempt& attempt);

/// The answer means "not so many, not now": 429, or a 403 or 420 that has a Retry-After (whatever
/// it says) or says that nothing is left of a limit, as GitHub and data archives answer.
[[nodiscard]] bool is_rate_limit(const ResponseHead& head);

/// The seconds that `head` asks us to wait: `RateLimit: ...;r=0;t=55`, else `Retry-After` (seconds
/// or HTTP date against its own Date header, or else our clock), else RateLimit-Reset or
/// X-RateLimit-Reset when nothing remains (seconds, or a Unix time against the Date header);
/// nullopt when it does not.
[[nodiscard]] std::optional<std::chrono::seconds> wait_asked(const ResponseHead& head);

/// The delay before attempt number `retry` (1 = first retry): 0.5 s doubled each time up to 30 s,
/// with jitter in [1/2, 1]. `retry_after` is a floor to which that is added: those whom the server
/// sent away together do not come back together.
[[nodiscard]] std::chrono::milliseconds delay(int retry,
                                              std::optional<std::chrono::seconds> retry_after,
                                              std::mt19937& random);

/// What an attempt's end is to the user when it is the last: code and message.
/// A rate limit kRateLimited; 401, 403 kAccess; 404, 410 kNotFound; no URL kUsage; else kNetwork.
[[nodiscard]] Error to_error(const Completion& completion);

}  // namespace fvprefetch::retry
