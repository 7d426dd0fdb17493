#include "delivery.h"

#include <algorithm>
#include <vector>

namespace fvprefetch::testhub {

namespace {

constexpr std::uint64_t kPiece = 65536;
// A throttled body moves in steps of this share of a second, so that rates look even.
constexpr std::uint64_t kStepsPerSecond = 20;

std::uint64_t step_under(const RateLimit* limit) {
  if (limit == nullptr || limit->bytes_per_second() == 0) return kPiece;
  return std::clamp<std::uint64_t>(limit->bytes_per_second() / kStepsPerSecond, 1, kPiece);
}

}  // namespace

void StopSignal::raise() {
  const std::lock_guard lock(mutex_);
  raised_ = true;
  changed_.notify_all();
}

bool StopSignal::raised() const {
  const std::lock_guard lock(mutex_);
  return raised_;
}

bool StopSignal::wait_until(Clock::time_point when) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, when, [this] { return raised_; });
}

StopSignal::Clock::time_point RateLimit::reserve(std::uint64_t bytes) {
  const auto now = StopSignal::Clock::now();
  if (bytes_per_second_ == 0) return now;
  const std::chrono::duration<double> cost(static_cast<double>(bytes) /
                                           static_cast<double>(bytes_per_second_));
  const std::lock_guard lock(mutex_);
  const auto start = std::max(now, next_);
  next_ = start + std::chrono::duration_cast<StopSignal::Clock::duration>(cost);
  return start;
}

BodyWriter::BodyWriter(Body body, Delivery delivery, std::shared_ptr<Stats::Ticket> ticket,
                       bool count_bytes, RateLimit* shared_limit, StopSignal& stop)
    : body_(std::move(body)),
      delivery_(delivery),
      ticket_(std::move(ticket)),
      count_bytes_(count_bytes),
      length_(delivery.announced_length.value_or(body_.length)),
      own_limit_(delivery.bytes_per_second),
      shared_limit_(shared_limit),
      stop_(stop) {}

bool BodyWriter::write_piece(std::uint64_t position, const Write& write,
                             const ClientIsThere& there) {
  std::uint64_t end = length_;
  if (delivery_.cut_after) end = std::min(end, *delivery_.cut_after);
  if (delivery_.stall_after) end = std::min(end, *delivery_.stall_after);
  if (position >= end) return stall(there);

  const std::uint64_t count =
      std::min({end - position, step_under(&own_limit_), step_under(shared_limit_)});
  std::vector<char> piece(count, '\0');
  const std::size_t got = body_.read_at(position, piece.data(), piece.size());
  // The file shrank under us: closing is the honest answer. Padding is what was asked for.
  if (got < count && position + got < body_.length) return false;
  if (delivery_.flip_at) {
    const std::uint64_t first = body_.offset + position;
    if (*delivery_.flip_at >= first && *delivery_.flip_at < first + count) {
      char& byte = piece[*delivery_.flip_at - first];
      byte = static_cast<char>(~byte);
    }
  }

  auto when = own_limit_.reserve(count);
  if (shared_limit_ != nullptr) when = std::max(when, shared_limit_->reserve(count));
  if (when > StopSignal::Clock::now() && stop_.wait_until(when)) return false;

  const auto signed_count = static_cast<std::int64_t>(count);
  if (count_bytes_) ticket_->add_body_bytes(signed_count);
  if (ticket_ && position + count == length_) ticket_->finish();
  if (!write(piece.data(), piece.size())) {
    if (count_bytes_) ticket_->add_body_bytes(-signed_count);
    return false;
  }
  return true;
}

bool BodyWriter::stall(const ClientIsThere& there) {
  const bool cut = delivery_.cut_after &&
                   (!delivery_.stall_after || *delivery_.cut_after <= *delivery_.stall_after);
  if (cut) return false;
  // No event tells us that the client left; looking ten times a second is cheap enough.
  while (there()) {
    if (stop_.wait_until(StopSignal::Clock::now() + std::chrono::milliseconds(100))) break;
  }
  return false;
}

}  // namespace fvprefetch::testhub
