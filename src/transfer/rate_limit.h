// Obeys a server that says "not now": while it does, nobody in this process asks it anything.
//
// A rate limit (retry.h), or a 503 with Retry-After, closes the origin that sent it (scheme, host,
// port) until the time that it names (retry::wait_asked); requests that are begun meanwhile wait
// here, and come back spread over up to a second, since those who were sent away together must not
// come back together. The answer itself is passed on: whether its request is tried again is its
// owner's decision.
#pragma once

#include <memory>
#include <random>

#include "base/clock.h"
#include "transfer/transport.h"

namespace fvprefetch {

/// `inner` sends each hop of a redirect as a request of its own (put follow_redirects above this).
/// Nothing is owned. A request that waits is not counted in requests() yet. One that would have to
/// wait beyond `deadline` gets the server's last such answer at once, and is never sent.
[[nodiscard]] std::unique_ptr<Transport> obey_rate_limits(Transport& inner, Clock& clock,
                                                          Clock::TimePoint deadline,
                                                          std::mt19937& random);

}  // namespace fvprefetch
