#include "transfer/engine.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/url.h"
#include "transfer/file.h"
#include "transfer/retry.h"
#include "transfer/tuner.h"

namespace fvprefetch {
namespace {

using engine::File;
using engine::Outcome;
using engine::Stream;
using std::chrono::milliseconds;

// Several files are hashed at once, and one goes on while another is synced.
constexpr std::size_t kWorkers = 4;
// How often the number of connections is thought about.
constexpr milliseconds kTuning(20);
// How soon a digest that is ready is noticed while bytes of other files arrive.
constexpr milliseconds kDigestTick(5);

// The first address's error, with the others' behind it.
Error sum_up(std::vector<Error> given_up) {
  Error error = std::move(given_up.front());
  for (auto other = given_up.begin() + 1; other != given_up.end(); ++other) {
    error.message += "; then " + other->message;
  }
  return error;
}

}  // namespace

struct Engine::Impl {
  using Files = std::map<DownloadId, std::unique_ptr<File>>;
  /// What a host was found to bear.
  struct Limit {
    int most = 1;  ///< requests at once
    Clock::TimePoint not_before{};
    bool helped = false;  ///< what had been refused was served when fewer ran
  };

  Impl(Transport& transport, Clock& clock, EngineOptions options, std::mt19937& random)
      : transport_(transport), clock_(clock), options_(options), random_(random) {
    if (options_.worker == nullptr) {
      own_worker_ = make_worker(kWorkers);
      options_.worker = own_worker_.get();
    }
  }

  ~Impl() {
    // The transport outlives us and must not call sinks of ours.
    for (const auto& [id, file] : files_) stop_all(*file);
  }

  void stop_all(const File& file) {
    for (const auto& stream : file.streams()) {
      if (stream->transfer) transport_.cancel(*std::exchange(stream->transfer, std::nullopt));
    }
  }

  // --- the steps of poll() -----------------------------------------------------------------------

  // Looks for what an earlier download has left, and goes on with copying it.
  void adopt() {
    for (const auto& [id, file] : files_) {
      if (!std::exchange(file->looked, true)) file->partial().adopt(file->others, file->address());
      if (file->partial().copying()) file->partial().copy_some();
      if (std::string note = file->partial().take_note(); !note.empty()) {
        notes_.push_back({id, std::move(note)});
      }
    }
  }

  // Begins what is due; files wait as a time in their notes, nobody sleeps for them.
  void start_due() {
    const Clock::TimePoint now = clock_.now();
    for (const auto& [id, file] : files_) {
      for (const auto& stream : file->streams()) {
        if (stream->transfer && stream->is_served()) note_served(*file);
      }
    }
    for (const auto& [id, file] : files_) {
      if (file->partial().copying() || file->complete()) continue;
      if (!may_ask(*file)) continue;
      if (file->streams().empty()) file->open();
      for (const auto& stream : file->streams()) {
        if (stream->transfer || stream->embargo > now) continue;
        file->asked_beside = running_beside(*file);
        stream->transfer = transport_.start(file->begin(*stream, options_.stall_timeout), *stream);
      }
    }
  }

  // --- hosts that refuse more than so many downloads at once -------------------------------------

  // Requests to the host of `file` that run, those of the file itself left out.
  [[nodiscard]] int running_beside(const File& file) const {
    int running = 0;
    for (const auto& [id, other] : files_) {
      if (other.get() == &file || other->origin() != file.origin()) continue;
      running += static_cast<int>(
          std::count_if(other->streams().begin(), other->streams().end(),
                        [](const auto& stream) { return stream->transfer.has_value(); }));
    }
    return running;
  }

  [[nodiscard]] bool may_ask(const File& file) const {
    const auto limit = limits_.find(file.origin());
    if (limit == limits_.end() || !idle(file)) return true;
    if (!limit->second.helped && clock_.now() >= file.ask_by) return true;
    return clock_.now() >= limit->second.not_before && running_beside(file) < limit->second.most;
  }

  void note_served(const File& file) {
    served_.insert(file.origin());
    const auto limit = limits_.find(file.origin());
    if (file.too_many > 0 && limit != limits_.end()) limit->second.helped = true;
  }

  // As servers and proxies with a limit for each client answer.
  [[nodiscard]] bool says_too_many(const File& file, const Outcome& outcome) const {
    if (outcome.turned_away) return served_.contains(file.origin());
    // Where the Hub has given another reason, that is it.
    if (outcome.status == 403) return outcome.error.reason.starts_with(kHttpStatus);
    return outcome.status == 429 || outcome.status == 503;
  }

  // A host that refuses one download while others of it run may have enough of them: the file waits
  // until fewer do. A refusal that stays is the file's own. False: it is not for this reason.
  bool wait_for_fewer(DownloadId id, File& file, Stream& stream, Outcome& outcome) {
    constexpr int kTries = 3;
    // A 403 is mostly the file's own: others may run for hours.
    constexpr std::chrono::seconds kLongestWait(10);
    if (file.has_next_address() || !says_too_many(file, outcome)) return false;
    // Those that ran when it was asked for may have ended since.
    const int beside = running_beside(file);
    const auto limit = limits_.find(file.origin());
    const bool limited = limit != limits_.end();
    const bool crowded = limited || std::max(beside, file.asked_beside) > 0;
    if (!crowded && file.too_many == 0) return false;
    const bool helped = limited && limit->second.helped;
    const bool doubtful = outcome.status == 403 && !helped;
    const Clock::TimePoint now = clock_.now();
    Error& why = outcome.error;
    // To ask for the whole was a try, too.
    const int tries = file.asked_whole() ? kTries - 1 : kTries;
    if (file.too_many >= tries || (doubtful && now >= file.ask_by)) {
      limits_.erase(file.origin());
      if (!helped && (doubtful || outcome.turned_away)) return false;
      why.hint = "the server may refuse several downloads at once: try --max-active 1" +
                 (why.hint.empty() ? "" : "; " + why.hint);
      return false;
    }
    if (doubtful) file.ask_by = std::min(file.ask_by, now + kLongestWait);
    ++file.too_many;
    stream.embargo = now + retry::delay(file.too_many + 1, std::nullopt, random_);
    // Of those that run some may be refused, too: what was found before counts.
    const int found = limited ? limit->second.most : beside;
    limits_[file.origin()].most = std::max(1, std::min(found, beside));
    pause(file.origin());
    if (file.too_many == 1) {
      notes_.push_back({id, why.message + " while " + std::to_string(std::max(1, beside)) +
                                " other downloads from there run; it is asked for again when "
                                "fewer do (--max-active sets how many)"});
    }
    return true;
  }

  // A server may notice a moment later that one of its downloads has ended.
  void pause(const std::string& origin) {
    if (const auto limit = limits_.find(origin); limit != limits_.end()) {
      limit->second.not_before = clock_.now() + retry::delay(1, std::nullopt, random_);
    }
  }

  // What is complete is judged as soon as its digest is made; nothing waits for that.
  void verify() {
    for (auto next = files_.begin(); next != files_.end();) {
      const auto& [id, file] = *next++;
      if (!file->complete() || !idle(*file)) continue;
      if (auto outcome = file->verify()) end_of(id, *std::move(outcome));
    }
  }

  // Nothing of it runs or waits.
  [[nodiscard]] static bool idle(const File& file) {
    return std::none_of(file.streams().begin(), file.streams().end(),
                        [](const auto& stream) { return stream->transfer.has_value(); });
  }

  // When it is to be looked at again; what else has to end first wakes the wait by itself.
  [[nodiscard]] Clock::TimePoint next_try(const File& file, const Stream& stream) const {
    const auto limit = limits_.find(file.origin());
    if (limit == limits_.end()) return stream.embargo;
    Clock::TimePoint next = running_beside(file) >= limit->second.most ? Clock::TimePoint::max()
                                                                       : limit->second.not_before;
    if (!limit->second.helped) next = std::min(next, file.ask_by);
    return std::max(stream.embargo, next);
  }

  // More connections, or fewer.
  void tune() {
    Tuner::Sample sample;
    sample.now = clock_.now();
    sample.worked = clock_.thread_time();
    sample.bytes = ended_bytes_;
    sample.all_deliver = true;
    std::chrono::nanoseconds least_latency = std::chrono::seconds(1);
    for (const auto& [id, file] : files_) {
      sample.bytes += file->bytes_received();
      const int now = static_cast<int>(file->streams().size());
      sample.most += most_of(*file) - now;
      for (const auto& stream : file->streams()) {
        if (!stream->transfer) continue;
        ++sample.running;
        sample.all_deliver = sample.all_deliver && stream->delivers();
        sample.latency = std::max(sample.latency, stream->latency());
        if (stream->delivers()) least_latency = std::min(least_latency, stream->latency());
      }
    }
    sample.most += sample.running;
    if (sample.running == 0) return;
    share_out(least_latency);
    int change = tuner_.wanted(sample) - sample.running;
    while (change > 0 && add_stream()) --change;
    while (change < 0 && drop_stream()) ++change;
    start_due();
  }

  [[nodiscard]] int most_of(const File& file) const {
    const int now = static_cast<int>(file.streams().size());
    if (limits_.contains(file.origin())) return now;
    return std::max(now, std::min(file.most(tuner_.rate_of_one()), options_.connections));
  }

  // A request costs the time to its first byte; what it brings should take many times as long. But
  // the smaller the pieces, the sooner the digest gets on.
  void share_out(std::chrono::nanoseconds latency) {
    if (!tuner_.rate_of_one()) return;
    const double seconds = std::chrono::duration<double>(latency).count();
    const auto bytes_in = [this](double time, std::uint64_t least, std::uint64_t most) {
      const double bytes = *tuner_.rate_of_one() * time;
      return static_cast<std::uint64_t>(
          std::clamp(bytes, static_cast<double>(least), static_cast<double>(most)));
    };
    const ShareSizes sizes{bytes_in(std::max(20 * seconds, 0.1), 1U << 20U, 64U << 20U),
                           bytes_in(seconds, 64U << 10U, 4U << 20U)};
    for (const auto& [id, file] : files_) file->set_shares(sizes);
  }

  // To the file whose connections have most to do.
  bool add_stream() {
    File* best = nullptr;
    std::uint64_t most_left = 0;
    for (const auto& [id, file] : files_) {
      if (most_of(*file) <= static_cast<int>(file->streams().size()) || idle(*file)) continue;
      const std::uint64_t left = (*file->total() - file->bytes_there()) / file->streams().size();
      if (left <= most_left) continue;
      most_left = left;
      best = file.get();
    }
    return best != nullptr && best->open_another();
  }

  // The one that came last, of the file that has most.
  bool drop_stream() {
    File* most = nullptr;
    for (const auto& [id, file] : files_) {
      if (file->alone() || !file->streams().back()->transfer) continue;
      if (most == nullptr || file->streams().size() > most->streams().size()) most = file.get();
    }
    if (most == nullptr) return false;
    drop(*most, *most->streams().back());
    return true;
  }

  void drop(File& file, Stream& stream) {
    if (stream.transfer) transport_.cancel(*std::exchange(stream.transfer, std::nullopt));
    file.close(stream);
  }

  void wait(Clock::TimePoint until, const std::stop_token& stop) {
    bool runs = false;
    bool copies = false;
    bool digests = false;
    bool may_grow = false;
    Clock::TimePoint wake = std::min(until, options_.deadline);
    for (const auto& [id, file] : files_) {
      copies = copies || file->partial().copying();
      digests = digests || file->complete();
      may_grow = may_grow || (options_.connections > 1 && file->may_grow());
      for (const auto& stream : file->streams()) {
        if (stream->transfer) {
          runs = true;
        } else if (!file->complete() && !file->partial().copying()) {
          wake = std::min(wake, next_try(*file, *stream));
        }
      }
    }
    const Clock::TimePoint now = clock_.now();
    if (copies) wake = now;
    if (digests && runs) {
      options_.worker->spur();
      wake = std::min(wake, now + kDigestTick);
    }
    if (may_grow && runs) wake = std::min(wake, now + kTuning);
    if (runs) {
      for (const Completion& completion : transport_.poll(wake, stop)) settle(completion);
    } else if (digests) {
      options_.worker->wait(wake, stop);
    } else if (!copies) {
      clock_.sleep_until(wake, stop);
    }
  }

  // --- what an attempt came to -------------------------------------------------------------------

  void settle(const Completion& completion) {
    for (const auto& [id, file] : files_) {
      for (const auto& stream : file->streams()) {
        if (stream->transfer != completion.id) continue;
        stream->transfer.reset();
        pause(file->origin());
        return conclude(id, *file, *stream, completion);
      }
    }
  }

  void conclude(DownloadId id, File& file, Stream& stream, const Completion& completion) {
    Outcome outcome = file.conclude(stream, completion);
    if (outcome.kind == Outcome::Kind::kWhole || outcome.kind == Outcome::Kind::kMore) {
      file.paused = 0;
      note_served(file);
    }
    if (outcome.kind == Outcome::Kind::kWhole) return go_on(file, stream);
    // The next attempt is made at once: no delay, and no end of tries by this.
    if (outcome.kind == Outcome::Kind::kAskAnew || outcome.kind == Outcome::Kind::kMore) return;
    if (file.alone() || outcome.kind == Outcome::Kind::kStop) {
      return end_of(id, std::move(outcome));
    }
    leave(id, file, stream, outcome);
  }

  // A stream has brought all of its range.
  void go_on(File& file, Stream& stream) {
    stream.embargo = {};
    if (file.complete()) {  // what others still bring is there already
      stop_all(file);
      while (!file.alone()) file.close(*file.streams().back());
    } else if (!file.give_more(stream) && !file.alone()) {
      file.close(stream);
    }
  }

  // One of several streams has failed: its range is asked for again, or left to the others.
  void leave(DownloadId id, File& file, Stream& stream, const Outcome& outcome) {
    const bool again = outcome.kind == Outcome::Kind::kAgain;
    // Who gets the whole file does not stop for ranges that nobody was given yet.
    const bool unproven = outcome.refused() && !file.has_sent_ranges();
    if (unproven) file.restore_whole();
    if (unproven && !again) file.one_by_one();
    // The usual answers to one connection too many.
    const bool too_many =
        unproven || outcome.turned_away || outcome.status == 429 || outcome.status == 503;
    if (again && too_many) {
      file.at_most(static_cast<int>(file.streams().size()) - 1);
      return drop(file, stream);
    }
    if (again) ++stream.retries;
    if (again && stream.retries <= options_.retries &&
        hold(id, stream, retry::delay(stream.retries, outcome.error.retry_after, random_),
             outcome.error)) {
      return;
    }
    drop(file, stream);
    if (outcome.kind == Outcome::Kind::kNoRange) return file.one_by_one();
    file.at_most(static_cast<int>(file.streams().size()));
  }

  // False when the deadline comes before the end of the delay.
  bool hold(DownloadId id, Stream& stream, milliseconds delay, const Error& why) {
    const Clock::TimePoint now = clock_.now();
    if (delay >= options_.deadline - now) return false;
    stream.embargo = now + delay;
    retried_.push_back({id, why.message, delay, {}});
    return true;
  }

  // The only stream of a file has ended with `outcome`, or the whole file was judged.
  void end_of(DownloadId id, Outcome outcome) {
    File& file = *files_.at(id);
    if (file.streams().empty()) file.open();  // adopted whole, and yet not right
    Stream& stream = *file.streams().front();
    switch (outcome.kind) {
      case Outcome::Kind::kWhole:
        return finish(id, file.hand_out());
      case Outcome::Kind::kStop:
        // Space can be made, and the bytes that found some are right.
        if (outcome.error.code == ErrorCode::kNoSpace) {
          return finish(id, tl::unexpected(std::move(outcome.error)));
        }
        return refuse(id, std::move(outcome.error));
      case Outcome::Kind::kAskAnew:
      case Outcome::Kind::kMore:
        return;
      case Outcome::Kind::kNextAddress:
        if (wait_for_own(id, file, stream, outcome)) return;
        if (file.ask_whole(stream, outcome) || wait_for_fewer(id, file, stream, outcome)) return;
        return give_up_address(id, std::move(outcome.error));
      case Outcome::Kind::kNoRange:  // the last of several that were answered so
        file.one_by_one();
        if (++stream.retries <= options_.retries &&
            hold(id, stream, milliseconds(0), outcome.error)) {
          return;
        }
        return give_up_address(id, std::move(outcome.error));
      case Outcome::Kind::kMismatch: {
        // What an earlier run left may be wrong without any fault of the server's.
        const bool of_another = file.partial().adopted() > 0;
        file.partial().forget();
        if (!of_another) ++file.mismatches;
        // One of several nodes may have an old file.
        if (!of_another && file.has_sent_ranges()) file.whole_only();
        // Once more from somewhere else, or else from the same place: bits flip on the way, too.
        const bool once_more = of_another || (!file.has_next_address() && file.mismatches == 1);
        if (once_more && hold(id, stream, retry::delay(1, std::nullopt, random_), outcome.error)) {
          return;
        }
        return give_up_address(id, std::move(outcome.error));
      }
      case Outcome::Kind::kAgain: {
        if (pays_to_leave(file, outcome)) {
          file.postpone();
          return give_up_address(id, std::move(outcome.error));
        }
        const bool once_more = ++stream.retries <= options_.retries;
        if (once_more &&
            hold(id, stream, retry::delay(stream.retries, outcome.error.retry_after, random_),
                 outcome.error)) {
          return;
        }
        if (!once_more && file.ask_whole(stream, outcome)) return;
        if (wait_for_fewer(id, file, stream, outcome)) return;
        return give_up_address(id, std::move(outcome.error));
      }
    }
  }

  // A file whose several connections were served: one may be refused since the others were too many
  // a moment ago.
  bool wait_for_own(DownloadId id, File& file, Stream& stream, const Outcome& outcome) {
    constexpr int kTries = 3;
    if (!outcome.refused() || !file.had_several() || file.paused == kTries) return false;
    ++file.paused;
    file.at_most(1);
    return hold(id, stream, retry::delay(file.paused + 1, std::nullopt, random_), outcome.error);
  }

  // Another address may have the file at once, while this one's host wants to be left alone.
  [[nodiscard]] static bool pays_to_leave(const File& file, const Outcome& outcome) {
    if (!file.has_next_address()) return false;
    if (outcome.error.retry_after.value_or(std::chrono::seconds(0)) > engine::kPatience)
      return true;
    return outcome.status == 503 && (file.bytes_there() == 0 || file.spec().digest);
  }

  void give_up_address(DownloadId id, Error error) {
    File& file = *files_.at(id);
    const Error why = error;
    file.give_up(std::move(error));
    const bool has_next = file.has_next_address();
    if (has_next) file.next_address();
    if (has_next || file.come_back()) {
      Stream& stream = *file.streams().front();
      stream.retries = 0;
      if (hold(id, stream, milliseconds(0), why)) {
        retried_.back().address = redact(file.address());
        return;
      }
    }
    // What came is kept: who is refused today (a token that expired, a proxy) may not be tomorrow,
    // and the digest, or the validator, will be asked then. Wrong bytes were forgotten already.
    finish(id, tl::unexpected(sum_up(std::move(file.given_up))));
  }

  // Ends everything when the deadline is over. (What waits never waits beyond it.)
  void end_overdue() {
    if (clock_.now() < options_.deadline) return;
    while (!files_.empty()) {
      const auto& [id, file] = *files_.begin();
      stop_all(*file);
      Error error = file->network_error(
          "was not there when the deadline came: " + std::to_string(file->bytes_there()) + " of " +
          (file->total() ? std::to_string(*file->total()) : "?") + " bytes");
      error.hint = "raise --deadline";
      finish(id, tl::unexpected(std::move(error)));
    }
  }

  // For good: nobody shall go on with it.
  void refuse(DownloadId id, Error error) {
    files_.at(id)->partial().discard();
    finish(id, tl::unexpected(std::move(error)));
  }

  void finish(DownloadId id, Result<Downloaded> result) {
    const auto found = files_.find(id);
    const File& file = *found->second;
    stop_all(file);
    if (result) finished_bytes_ += result->size;
    ended_bytes_ += file.bytes_received();
    Finished finished;
    finished.id = id;
    finished.requests = file.requests();
    finished.bytes_received = file.bytes_received();
    finished.result = std::move(result);
    finished_.push_back(std::move(finished));
    files_.erase(found);  // what becomes of the partial is its own decision
  }

  Transport& transport_;
  Clock& clock_;
  EngineOptions options_;
  std::mt19937& random_;
  std::unique_ptr<Worker> own_worker_;
  std::unique_ptr<Worker> here_ = make_inline_worker();
  DownloadId next_ = 1;
  Files files_;                          // not yet finished; after the workers: goes first
  std::map<std::string, Limit> limits_;  // by origin: of hosts that had enough
  std::set<std::string> served_;         // origins that have sent a file, or begun to
  Tuner tuner_;
  std::vector<Finished> finished_;
  std::vector<Retried> retried_;
  std::vector<Note> notes_;
  std::uint64_t finished_bytes_ = 0;
  std::uint64_t ended_bytes_ = 0;  // received by downloads that have ended
};

Error does_not_fit(const std::string& needs, const std::string& directory, std::uint64_t free) {
  return fail(
             ErrorCode::kNoSpace,
             needs + "; the file system of " + directory + " has " + std::to_string(free) + " free",
             "free space, choose another place with --cache-dir or --hf-cache-dir, or begin all "
             "the same with --no-space-check")
      .value();
}

Engine::Engine(Transport& transport, Clock& clock, EngineOptions options, std::mt19937& random)
    : impl_(std::make_unique<Impl>(transport, clock, options, random)) {}

Engine::~Engine() = default;

DownloadId Engine::add(Download download) {
  const DownloadId id = impl_->next_++;
  const bool has_address = !download.spec.urls.empty();
  const std::string path = download.spec.path;
  const Partial::Workers workers{*impl_->options_.worker, *impl_->here_};
  impl_->files_.emplace(id, std::make_unique<File>(std::move(download), workers, impl_->clock_));
  if (!has_address) {
    impl_->refuse(id, fail(ErrorCode::kInternal, "no address to fetch " + path + " from").value());
  }
  return id;
}

void Engine::cancel(DownloadId id) {
  const auto found = impl_->files_.find(id);
  if (found == impl_->files_.end()) return;
  impl_->stop_all(*found->second);
  impl_->ended_bytes_ += found->second->bytes_received();
  impl_->files_.erase(found);
}

std::vector<Finished> Engine::poll(Clock::TimePoint until, const std::stop_token& stop) {
  const std::size_t retried_before = impl_->retried_.size();
  for (;;) {
    impl_->end_overdue();
    if (!stop.stop_requested()) {
      impl_->adopt();
      impl_->verify();
    }
    const bool something = !impl_->finished_.empty() || impl_->retried_.size() > retried_before;
    if (something || impl_->files_.empty() || stop.stop_requested()) break;
    impl_->start_due();
    impl_->tune();
    impl_->wait(until, stop);
    if (impl_->clock_.now() >= until) break;
  }
  return std::exchange(impl_->finished_, {});
}

std::vector<Retried> Engine::take_retried() {
  return std::exchange(impl_->retried_, {});
}

std::vector<Note> Engine::take_notes() {
  return std::exchange(impl_->notes_, {});
}

std::size_t Engine::active() const {
  return impl_->files_.size() + impl_->finished_.size();
}

std::uint64_t Engine::bytes_done() const {
  std::uint64_t bytes = impl_->finished_bytes_;
  for (const auto& [id, file] : impl_->files_) bytes += file->bytes_there();
  return bytes;
}

std::uint64_t Engine::bytes_of(DownloadId id) const {
  const auto found = impl_->files_.find(id);
  return found == impl_->files_.end() ? 0 : found->second->bytes_there();
}

std::optional<std::uint64_t> Engine::size_of(DownloadId id) const {
  const auto found = impl_->files_.find(id);
  return found == impl_->files_.end() ? std::nullopt : found->second->total();
}

}  // namespace fvprefetch
