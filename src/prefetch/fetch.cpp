#include "prefetch/fetch.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "base/try.h"
#include "cache/lock.h"
#include "prefetch/publisher.h"
#include "prefetch/sweep.h"

namespace fvprefetch {

namespace {

using std::chrono::milliseconds;

/// How often progress is told and `stop` is looked at while nothing else happens.
constexpr milliseconds kTick{200};
/// How soon a file that was published is noticed while others arrive.
constexpr milliseconds kPublishTick{5};
/// A lock that is held for longer says by whom; who waits for one asks after 2 s.
constexpr milliseconds kTellHolder{500};

class FetchLoop {
 public:
  FetchLoop(std::vector<FetchJob> jobs, Session& session, FetchListener& listener,
            LockReport& lock_report)
      : session_(session),
        listener_(listener),
        lock_report_(lock_report),
        publisher_(session.in_real_time() ? make_worker(max_active()) : make_inline_worker()) {
    for (FetchJob& job : jobs) {
      Slot slot;
      slot.job = std::move(job);
      slots_.push_back(std::move(slot));
    }
    for (Slot& slot : slots_) pending_.push_back(&slot);
  }

  void run() {
    announce();
    while (true) {
      if (const std::optional<Error> stop = session_.must_stop()) return end_all(*stop);
      if (std::exchange(look_for_unwanted_, false)) drop_unwanted();
      begin_what_is_due();
      if (files_done_ == slots_.size()) break;
      turn();
    }
    tell_progress();
  }

 private:
  enum class Phase { kPending, kRunning, kPublishing, kDone };

  struct Slot {
    FetchJob job;
    Phase phase = Phase::kPending;
    std::unique_ptr<Lock> lock;
    std::unique_ptr<HeldLock> held;
    Clock::TimePoint held_since{};
    std::optional<LockWait> wait;
    Clock::TimePoint next_try = Clock::TimePoint::min();
    DownloadId download = 0;
    std::uint64_t bytes = 0;  ///< that were there when progress was told last
    bool brought_by_others = false;
    PartialPlace partial;
    std::vector<PartialPlace> unfinished;  ///< by others, at the start
    FetchOutcome outcome;                  ///< kPublishing: what it will be
  };

  // --- steps -----------------------------------------------------------------------------------

  void announce() {
    FetchPlanned planned;
    planned.files = slots_.size();
    for (const Slot& slot : slots_) {
      const auto& size = slot.job.download.spec.size;
      planned.bytes += size.value_or(0);
      planned.bytes_exact = planned.bytes_exact && size.has_value();
    }
    if (planned.files > 0) session_.emit(planned);
  }

  void begin_what_is_due() {
    if (active_.size() >= max_active()) return;
    std::erase_if(pending_, [](const Slot* slot) { return slot->phase != Phase::kPending; });
    for (Slot* slot : pending_) {
      if (active_.size() >= max_active()) return;
      const bool due = slot->phase == Phase::kPending && slot->next_try <= session_.clock().now();
      if (due && listener_.wanted(slot->job)) begin(*slot);
    }
  }

  /// Looks, tries the lock, looks again under it, and starts the download.
  void begin(Slot& slot) {
    Target& target = *slot.job.target;
    if (slot.wait) posix::look_afresh(posix::parent(target.final_path()));
    const Result<bool> before = target.present();
    if (!before) return finish(slot, before.error());
    if (const Status ready = target.prepare(prepared_); !ready) return finish(slot, ready.error());
    if (*before && target.visible()) return adopt(slot);
    if (!acquire(slot)) return;
    // Another node may have published it since the look above; this node must not go by memory.
    posix::look_afresh(posix::parent(target.final_path()));
    const Result<bool> now = target.present();
    if (!now) return finish(slot, now.error());
    if (*now) return adopt(slot);
    start(slot);
  }

  void adopt(Slot& slot) {
    slot.brought_by_others = true;
    FetchOutcome outcome;
    outcome.status = slot.job.target->adopt();
    outcome.adopted_by = slot.job.target->adopted_by();
    finish(slot, std::move(outcome));
  }

  /// True: go on (with the lock, or without one where locks do not work). False: the job waits or
  /// has ended.
  bool acquire(Slot& slot) {
    if (session_.options().lock == LockMode::kNone) return true;
    if (!slot.lock) {
      slot.lock =
          make_flock(slot.job.target->lock_path(), slot.job.target->lock_mode(), session_.holder());
    }
    Result<std::unique_ptr<HeldLock>> held = slot.lock->try_acquire();
    if (!held) {
      const bool refused = held.error().code == ErrorCode::kInternal;
      if (!refused || session_.options().lock == LockMode::kFlock) {
        finish(slot, held.error());
        return false;
      }
      warn_once("locks do not work here (" + held.error().message +
                "): going on without; nothing wrong can be published, at worst work is done twice");
      return true;
    }
    if (!*held) {
      wait_for_holder(slot);
      return false;
    }
    slot.held = *std::move(held);
    slot.held_since = session_.clock().now();
    lock_report_.kind = slot.lock->kind();
    note_wait(slot);
    return true;
  }

  /// The report has the longest wait, however it ended.
  void note_wait(Slot& slot) {
    if (!slot.wait) return;
    lock_report_.kind = slot.lock->kind();
    const milliseconds waited = slot.wait->waited(session_.clock().now());
    slot.wait.reset();
    lock_report_.waited_seconds =
        std::max(lock_report_.waited_seconds, std::chrono::duration<double>(waited).count());
  }

  void wait_for_holder(Slot& slot) {
    const Clock::TimePoint now = session_.clock().now();
    if (!slot.wait) {
      LockWait::Limits limits;
      limits.timeout = session_.options().lock_timeout;
      slot.wait.emplace(limits, now);
    }
    const std::uint64_t holder_bytes = slot.job.target->partial_bytes();
    const LockWait::Step step = slot.wait->step(now, holder_bytes);
    slot.next_try = step.next_try;
    if (!step.say && !step.timed_out) return;
    const std::string holder = slot.lock->describe_holder();
    const milliseconds waited = slot.wait->waited(now);
    lock_report_.holder = holder;
    if (step.timed_out) {
      return finish(slot,
                    fail(ErrorCode::kLockTimeout,
                         "waited " + std::to_string(waited.count() / 1000) + " s for the lock of " +
                             slot.job.download.spec.path + ", held by " + holder,
                         "raise --lock-timeout (FVPREFETCH_LOCK_TIMEOUT), or end the holder")
                        .value());
    }
    LockWaited event;
    event.entry = name_of(slot);
    event.path = slot.job.download.spec.path;
    event.holder = holder;
    event.waited = waited;
    event.bytes_done = holder_bytes;
    event.bytes_total = slot.job.download.spec.size;
    session_.emit(event);
  }

  void start(Slot& slot) {
    slot.partial = slot.job.target->new_partial();
    Download download = slot.job.download;
    download.partial = slot.partial.data;
    download.journal = slot.partial.journal;
    slot.unfinished = slot.job.target->unfinished();
    sweep_.before(*slot.job.target, slot.unfinished, slot.partial);
    download.others = slot.unfinished;
    download.space_check = session_.options().space_check;
    session_.emit(FileStarted{name_of(slot), download.spec.path, download.spec.size});
    slot.download = engine().add(std::move(download));
    slot.phase = Phase::kRunning;
    active_.push_back(&slot);
  }

  /// Lets the engine work until something happens or the next lock is due.
  void turn() {
    Clock::TimePoint until = session_.clock().now() + kTick;
    if (active_.size() < max_active()) {
      for (const Slot* slot : pending_) {
        if (slot->phase == Phase::kPending) until = std::min(until, slot->next_try);
      }
    }
    if (publisher_.open() > 0) until = std::min(until, session_.clock().now() + kPublishTick);
    if (active_.empty()) {
      session_.clock().sleep_until(until, session_.options().stop);
      return;
    }
    if (active_.size() == publisher_.open()) {
      publisher_.wait(std::chrono::ceil<milliseconds>(until - session_.clock().now()));
      finish_published();
      return tell();
    }
    for (Finished& finished : engine().poll(until, session_.options().stop)) publish(finished);
    for (const Retried& retried : engine().take_retried()) {
      if (const Slot* slot = find(retried.id)) {
        session_.emit(FileRetried{name_of(*slot), slot->job.download.spec.path, retried.reason,
                                  retried.delay, retried.address});
      }
    }
    for (Note& note : engine().take_notes()) {
      const Slot* slot = find(note.id);
      session_.emit(Warned{slot == nullptr ? "" : name_of(*slot), std::move(note.message)});
    }
    finish_published();
    tell();
  }

  void tell() {
    tell_holders();
    if (session_.clock().now() >= next_progress_) tell_progress();
  }

  /// Of locks that are held for a while.
  void tell_holders() {
    const Clock::TimePoint now = session_.clock().now();
    for (const Slot* slot : active_) {
      if (slot->held && now - slot->held_since >= kTellHolder) slot->held->tell();
    }
  }

  void publish(Finished& finished) {
    Slot* slot = find(finished.id);
    if (slot == nullptr) return;  // dropped meanwhile
    FetchOutcome& outcome = slot->outcome;
    outcome.requests = finished.requests;
    outcome.received = finished.bytes_received;
    if (!finished.result) {
      left_bytes_ += slot->bytes;
      return finish(*slot, std::move(finished.result).error());
    }
    outcome.fetched = true;
    outcome.bytes = slot->bytes = finished.result->size;
    outcome.resumed = finished.result->resumed;
    slot->job.download.spec.size = outcome.bytes;
    slot->phase = Phase::kPublishing;
    // Shared: a std::function has to be copyable. The target is this slot's, and nobody else's now.
    auto file = std::make_shared<Downloaded>(*std::move(finished.result));
    publisher_.submit(static_cast<std::size_t>(slot - slots_.data()), [slot, file] {
      Status published = slot->job.target->publish(std::move(*file), slot->partial.data);
      // Best effort; until now it told the next process that all is there, if this one was killed.
      (void)posix::remove_file(slot->partial.journal);
      if (published) Sweep::after(slot->unfinished, slot->partial);
      return published;
    });
    finish_published();
  }

  void finish_published() {
    for (auto& [index, status] : publisher_.take()) {
      Slot& slot = slots_[index];
      slot.outcome.status = std::move(status);
      finish(slot, std::move(slot.outcome));
    }
  }

  // --- ends ------------------------------------------------------------------------------------

  void finish(Slot& slot, Error error) {
    FetchOutcome outcome;
    outcome.requests = slot.outcome.requests;
    outcome.received = slot.outcome.received;
    outcome.status = tl::unexpected(std::move(error));
    finish(slot, std::move(outcome));
  }

  void finish(Slot& slot, FetchOutcome outcome) {
    close(slot);
    if (outcome.status) outcome.refused = slot.job.target->refused();
    // With an entry of it other files may have become so.
    if (!outcome.status || !outcome.refused.empty()) look_for_unwanted_ = true;
    if (!outcome.status) {
      outcome.status = tl::unexpected(
          with_context(outcome.status.error(), "while fetching " + slot.job.download.spec.path));
    } else {
      session_.emit(FileFinished{name_of(slot), slot.job.download.spec.path, outcome.bytes});
    }
    listener_.on_done(slot.job, outcome);
  }

  void close(Slot& slot) {
    std::erase(active_, &slot);
    slot.phase = Phase::kDone;
    slot.held.reset();
    note_wait(slot);
    ++files_done_;
  }

  void drop_unwanted() {
    for (Slot& slot : slots_) {
      if (slot.phase == Phase::kDone || slot.phase == Phase::kPublishing) continue;
      if (listener_.wanted(slot.job)) continue;
      if (slot.phase == Phase::kRunning) {
        left_bytes_ += slot.bytes;
        engine().cancel(slot.download);
      }
      close(slot);
    }
  }

  void end_all(const Error& error) {
    engine_.reset();                 // leaves its partials before their locks are let go
    while (publisher_.open() > 0) {  // what has all its bytes is published
      publisher_.wait(kTick);
      finish_published();
    }
    for (Slot& slot : slots_) {
      if (slot.phase != Phase::kDone) finish(slot, error);
    }
  }

  // --- small things ----------------------------------------------------------------------------

  Engine& engine() {
    if (!engine_) {
      engine_.emplace(session_.transport(), session_.clock(), session_.engine_options(),
                      session_.random());
    }
    return *engine_;
  }

  Slot* find(DownloadId id) {
    for (Slot* slot : active_) {
      if (slot->phase == Phase::kRunning && slot->download == id) return slot;
    }
    return nullptr;
  }

  [[nodiscard]] std::size_t max_active() const {
    return static_cast<std::size_t>(std::max(1, session_.options().max_active));
  }

  [[nodiscard]] std::string name_of(const Slot& slot) const {
    return listener_.entry_name(slot.job.entries.front());
  }

  void warn_once(std::string message) {
    if (warned_) return;
    warned_ = true;
    session_.emit(Warned{"", std::move(message)});
  }

  void tell_progress() {
    next_progress_ = session_.clock().now() + kTick / 2;
    BytesArrived event;
    event.bytes_done = left_bytes_ + (engine_ ? engine_->bytes_done() : 0);
    for (Slot& slot : slots_) {
      auto& size = slot.job.download.spec.size;
      const bool done = slot.phase == Phase::kDone;
      if (slot.phase == Phase::kRunning) {
        if (!size) size = engine_->size_of(slot.download);
        slot.bytes = engine_->bytes_of(slot.download);
      }
      event.bytes_exact = event.bytes_exact && (size || done);
      event.bytes_total += size.value_or(done ? slot.bytes : 0);
      if (slot.brought_by_others) event.bytes_done += size.value_or(0);
    }
    event.files_done = files_done_;
    event.files_total = slots_.size();
    for (const Slot* slot : active_) {
      const FileSpec& spec = slot->job.download.spec;
      event.arriving.push_back({name_of(*slot), spec.path, slot->bytes, spec.size});
    }
    session_.emit(event);
  }

  Session& session_;
  FetchListener& listener_;
  LockReport& lock_report_;
  Sweep sweep_;
  std::vector<Slot> slots_;
  std::vector<Slot*> pending_;      ///< in order; may have some that are not any more
  std::vector<Slot*> active_;       ///< kRunning and kPublishing
  std::optional<Engine> engine_;    ///< after the slots: partials are left before their locks are
  Publisher publisher_;             ///< after the slots: its work is theirs
  std::set<std::string> prepared_;  ///< folders that this run has made or seen
  Clock::TimePoint next_progress_{};
  bool look_for_unwanted_ = true;
  std::size_t files_done_ = 0;
  std::uint64_t left_bytes_ = 0;  ///< of downloads that failed or were dropped: told all the same
  bool warned_ = false;
};

}  // namespace

void fetch_all(std::vector<FetchJob> jobs, Session& session, FetchListener& listener,
               LockReport& lock_report) {
  if (jobs.empty()) return;
  FetchLoop(std::move(jobs), session, listener, lock_report).run();
}

}  // namespace fvprefetch
