// Time as a seam: everything that waits asks a Clock, so that tests do not.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <stop_token>
#include <string>

namespace fvprefetch {

/// Ends the sleep of one thread from another: what it waits for has come.
class Wake {
 public:
  /// The sleeper, or whoever sleeps next, returns at once. Any thread.
  void up();
  /// True: it was called; the call is used up.
  bool wait_for(std::chrono::nanoseconds time);

 private:
  std::mutex mutex_;
  std::condition_variable called_;
  bool up_ = false;  ///< under mutex_
};

class Clock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  virtual ~Clock() = default;
  /// Monotonic. Never compared with another host's.
  [[nodiscard]] virtual TimePoint now() const = 0;
  /// Returns at `until`, soon after `stop` was asked, or when `wake` was called.
  virtual void sleep_until(TimePoint until, const std::stop_token& stop, Wake* wake) = 0;
  /// Processor time that the calling thread has used; always 0: it is not measured.
  [[nodiscard]] virtual std::chrono::nanoseconds thread_time() const { return {}; }
  void sleep_until(TimePoint until, const std::stop_token& stop) {
    sleep_until(until, stop, nullptr);
  }
};

/// The steady clock of this process; `sleep_until` notices a stop within 100 ms.
[[nodiscard]] Clock& real_clock();

/// Wall-clock time as RFC 3339 UTC with seconds ("2026-11-24T08:14:26Z"): for people and records,
/// never to judge another host.
[[nodiscard]] std::string rfc3339_now();
/// Wall-clock time in nanoseconds since 1970, as a file's mtime has it.
[[nodiscard]] std::int64_t wall_clock_ns();
/// The same form of a time in seconds since 1970 (a file's mtime).
[[nodiscard]] std::string rfc3339(std::int64_t seconds);

}  // namespace fvprefetch
