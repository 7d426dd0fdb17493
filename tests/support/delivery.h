// How the bytes of an answer leave: at once, slowly, cut, stalled, with a byte flipped, with a
// length that is not true. Faults decide what; this file knows how.
#pragma once

#include "message.h"
#include "stats.h"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

namespace fvprefetch::testhub {

/// Wakes everything that waits on purpose (delay, stall, throttle) when the server ends.
class StopSignal {
 public:
  using Clock = std::chrono::steady_clock;
  void raise();
  bool raised() const;
  /// True when raised before `when`.
  bool wait_until(Clock::time_point when);

 private:
  mutable std::mutex mutex_;  // guards raised_
  std::condition_variable changed_;
  bool raised_ = false;
};

/// Hands out send times so that all callers together stay under the rate. 0 = no limit.
class RateLimit {
 public:
  explicit RateLimit(std::uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}
  std::uint64_t bytes_per_second() const { return bytes_per_second_; }
  StopSignal::Clock::time_point reserve(std::uint64_t bytes);

 private:
  const std::uint64_t bytes_per_second_;
  std::mutex mutex_;  // guards next_
  StopSignal::Clock::time_point next_{};
};

/// Positions count from the start of this answer's body, flip_at from the start of the file.
struct Delivery {
  std::optional<std::uint64_t> cut_after;
  bool cut_resets = false;  // by RST and not by FIN
  std::optional<std::uint64_t> stall_after;
  std::optional<std::uint64_t> flip_at;
  std::optional<std::uint64_t> announced_length;  // exactly so much is sent: short, or zero-padded
  std::uint64_t bytes_per_second = 0;
  bool hide_length = false;
};

class BodyWriter {
 public:
  using Write = std::function<bool(const char*, std::size_t)>;
  using ClientIsThere = std::function<bool()>;

  /// `shared_limit` may be null, and `ticket` when nothing is counted. The limit and `stop` must
  /// outlive the writer.
  BodyWriter(Body body, Delivery delivery, std::shared_ptr<Stats::Ticket> ticket, bool count_bytes,
             RateLimit* shared_limit, StopSignal& stop);

  std::uint64_t length() const { return length_; }
  bool hides_length() const { return delivery_.hide_length; }
  /// When it closes the connection, then by RST.
  bool resets() const { return delivery_.cut_resets; }
  /// Sends one piece from `position`. False: the connection is to be closed.
  bool write_piece(std::uint64_t position, const Write& write, const ClientIsThere& there);

 private:
  bool stall(const ClientIsThere& there);

  Body body_;
  Delivery delivery_;
  std::shared_ptr<Stats::Ticket> ticket_;
  bool count_bytes_;
  std::uint64_t length_;
  RateLimit own_limit_;
  RateLimit* shared_limit_;
  StopSignal& stop_;
};

}  // namespace fvprefetch::testhub
