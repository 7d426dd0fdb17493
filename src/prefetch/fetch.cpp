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
/// A file that is published in memory takes a tenth of this; one that a disk or a server has to
/// answer for takes longer, and is not waited for by the next.
constexpr milliseconds kPublishPatience{1};
/// A lock that is held for longer says by whom; who waits for one asks after 2 s.
constexpr milliseconds kTellHolder{500};

class FetchLoop {
 public:
  FetchLoop(std::vector<FetchJob> jobs, Session& session, FetchListener& listener,
            LockReport& lock_report)
      : session_(session),
        listener_(listener),
        lock_report_(lock_report),
        publisher_(session.in_real_time() ? make_worker(max_active(), kPublishPatience)
                                          : make_inline_worker()) {
    for (FetchJob& job : jobs) {
      Slot slot;
      slot.job = std::move(job);
      slots_.push_back(std::move(slot));
    }
    make_guards();
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

  /// A lock, and how the wait for it goes.
  struct Guard {
    std::unique_ptr<Lock> lock;  ///< nullptr: none is wanted
    std::unique_ptr<HeldLock> held;
    bool open = false;  ///< held; or gone on without
    Clock::TimePoint held_since{};
    std::optional<LockWait> wait;
    Clock::TimePoint next_try = Clock::TimePoint::min();
  };

  /// What several files are fetched to under one lock.
  struct Destination {
    Guard guard;
    std::size_t open_files = 0;
  };

  struct Slot {
    FetchJob job;
    Phase phase = Phase::kPending;
    Destination* destination = nullptr;
    Guard blob;
    DownloadId download = 0;
    std::uint64_t bytes = 0;  ///< that were there when progress was told last
    bool brought_by_others = false;
    PartialPlace partial;
    std::vector<PartialPlace> unfinished;  ///< by others, at the start
    FetchOutcome outcome;                  ///< kPublishing: what it will be
  };

  // --- steps -----------------------------------------------------------------------------------

  void make_guards() {
    Locks& locks = session_.locks();
    // Several entries may want one snapshot: FastVideo's locks of all of them go with it.
    std::map<std::string, std::set<std::string>> fastvideo;
    for (const Slot& slot : slots_) {
      fastvideo[slot.job.target->destination_lock()].merge(std::set(slot.job.fastvideo));
    }
    for (Slot& slot : slots_) {
      const Target& target = *slot.job.target;
      const std::string path = target.destination_lock();
      const auto [known, is_new] = destinations_.try_emplace(path);
      slot.destination = &known->second;
      ++slot.destination->open_files;
      if (is_new) {
        known->second.guard.lock =
            locks.of_destination(path, target.lock_mode(), fastvideo.at(path));
      }
      if (const std::string blob = target.blob_lock(); !blob.empty()) {
        slot.blob.lock = locks.of_blob(blob, target.lock_mode());
      }
    }
  }

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
      const bool due = slot->phase == Phase::kPending && due_at(*slot) <= session_.clock().now();
      if (due && listener_.wanted(slot->job)) begin(*slot);
    }
  }

  [[nodiscard]] static Clock::TimePoint due_at(const Slot& slot) {
    return std::max(slot.blob.next_try, slot.destination->guard.next_try);
  }

  /// Looks, tries the locks, looks again under them, and starts the download.
  void begin(Slot& slot) {
    Target& target = *slot.job.target;
    Guard& destination = slot.destination->guard;
    if (slot.blob.wait || destination.wait) {
      posix::look_afresh(posix::parent(target.final_path()));
    }
    const Result<bool> before = target.present();
    if (!before) return finish(slot, before.error());
    if (const Status ready = target.prepare(prepared_); !ready) return finish(slot, ready.error());
    if (*before && target.visible()) return adopt(slot);
    const bool looked_under_lock = destination.open && !slot.blob.lock;
    if (!acquire(slot, destination) || !acquire(slot, slot.blob)) return;
    if (looked_under_lock) return start(slot);
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
  bool acquire(Slot& slot, Guard& guard) {
    if (guard.open) return true;
    if (!guard.lock) return guard.open = true;
    Result<std::unique_ptr<HeldLock>> held = guard.lock->try_acquire();
    for (const Error& error : guard.lock->take_warnings()) {
      warn_once("one of two locks does not work here (" + error.message +
                "): going on with the other alone");
    }
    if (!held) {
      const bool refused = held.error().code == ErrorCode::kInternal;
      if (!refused || session_.options().lock != LockMode::kAuto) {
        finish(slot, held.error());
        return false;
      }
      warn_once("locks do not work here (" + held.error().message +
                "): going on without; nothing wrong can be published, at worst work is done twice");
      return guard.open = true;
    }
    if (!*held) {
      wait_for_holder(slot, guard);
      return false;
    }
    guard.held = *std::move(held);
    guard.held_since = session_.clock().now();
    guard.next_try = Clock::TimePoint::min();
    if (&guard != &slot.blob) lock_report_.kind = guard.lock->kind();
    note_wait(guard);
    return guard.open = true;
  }

  /// The report has the longest wait, however it ended.
  void note_wait(Guard& guard) {
    if (!guard.wait) return;
    if (lock_report_.kind == "none") lock_report_.kind = guard.lock->kind();
    const milliseconds waited = guard.wait->waited(session_.clock().now());
    guard.wait.reset();
    lock_report_.waited_seconds =
        std::max(lock_report_.waited_seconds, std::chrono::duration<double>(waited).count());
  }

  void wait_for_holder(Slot& slot, Guard& guard) {
    waited_ = true;
    const Clock::TimePoint now = session_.clock().now();
    if (!guard.wait) {
      LockWait::Limits limits;
      limits.timeout = session_.options().lock_timeout;
      guard.wait.emplace(limits, now);
    }
    const std::uint64_t holder_bytes = slot.job.target->partial_bytes();
    const LockWait::Step step = guard.wait->step(now, holder_bytes + guard.lock->holder_progress());
    guard.next_try = step.next_try;
    if (!step.say && !step.timed_out) return;
    const std::string holder = guard.lock->describe_holder();
    const milliseconds waited = guard.wait->waited(now);
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

  /// A lock that we wait for may be ours: nobody sleeps on.
  void wake_waiters() {
    for (auto& [path, destination] : destinations_) {
      destination.guard.next_try = Clock::TimePoint::min();
    }
    for (Slot* slot : pending_) slot->blob.next_try = Clock::TimePoint::min();
  }

  void start(Slot& slot) {
    slot.partial = slot.job.target->partial(tag_);
    Download download = slot.job.download;
    download.partial = slot.partial.data;
    download.journal = slot.partial.journal;
    if (std::exchange(waited_, false)) journals_ = {};  // whoever held it may have left something
    slot.unfinished = slot.job.target->unfinished(journals_);
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
        if (slot->phase == Phase::kPending) until = std::min(until, due_at(*slot));
      }
    }
    if (publisher_.open() > 0) {
      until = std::min(until, session_.clock().now() + kPublishTick);
    } else {
      publisher_.flush();
    }
    Wake& wake = session_.locks().wake();
    if (active_.empty()) {
      session_.clock().sleep_until(until, session_.options().stop, &wake);
      if (session_.clock().now() < until) wake_waiters();
      return;
    }
    if (wake.wait_for(std::chrono::nanoseconds(0))) wake_waiters();
    if (active_.size() == publisher_.open()) {
      publisher_.flush();
      publisher_.wait(std::chrono::ceil<milliseconds>(until - session_.clock().now()));
      finish_published();
      return tell();
    }
    std::vector<Finished> ended = engine().poll(until, session_.options().stop);
    finish_published();
    if (ended.empty()) publisher_.flush();
    for (Finished& finished : ended) publish(finished);
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
    stop_what_may_be_taken_over();
    if (session_.clock().now() >= next_progress_) tell_progress();
  }

  /// Before others begin what this process can no longer claim. What has all its bytes is
  /// published all the same: that takes an instant, and is right however many do it.
  void stop_what_may_be_taken_over() {
    const std::vector<Slot*> active = active_;  // finish() changes it
    for (Slot* slot : active) {
      if (slot->phase != Phase::kRunning || !slot->destination->guard.held) continue;
      auto why = slot->destination->guard.held->expired();
      if (!why) continue;
      left_bytes_ += slot->bytes;
      engine().cancel(slot->download);
      finish(*slot, *std::move(why));
    }
  }

  /// Of locks that are held for a while.
  void tell_holders() {
    const Clock::TimePoint now = session_.clock().now();
    for (Slot* slot : active_) {
      for (Guard* guard : {&slot->blob, &slot->destination->guard}) {
        if (guard->held && now - guard->held_since >= kTellHolder) guard->held->tell();
      }
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
    if (was_overtaken(*slot)) return;
    slot->phase = Phase::kPublishing;
    // Shared: a std::function has to be copyable. The target is this slot's, and nobody else's now.
    auto file = std::make_shared<Downloaded>(*std::move(finished.result));
    const bool has_journal = file->has_journal;
    publisher_.submit(static_cast<std::size_t>(slot - slots_.data()), [slot, file, has_journal] {
      Status published = slot->job.target->publish(std::move(*file), slot->partial.data);
      // Best effort; until now it told the next process that all is there, if this one was killed.
      const bool gone_on_with = !published && posix::exists(slot->partial.data);
      if (has_journal && !gone_on_with) (void)posix::remove_file(slot->partial.journal);
      if (published) Sweep::after(slot->unfinished, slot->partial);
      return published;
    });
    finish_published();
  }

  /// We were taken for dead (suspended, or cut off from the file system), and whoever took over has
  /// published the file meanwhile: ours is not needed. While he has not, ours is as good as his.
  bool was_overtaken(Slot& slot) {
    const std::unique_ptr<HeldLock>& held = slot.destination->guard.held;
    if (!held || !held->lost()) return false;
    session_.emit(Warned{
        name_of(slot), "another process has taken over the lock of " + slot.job.download.spec.path +
                           ", as this one was not heard of for a while (suspended?)"});
    Target& target = *slot.job.target;
    posix::look_afresh(posix::parent(target.final_path()));
    const Result<bool> there = target.present();
    if (!there || !*there) return false;
    (void)posix::remove_file(slot.partial.data);  // best effort: it is private
    (void)posix::remove_file(slot.partial.journal);
    slot.outcome.fetched = false;
    slot.outcome.bytes = slot.outcome.resumed = 0;
    slot.outcome.status = target.adopt();
    slot.outcome.adopted_by = target.adopted_by();
    finish(slot, std::move(slot.outcome));
    return true;
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
    let_go(slot.blob);
    if (--slot.destination->open_files == 0) let_go(slot.destination->guard);
    ++files_done_;
  }

  void let_go(Guard& guard) {
    note_wait(guard);
    if (!guard.lock) return;
    // Not held, it may stand in a queue, or hold a part of what it waits for.
    publisher_.let_go(std::move(guard.held), std::move(guard.lock));
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
    std::uint64_t published = 0;
    for (const Slot* slot : active_) {
      if (slot->phase == Phase::kPublishing) published += slot->job.target->bytes_published();
    }
    session_.locks().tell_progress(event.bytes_done + published);
    session_.emit(event);
  }

  Session& session_;
  FetchListener& listener_;
  LockReport& lock_report_;
  Sweep sweep_;
  std::map<std::string, Destination> destinations_;  ///< by the path of their lock
  std::vector<Slot> slots_;
  std::vector<Slot*> pending_;      ///< in order; may have some that are not any more
  std::vector<Slot*> active_;       ///< kRunning and kPublishing
  std::optional<Engine> engine_;    ///< after the slots: partials are left before their locks are
  Publisher publisher_;             ///< after the slots: its work is theirs
  std::set<std::string> prepared_;  ///< folders that this run has made or seen
  const std::string tag_ = posix::random_tag();  ///< of the partials: each file has one
  JournalNames journals_;
  bool waited_ = false;  ///< since `journals_` was made
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
