#include "cluster/chain.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "base/awake_time.h"
#include "base/clock.h"
#include "base/try.h"
#include "cluster/attended.h"

namespace fvprefetch {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::size_t kHeader = 8;
constexpr std::uint32_t kLast = 1;   // the stream is over with this frame
constexpr std::uint32_t kEarly = 2;  // with kLast: it was ended early

// Header and payload; copies share them. What the stream does not use of it costs no memory, and no
// time.
class Buffer {
 public:
  explicit Buffer(std::size_t payload)
      : bytes_(std::make_shared_for_overwrite<std::byte[]>(kHeader + payload)),
        size_(kHeader + payload) {}
  /// Another copy of it is in use.
  [[nodiscard]] bool is_shared() const { return bytes_.use_count() > 1; }
  [[nodiscard]] std::span<std::byte> all() const { return {bytes_.get(), size_}; }
  [[nodiscard]] std::span<std::byte> payload() const { return all().subspan(kHeader); }

 private:
  std::shared_ptr<std::byte[]> bytes_;
  std::size_t size_;
};

void set_header(const Buffer& buffer, std::uint32_t length, std::uint32_t flags) {
  std::memcpy(buffer.all().data(), &length, sizeof length);
  std::memcpy(buffer.all().data() + sizeof length, &flags, sizeof flags);
}

enum class Sign : std::uint32_t {
  kLives,
  kDone,  // the last one: has taken and passed on all of it
  kLost   // the last one: the chain is broken
};

// The signs of life of a neighbour, and those for it. Each keeps one receive open until the last
// one has come, so that none is left over.
class Neighbour {
 public:
  Neighbour(Collective& ranks, int rank, const ChainEnd& end, const ChainOptions& options)
      : ranks_(ranks), rank_(rank), patience_(options.patience) {
    const auto at = static_cast<std::size_t>(rank);
    name_ = "node " + (at < end.names.size() ? end.names[at] : "of rank " + std::to_string(rank));
  }

  /// To be called again and again. Fails when the neighbour is lost, or says that another one is.
  Status turn() {
    const auto now = time_.now();
    if (now < next_turn_) return {};
    next_turn_ = now + std::min<SteadyClock::duration>(patience_ / 100, kTurn);
    FVP_CHECK_OK(listen(now));
    if (heard_ == Sign::kLost) {
      Error error = peer_lost("", patience_);
      error.message = name_ + " reported a lost node";
      return fail(std::move(error));
    }
    if (!parted_ && now - heard_at_ > patience_) {
      return fail(peer_lost("no heartbeat from " + name_, patience_));
    }
    if (outgoing_) {
      FVP_TRY(const bool sent, outgoing_->done());
      if (sent) outgoing_.reset();
    }
    if (!outgoing_ && said_ == Sign::kLives && now - said_at_ > patience_ / 10) {
      return say(next_);
    }
    return {};
  }

  /// It has sent something else: its signs may be behind that.
  void does_something() { heard_at_ = time_.now(); }

  /// The last sign, as soon as may be.
  void end() {
    next_ = Sign::kDone;
    said_at_ = {};
    next_turn_ = {};
  }
  /// The other last sign, at once; best effort, for it may be the neighbour that is lost.
  void tell_that_it_is_broken() {
    static constexpr Sign kBroken = Sign::kLost;
    auto sent = ranks_.send(rank_, Mail::kSigns, std::as_bytes(std::span(&kBroken, 1)));
    if (sent) last_ = *std::move(sent);
  }
  /// Both have given their last sign.
  [[nodiscard]] bool parted() const { return parted_ && said_ != Sign::kLives && !outgoing_; }

 private:
  static constexpr std::chrono::milliseconds kTurn{50};

  Status listen(SteadyClock::time_point now) {
    while (!parted_) {
      if (!incoming_) {
        FVP_TRY(incoming_,
                ranks_.receive(rank_, Mail::kSigns, std::as_writable_bytes(std::span(&heard_, 1))));
      }
      FVP_TRY(const bool here, incoming_->done());
      if (!here) return {};
      incoming_.reset();
      heard_at_ = now;
      parted_ = heard_ != Sign::kLives;
    }
    return {};
  }

  Status say(Sign sign) {
    said_ = sign;
    said_at_ = time_.now();
    FVP_TRY(outgoing_, ranks_.send(rank_, Mail::kSigns, std::as_bytes(std::span(&said_, 1))));
    return {};
  }

  Collective& ranks_;
  int rank_;
  std::string name_;
  std::chrono::milliseconds patience_;
  AwakeTime time_;
  SteadyClock::time_point next_turn_;
  Sign heard_ = Sign::kLives;
  SteadyClock::time_point heard_at_ = time_.now();
  bool parted_ = false;  // its last sign has come
  Sign next_ = Sign::kLives;
  Sign said_ = Sign::kLives;
  SteadyClock::time_point said_at_ = time_.now();
  std::unique_ptr<Pending> incoming_;
  std::unique_ptr<Pending> outgoing_;
  std::unique_ptr<Pending> last_;  // of a broken chain
};

struct Frame {
  explicit Frame(std::size_t payload) : buffer(payload) {}

  Buffer buffer;
  std::unique_ptr<Pending> incoming;
  std::unique_ptr<Pending> outgoing;
  bool handled = false;   // given to the takers and to the next rank
  std::size_t taken = 0;  // by how many takers; under Chain::mutex_

  /// For a taker, which may still read it when the frame is used for something else.
  struct Piece {
    Buffer buffer;
    std::uint32_t length;
  };
  [[nodiscard]] Piece piece() const { return {buffer, length()}; }

  [[nodiscard]] std::uint32_t word(std::size_t at) const {
    std::uint32_t value = 0;
    std::memcpy(&value, buffer.all().data() + at, sizeof value);
    return value;
  }
  [[nodiscard]] std::uint32_t length() const { return word(0); }
  [[nodiscard]] std::uint32_t flags() const { return word(sizeof(std::uint32_t)); }
};

// How the calling thread waits: MPI moves only when it is tested, so it is tested again at once as
// long as something moves, and at longer and longer intervals when nothing does. Where a test takes
// long, a virtual machine say, it must not take all the time that others could use.
class Nap {
 public:
  void nothing_moved() {
    ++idle_;
    const Clock::TimePoint now = real_clock().now();
    // A turn that was interrupted is no measure.
    turn_ = std::min(turn_ + turn_ / 8, now - awake_since_);
    if (idle_ < kAtOnce && turn_ < kQuick) {
      std::this_thread::yield();
    } else {
      const auto growing = std::chrono::microseconds(std::min<std::size_t>(idle_, 500));
      const auto share = std::min<Clock::TimePoint::duration>(4 * turn_, kLongest);
      real_clock().sleep_until(now + std::max<Clock::TimePoint::duration>(growing, share), {});
    }
    awake_since_ = real_clock().now();
  }
  void moved() {
    idle_ = 0;
    awake_since_ = real_clock().now();
  }

 private:
  static constexpr std::size_t kAtOnce = 50;
  static constexpr std::chrono::microseconds kQuick{50};
  static constexpr std::chrono::milliseconds kLongest{2};

  std::size_t idle_ = 0;
  Clock::TimePoint awake_since_ = real_clock().now();
  Clock::TimePoint::duration turn_ = kLongest;  // what a turn of the loop takes
};

// Frames are numbered from 0; number n lies in the buffer n % frames. Of each rank:
//   posted_ >= arrived_ >= handled_ >= freed_, and posted_ <= freed_ + frames
// After the last frame of the stream come frames - 1 empty ones: each rank has asked for so many at
// most, and what was asked for must come.
// Owned by the calling thread and its other threads together, for as long as one of them runs.
class Chain : public std::enable_shared_from_this<Chain> {
 public:
  Chain(Collective& ranks, ChainEnd end, const ChainOptions& options)
      : ranks_(ranks),
        end_(std::move(end)),
        options_(options),
        first_(ranks.rank() == 0),
        last_(ranks.rank() == ranks.size() - 1),
        spare_(first_ ? options.frame_bytes : 0) {
    if (!first_) neighbours_.emplace_back(ranks, ranks.rank() - 1, end_, options);
    if (!last_) neighbours_.emplace_back(ranks, ranks.rank() + 1, end_, options);
    const std::size_t count = std::max<std::size_t>(options.frames, 2);
    frames_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) frames_.emplace_back(options.frame_bytes);
  }

  ChainResult run() {
    begin_threads();
    Status status = guard([this] { return pump(); });
    if (status) status = guard([this] { return part(); });
    if (!status) {
      // Before the threads are waited for: one of them may be held up by the same fault.
      for (Neighbour& neighbour : neighbours_) neighbour.tell_that_it_is_broken();
      keep_for_good();
    }
    const bool ended = end_threads(status.has_value());
    if (!status) return {false, !ended, status.error()};
    return {!early_, !ended, std::nullopt};
  }

 private:
  Frame& frame(std::size_t number) { return frames_[number % frames_.size()]; }

  // --- the threads -------------------------------------------------------------------------------

  // All of them or none, before the first collective step: a rank without them goes on passing on.
  void begin_threads() {
    const auto begin = [this](auto work) {
      {
        const std::lock_guard lock(mutex_);
        ++running_;
      }
      try {
        threads_.emplace_back([self = shared_from_this(), work] {
          work(*self);
          const std::lock_guard lock(self->mutex_);
          --self->running_;
          if (self->counted_) count_left_behind(-1);
          self->changed_.notify_all();
        });
        return true;
      } catch (const std::system_error&) {
        const std::lock_guard lock(mutex_);
        --running_;
        return false;
      }
    };
    bool all = true;
    for (std::size_t i = 0; all && i < end_.takers.size(); ++i) {
      all = begin([i](Chain& chain) { chain.take(i); });
    }
    if (all && first_) all = begin([](Chain& chain) { chain.fill(); });
    if (all) return;
    {
      std::unique_lock lock(mutex_);
      takers_ = 0;
      over_ = true;  // those that were begun end, and have taken nothing
      changed_.notify_all();
      changed_.wait(lock, [this] { return running_ == 0; });
    }
    join_threads();
    early_ = early_ || first_;
    if (end_.unable) end_.unable(no_thread_left());
  }

  // False: one of them does not end, and this rank has to.
  bool end_threads(bool healthy) {
    std::unique_lock lock(mutex_);
    over_ = true;
    changed_.notify_all();
    while (!changed_.wait_for(lock, std::chrono::milliseconds(50), [&] { return running_ == 0; })) {
      lock.unlock();
      if (healthy && end_.attend) end_.attend();
      const bool late = is_late(!healthy);
      lock.lock();
      if (!late || running_ == 0) continue;
      counted_ = true;
      count_left_behind(running_);
      for (std::thread& thread : threads_) thread.detach();
      return false;
    }
    lock.unlock();
    join_threads();
    return true;
  }

  void join_threads() {
    for (std::thread& thread : threads_) thread.join();  // see within.h
    threads_.clear();
  }

  // This rank was told to end (or has to, `must`), and the time for it is over.
  bool is_late(bool must) {
    const bool stop = must || (end_.must_stop && end_.must_stop());
    const auto now = SteadyClock::now();
    if (stop && !asked_) asked_ = now;
    return stop && now - *asked_ > options_.grace;
  }

  // Neither a source that sends no frame nor a taker that frees none may keep a rank that was told
  // to end. The others hear of it by what rank 0 sends next.
  void heed_stop() {
    const auto now = SteadyClock::now();
    if (now < next_look_) return;
    next_look_ = now + std::chrono::milliseconds(50);
    const bool late = is_late(false);
    if (asked_ && first_ && !end_at_) early_ = true;
    if (!late) return;
    const std::lock_guard lock(mutex_);
    abandoned_ = over_ = true;
    takers_ = 0;
    changed_.notify_all();
  }

  // What was asked for may still arrive: the buffers must outlive it.
  void keep_for_good() {
    static std::mutex keeping;
    static auto* const kept =
        new std::deque<std::shared_ptr<Chain>>;  // outlives static destruction
    const std::lock_guard lock(keeping);
    kept->push_back(shared_from_this());
  }

  void fill() {
    for (;;) {
      const std::size_t length = end_.source(spare_.payload());
      std::unique_lock lock(mutex_);
      set_header(spare_, static_cast<std::uint32_t>(length), length == 0 ? kLast : 0);
      ready_ = true;
      changed_.wait(lock, [&] { return over_ || !ready_; });
      if (over_ || length == 0) return;
    }
  }

  void take(std::size_t taker) {
    for (std::size_t number = 0;; ++number) {
      std::optional<Frame::Piece> piece;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return over_ || number < given_; });
        if (abandoned_ || number >= given_) return;
        piece = frame(number).piece();
      }
      if (piece->length > 0) end_.takers[taker](piece->buffer.payload().first(piece->length));
      const std::lock_guard lock(mutex_);
      if (abandoned_) return;
      ++frame(number).taken;
    }
  }

  // --- the calling thread ------------------------------------------------------------------------

  Status pump() {
    Nap nap;
    while (!done()) {
      bool moved = false;
      FVP_CHECK_OK(first_ ? fetch(moved) : receive(moved));
      FVP_CHECK_OK(pass_on(moved));
      FVP_CHECK_OK(free_frames(moved));
      FVP_CHECK_OK(carry_words(moved));
      FVP_CHECK_OK(turn_to_neighbours());
      if (end_.attend) end_.attend();
      heed_stop();
      moved ? nap.moved() : nap.nothing_moved();
    }
    return {};
  }

  Status turn_to_neighbours() {
    for (Neighbour& neighbour : neighbours_) FVP_CHECK_OK(neighbour.turn());
    return {};
  }

  // Until the neighbours are done, too: they may count on signs of life until then.
  Status part() {
    for (Neighbour& neighbour : neighbours_) neighbour.end();
    Nap nap;
    while (!std::all_of(neighbours_.begin(), neighbours_.end(),
                        [](const Neighbour& neighbour) { return neighbour.parted(); })) {
      FVP_CHECK_OK(turn_to_neighbours());
      if (end_.attend) end_.attend();
      heed_stop();
      nap.nothing_moved();
    }
    return {};
  }

  [[nodiscard]] bool done() const {
    return end_at_ && freed_ == *end_at_ && words_done_ == words_due();
  }

  // The stream, its trailing frames included, ends before this number.
  void ends_after(std::size_t number) { end_at_ = number + frames_.size(); }

  /// Rank 0: what the source has.
  Status fetch(bool& moved) {
    if (arrived_ == freed_ + frames_.size() || arrived_ == end_at_) return {};
    Frame& next = frame(arrived_);
    if (end_at_ || early_) {
      set_header(next.buffer, 0, end_at_ ? 0 : kLast | kEarly);  // a trailing one, or the last
    } else if (!take_spare(next)) {
      return {};
    }
    if ((next.flags() & kLast) != 0) ends_after(arrived_);
    ++arrived_;
    moved = true;
    return {};
  }

  bool take_spare(Frame& next) {
    const std::lock_guard lock(mutex_);
    if (!ready_) return false;
    std::swap(next.buffer, spare_);
    ready_ = false;
    changed_.notify_all();
    return true;
  }

  Status receive(bool& moved) {
    while (posted_ < freed_ + frames_.size() && (!end_at_ || posted_ < *end_at_)) {
      Frame& next = frame(posted_);
      FVP_TRY(next.incoming, ranks_.receive(ranks_.rank() - 1, Mail::kStream, next.buffer.all()));
      ++posted_;
    }
    while (arrived_ < posted_) {
      Frame& next = frame(arrived_);
      FVP_TRY(const bool here, next.incoming->done());
      if (!here) break;
      next.incoming.reset();
      if (next.length() > options_.frame_bytes) {
        return fail(ErrorCode::kInternal, "a frame exceeds the maximum size",
                    "start the same fvprefetch on every node");
      }
      if ((next.flags() & kLast) != 0) {
        early_ = (next.flags() & kEarly) != 0;
        ends_after(arrived_);
      }
      ++arrived_;
      moved = true;
      neighbours_.front().does_something();
    }
    return {};
  }

  Status pass_on(bool& moved) {
    for (; handled_ < arrived_; ++handled_) {
      Frame& next = frame(handled_);
      if (!last_) {
        FVP_TRY(next.outgoing,
                ranks_.send(
                    ranks_.rank() + 1, Mail::kStream,
                    std::span<const std::byte>(next.buffer.all()).first(kHeader + next.length())));
      }
      {
        const std::lock_guard lock(mutex_);
        given_ = handled_ + 1;
      }
      changed_.notify_all();
      moved = true;
    }
    return {};
  }

  Status free_frames(bool& moved) {
    while (freed_ < handled_) {
      Frame& oldest = frame(freed_);
      if (oldest.outgoing) {
        FVP_TRY(const bool sent, oldest.outgoing->done());
        if (!sent) break;
        oldest.outgoing.reset();
      }
      {
        const std::lock_guard lock(mutex_);
        if (oldest.taken < takers_) break;
        oldest.taken = 0;
        if (oldest.buffer.is_shared()) oldest.buffer = Buffer(options_.frame_bytes);
      }
      ++freed_;
      moved = true;
    }
    return {};
  }

  // --- the words, from the last rank to the first ------------------------------------------------

  /// How many there are of the frames that this rank has handled.
  [[nodiscard]] std::size_t words_due() const { return handled_ / options_.word_every; }

  Status carry_words(bool& moved) {
    if (word_out_) {
      FVP_TRY(const bool sent, word_out_->done());
      if (!sent) return {};
      word_out_.reset();
      ++words_done_;
      moved = true;
    }
    if (words_done_ == words_due()) return {};
    ChainWord sum = end_.word();
    if (!last_) {
      if (!word_in_) {
        FVP_TRY(word_in_, ranks_.receive(ranks_.rank() + 1, Mail::kStream,
                                         std::as_writable_bytes(std::span(&heard_, 1))));
      }
      FVP_TRY(const bool here, word_in_->done());
      if (!here) return {};
      word_in_.reset();
      sum.out += heard_.out;
      sum.signal = std::max(sum.signal, heard_.signal);
      moved = true;
    }
    if (!first_) {
      said_ = sum;
      FVP_TRY(word_out_,
              ranks_.send(ranks_.rank() - 1, Mail::kStream, std::as_bytes(std::span(&said_, 1))));
      return {};
    }
    ++words_done_;
    if (!end_.go_on(sum) && !end_at_) early_ = true;
    return {};
  }

  Collective& ranks_;
  const ChainEnd end_;
  const ChainOptions options_;
  const bool first_;
  const bool last_;
  std::deque<Neighbour> neighbours_;  // the previous one, the next one; never moved, for their mail

  std::size_t posted_ = 0;
  std::size_t arrived_ = 0;
  std::size_t handled_ = 0;
  std::optional<std::size_t> end_at_;
  bool early_ = false;  // rank 0: the next frame is the last; others: the last one said so

  ChainWord heard_;
  ChainWord said_;
  std::unique_ptr<Pending> word_in_;
  std::unique_ptr<Pending> word_out_;
  std::size_t words_done_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Frame> frames_;  // a buffer belongs to one side at a time, as the numbers say
  std::size_t freed_ = 0;
  Buffer spare_;            // rank 0: the source's while it is not ready
  bool ready_ = false;      // under mutex_
  std::size_t given_ = 0;   // under mutex_
  bool over_ = false;       // under mutex_
  bool abandoned_ = false;  // under mutex_: takers that have not ended take nothing any more
  std::vector<std::thread> threads_;
  int running_ = 0;                               // of them; under mutex_
  bool counted_ = false;                          // those, as left behind; under mutex_
  std::optional<SteadyClock::time_point> asked_;  // when this rank was told to end
  SteadyClock::time_point next_look_{};
  std::size_t takers_ = end_.takers.size();  // that take; under mutex_
};

}  // namespace

ChainResult run_chain(Collective& ranks, const ChainEnd& end, const ChainOptions& options) {
  return std::make_shared<Chain>(ranks, end, options)->run();
}

}  // namespace fvprefetch
