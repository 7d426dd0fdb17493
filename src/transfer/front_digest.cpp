#include "transfer/front_digest.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <vector>

namespace fvprefetch {
namespace {

// Small enough to stay in a core's cache between the read and the hash.
constexpr std::size_t kPiece = 256U << 10U;
// Waking a thread for less is dearer than the hash.
constexpr std::uint64_t kWorthATask = 1U << 20U;
// Then it is another file's turn: the prefix of a resumed file may be hundreds of GB.
constexpr std::uint64_t kTurn = 32U << 20U;

}  // namespace

// Shared with the task that runs, which outlives a digest that was given up.
struct FrontDigest::State {
  State(posix::Fd file, std::string file_path, Digest::Kind kind, std::uint64_t size)
      : fd(std::move(file)), path(std::move(file_path)), hasher(kind, size) {}

  struct AtHand {
    std::uint64_t offset;
    BodyPiece piece;
  };

  // Of the task only, while `running`.
  posix::Fd fd;
  std::string path;
  Hasher hasher;
  std::vector<std::byte> buffer;
  std::optional<Error> error;

  std::atomic<std::uint64_t> hashed{0};
  std::atomic<std::uint64_t> front{0};
  std::atomic<bool> running{false};
  std::atomic<bool> given_up{false};

  std::mutex mutex;
  std::deque<AtHand> at_hand;  // under mutex; in order, each from where the file was there

  static void run(Worker& worker, const std::shared_ptr<State>& state) {
    state->turn();
    state->running = false;
    // Bytes that arrived between the last look and this line have posted nothing.
    const bool behind = state->front - state->hashed >= kWorthATask;
    if (behind && !state->error && !state->given_up && !state->running.exchange(true)) {
      worker.post([&worker, state] { run(worker, state); });
    }
  }

  std::optional<BodyPiece> next_at_hand(std::uint64_t at, std::uint64_t& most);

  void turn() {
    buffer.resize(kPiece);
    for (std::uint64_t left = kTurn; left > 0 && !error && !given_up;) {
      const std::uint64_t at = hashed;
      std::uint64_t piece = std::min<std::uint64_t>({front - at, kPiece, left});
      if (piece == 0) return;
      if (const auto bytes = next_at_hand(at, piece)) {
        hasher.update(bytes->data);
        left -= std::min<std::uint64_t>(left, bytes->data.size());
        hashed = at + bytes->data.size();
        continue;
      }
      const auto length = posix::read_at(fd, at, std::span(buffer).first(piece), path);
      if (!length || *length == 0) {
        error = length ? fail(ErrorCode::kInternal, path + " ended while it was read").value()
                       : length.error();
        return;
      }
      hasher.update(std::span(buffer).first(*length));
      left -= *length;
      hashed = at + *length;
    }
  }
};

// What begins at `at`; else `most` is how much may be read until something does.
std::optional<BodyPiece> FrontDigest::State::next_at_hand(std::uint64_t at, std::uint64_t& most) {
  const std::lock_guard guard(mutex);
  while (!at_hand.empty() && at_hand.front().offset < at) at_hand.pop_front();
  if (at_hand.empty()) return std::nullopt;
  if (at_hand.front().offset > at) {
    most = std::min(most, at_hand.front().offset - at);
    return std::nullopt;
  }
  BodyPiece piece = std::move(at_hand.front().piece);
  at_hand.pop_front();
  return piece;
}

FrontDigest::FrontDigest(Worker& worker, posix::Fd fd, std::string path, Digest::Kind kind,
                         std::uint64_t size)
    : worker_(worker),
      state_(std::make_shared<State>(std::move(fd), std::move(path), kind, size)) {}

FrontDigest::~FrontDigest() {
  state_->given_up = true;
}

void FrontDigest::take(std::uint64_t offset, const BodyPiece& piece) {
  if (!piece.kept) return;
  const std::lock_guard guard(state_->mutex);
  state_->at_hand.push_back({offset, piece});
}

void FrontDigest::advance(std::uint64_t front) {
  state_->front = front;
  post_if_behind(kWorthATask);
}

std::optional<Result<std::string>> FrontDigest::finish(std::uint64_t size) {
  state_->front = size;
  post_if_behind(1);
  if (state_->running) return std::nullopt;
  // The task's last store was to `running`: what it wrote before is ours now.
  if (state_->error) return fail(*state_->error);
  if (state_->hashed < size) return std::nullopt;
  return state_->hasher.finish();
}

void FrontDigest::post_if_behind(std::uint64_t by) {
  if (state_->front - state_->hashed < by || state_->running.exchange(true)) return;
  if (state_->error) {  // of a task before: nothing more is to be read
    state_->running = false;
    return;
  }
  worker_.post([&worker = worker_, state = state_] { State::run(worker, state); });
}

}  // namespace fvprefetch
