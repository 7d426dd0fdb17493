// Small documents over a Transport: the Fetcher that source/ talks to the Hub with.
#pragma once

#include <functional>
#include <memory>
#include <random>
#include <stop_token>

#include "base/clock.h"
#include "transfer/engine.h"
#include "transfer/transport.h"

namespace fvprefetch {

/// Told before each wait: what failed, and how long until it is tried again.
using OnWait = std::function<void(const std::string& why, std::chrono::milliseconds delay)>;

/// Told of an answer that is not there, or not whole, after 2 s, then every 30 s: the address
/// without secrets, and how long it has been waited for.
using OnSlow = std::function<void(const std::string& address, std::chrono::milliseconds waited)>;

/// A Fetcher on `transport` (which follows redirects, or else they are answers): transient failures
/// are tried again by `options`, whose stall timeout counts; bodies are at most 64 MiB. A rate
/// limit that remains is kRateLimited; any other answer that remains is a value. `stop` ends a
/// fetch with the error of `stop_signal` (SIGTERM when empty).
///
/// Not owned: transport, clock, random. It polls `transport` by itself, so no Engine may have a
/// transfer on the same transport meanwhile.
[[nodiscard]] std::unique_ptr<Fetcher> make_fetcher(Transport& transport, Clock& clock,
                                                    EngineOptions options, std::mt19937& random,
                                                    std::stop_token stop,
                                                    std::function<int()> stop_signal,
                                                    OnWait on_wait = {}, OnSlow on_slow = {});

}  // namespace fvprefetch
