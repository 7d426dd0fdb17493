#include "prefetch/fetch.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "base/try.h"
#include "cache/layout.h"
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
/// After a stop, what is still being published is told of then.
constexpr std::chrono::seconds kTellPublishing{2};
/// So many files are looked at between two looks at what arrives, and at whether to stop.
constexpr std::size_t kTriesATurn = 64;
/// A lock that is kept while it is waited for may take two; most are for what is fetched.
constexpr std::size_t kDescriptorsForEachWait = 8;
/// So many of those that wait are tried at once when a lock has been let go.
constexpr std::size_t kTriedWhenWoken = 64;

/// What no server said is not there: a file or folder of ours that was, or was just made.
Error gone_here(Error error) {
  const bool told = !error.reason.empty() || !error.hint.empty();
  if (error.code != ErrorCode::kNotFound || told) return error;
  error.code = ErrorCode::kPermission;
  error.hint = "see who removes it while this runs, then run the same command again";
  return error;
}

class FetchLoop {
 public:
  FetchLoop(std::vector<FetchJob> jobs, Session& session, FetchListener& listener,
            LockReport& lock_report)
      : session_(session),
        listener_(listener),
        lock_report_(lock_report),
        max_active_(session.budget().files),
        most_kept_(std::max(max_active_, posix::free_descriptors() / kDescriptorsForEachWait)),
        publisher_(session.in_real_time() ? make_worker(max_active_, kPublishPatience)
                                          : make_inline_worker()) {
    for (FetchJob& job : jobs) {
      Slot slot;
      slot.job = std::move(job);
      slots_.push_back(std::move(slot));
    }
    make_destinations();
  }

  void run() {
    announce();
    while (true) {
      if (const std::optional<Error> stop = session_.must_stop()) return end_all(*stop);
      if (std::exchange(look_for_unwanted_, false)) drop_unwanted();
      begin_what_is_due();
      // What became unwanted in the last step must not be waited for.
      if (look_for_unwanted_) continue;
      if (files_done_ == slots_.size()) break;
      turn();
    }
    tell_progress();
  }

 private:
  enum class Phase { kPending, kRunning, kPublishing, kDone };

  /// A lock, and how the wait for it goes.
  struct Guard {
    std::unique_ptr<Lock> lock;  ///< made when it is tried; nullptr then: none is wanted
    std::unique_ptr<HeldLock> held;
    bool open = false;   ///< held; or gone on without
    bool keeps = false;  ///< `lock` while it waits (set_aside)
    bool tells = false;  ///< of its holder while it waits
    Clock::TimePoint held_since{};
    std::optional<LockWait> wait;
    std::uint64_t progress = 0;  ///< of the holder, as seen last
    Clock::TimePoint next_try = Clock::TimePoint::min();
  };

  struct Slot;

  /// What several files are fetched to under one lock.
  struct Destination {
    Guard guard;
    std::size_t index = 0;            ///< in the order of their first files
    std::set<std::string> fastvideo;  ///< several entries may want one snapshot: of all of them
    std::deque<Slot*> untried;        ///< in order
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

  void make_destinations() {
    for (Slot& slot : slots_) {
      const auto [known, is_new] = destinations_.try_emplace(slot.job.target->destination_lock());
      Destination& destination = known->second;
      if (is_new) {
        destination.index = ready_.size();
        ready_.emplace(destination.index, &destination);
      }
      slot.destination = &destination;
      destination.fastvideo.merge(std::set(slot.job.fastvideo));
      destination.untried.push_back(&slot);
      ++destination.open_files;
    }
  }

  /// nullptr: none is wanted.
  std::unique_ptr<Lock> make_lock(const Slot& slot, const Guard& guard) {
    const Target& target = *slot.job.target;
    if (&guard == &slot.destination->guard) {
      return session_.locks().of_destination(target.destination_lock(), target.lock_mode(),
                                             slot.destination->fastvideo);
    }
    const std::string blob = target.blob_lock();
    return blob.empty() ? nullptr : session_.locks().of_blob(blob, target.lock_mode());
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
    const auto wanted = static_cast<std::size_t>(std::max(1, session_.options().max_active));
    if (max_active_ < wanted && max_active_ < slots_.size()) {
      session_.emit(Warned{"", "few files may be open at once (ulimit -n): fetching " +
                                   std::to_string(max_active_) + " at once in place of " +
                                   std::to_string(std::min(wanted, slots_.size()))});
    }
  }

  [[nodiscard]] static Clock::TimePoint due_at(const Slot& slot) {
    return std::max(slot.blob.next_try, slot.destination->guard.next_try);
  }

  /// Those that wait for a lock and are due, then those that were not tried yet. Whoever is not
  /// wanted any more is dropped when its turn comes.
  void begin_what_is_due() {
    std::size_t again = kTriesATurn / 2;  // else thousands that wait would leave none for the rest
    std::size_t first = kTriesATurn - again;
    retry_waiting(again);
    begin_untried(first);
    more_to_try_ = again == 0 || first == 0;
  }

  [[nodiscard]] bool may_begin(std::size_t tries) const {
    return tries > 0 && active_.size() < max_active_;
  }

  void retry_waiting(std::size_t& tries) {
    const Clock::TimePoint now = session_.clock().now();
    if (now < next_due_ || !may_begin(tries)) return;
    next_due_ = Clock::TimePoint::max();
    std::erase_if(waiting_, [&](Slot* slot) {
      if (may_begin(tries) && due_at(*slot) <= now) {
        --tries;
        if (!begin_if_wanted(*slot)) return true;
      }
      next_due_ = std::min(next_due_, due_at(*slot));
      return false;
    });
  }

  void begin_untried(std::size_t& tries) {
    while (!ready_.empty() && may_begin(tries)) {
      Destination& destination = *ready_.begin()->second;
      if (destination.untried.empty()) {
        ready_.erase(ready_.begin());
        continue;
      }
      Slot& slot = *destination.untried.front();
      destination.untried.pop_front();
      --tries;
      if (!begin_if_wanted(slot)) continue;
      waiting_.push_back(&slot);
      next_due_ = std::min(next_due_, due_at(slot));
      // It asks for all of them.
      if (!destination.guard.open) ready_.erase(destination.index);
    }
  }

  /// Whether it waits now.
  bool begin_if_wanted(Slot& slot) {
    if (listener_.wanted(slot.job)) {
      begin(slot);
    } else {
      close(slot);
    }
    const bool waits = slot.phase == Phase::kPending;
    if (!waits || slot.destination->guard.open) make_ready(*slot.destination);
    return waits;
  }

  /// Its other files are tried: the one that asked for all has got the lock, or asks no more.
  void make_ready(Destination& destination) {
    if (!destination.untried.empty()) ready_.emplace(destination.index, &destination);
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
    if (!slot.blob.open && !slot.blob.lock) slot.blob.lock = make_lock(slot, slot.blob);
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
    if (!guard.lock) guard.lock = make_lock(slot, guard);
    if (!guard.lock) return guard.open = true;
    Result<std::unique_ptr<HeldLock>> held = guard.lock->try_acquire();
    for (const Error& error : guard.lock->take_warnings()) {
      warn_once("one of two locks does not work here (" + error.message +
                "): going on with the other alone");
    }
    if (!held && posix::is_descriptor_shortage(held.error()) && !active_.empty()) {
      held = std::unique_ptr<HeldLock>();  // those that are open will be closed
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
      set_aside(slot, guard);
      return false;
    }
    guard.held = *std::move(held);
    guard.held_since = session_.clock().now();
    guard.next_try = Clock::TimePoint::min();
    if (&guard != &slot.blob) lock_report_.kind = guard.lock->kind();
    note_wait(guard);
    return guard.open = true;
  }

  /// Somebody else has it. A lock that is waited for may take descriptors, so where thousands are,
  /// most are made anew each time that they are asked for. (One that is kept also sees that a lease
  /// is not renewed any more.) And as many as may be fetched at once look at their holders.
  void set_aside(Slot& slot, Guard& guard) {
    if (!guard.keeps && keeping_ < most_kept_) {
      guard.keeps = true;
      ++keeping_;
    }
    if (!guard.tells && telling_ < max_active_) {
      guard.tells = true;
      ++telling_;
    }
    wait_for_holder(slot, guard);
    if (slot.phase == Phase::kPending && !guard.keeps) guard.lock.reset();
  }

  /// The report has the longest wait, however it ended.
  void note_wait(Guard& guard) {
    if (std::exchange(guard.keeps, false)) --keeping_;
    if (std::exchange(guard.tells, false)) --telling_;
    if (!guard.wait) return;
    if (guard.lock && lock_report_.kind == "none") lock_report_.kind = guard.lock->kind();
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
    // The others get on when those that tell do.
    const std::uint64_t holder_bytes = guard.tells ? slot.job.target->partial_bytes() : 0;
    if (guard.tells) {
      const std::uint64_t progress = holder_bytes + guard.lock->holder_progress();
      if (std::exchange(guard.progress, progress) != progress) ++progress_seen_;
    }
    const LockWait::Step step =
        guard.wait->step(now, guard.tells ? guard.progress : progress_seen_ + files_done_,
                         guard.lock->knows_holder());
    guard.next_try = step.next_try;
    if (!(step.say && guard.tells) && !step.timed_out) return;
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

  /// A lock that is waited for may be ours: those that have waited longest, and so may stand in a
  /// queue, look at once.
  void wake_waiters() {
    const std::size_t most = std::min(waiting_.size(), kTriedWhenWoken);
    for (std::size_t i = 0; i < most; ++i) {
      waiting_[i]->destination->guard.next_try = Clock::TimePoint::min();
      waiting_[i]->blob.next_try = Clock::TimePoint::min();
      next_due_ = Clock::TimePoint::min();
    }
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
    if (active_.size() < max_active_) {
      until = more_to_try_ ? session_.clock().now() : std::min(until, next_due_);
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
      tell_of_publishing();
      return tell();
    }
    publishing_since_.reset();
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

  /// All bytes are there, and the disk takes its time to sync or to take an archive apart.
  void tell_of_publishing() {
    constexpr std::chrono::seconds kFirst(2);
    constexpr std::chrono::seconds kAgain(30);
    if (active_.empty()) return publishing_since_.reset();
    const Clock::TimePoint now = session_.clock().now();
    if (!publishing_since_) {
      publishing_since_ = now;
      say_publishing_ = now + kFirst;
    }
    if (now < say_publishing_) return;
    say_publishing_ = now + kAgain;
    std::string what = "the file system: `" + active_.front()->job.target->final_path() +
                       "` is being written to disk";
    if (active_.size() > 1) what += ", and " + std::to_string(active_.size() - 1) + " more";
    session_.emit(
        Waiting{what, std::chrono::duration_cast<milliseconds>(now - *publishing_since_)});
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
    Target& target = *slot.job.target;
    posix::look_afresh(posix::parent(target.final_path()));
    const Result<bool> there = target.present();
    const bool published = there && *there;
    // Where nobody holds it and nothing was published, it went with its folder.
    const std::string lock = target.destination_lock();
    if (!published && !posix::exists(lock) && !posix::exists(layout::lease_beside(lock))) {
      return false;
    }
    session_.emit(Warned{
        name_of(slot), "another process has taken over the lock of " + slot.job.download.spec.path +
                           ", as this one was not heard of for a while (suspended?)"});
    if (!published) return false;
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
    if (!outcome.status) {
      outcome.status = tl::unexpected(with_context(
          gone_here(outcome.status.error()), "while fetching " + slot.job.download.spec.path));
    } else {
      session_.emit(FileFinished{name_of(slot), slot.job.download.spec.path, outcome.bytes});
    }
    if (listener_.on_done(slot.job, outcome) == Others::kMayBeUnwanted) look_for_unwanted_ = true;
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

  /// What was not tried yet is dropped when its turn comes.
  void drop_unwanted() {
    for (Slot* slot : std::vector(active_)) {
      if (slot->phase == Phase::kPublishing || listener_.wanted(slot->job)) continue;
      left_bytes_ += slot->bytes;
      engine().cancel(slot->download);
      close(*slot);
    }
    std::erase_if(waiting_, [this](Slot* slot) {
      if (listener_.wanted(slot->job)) return false;
      close(*slot);
      make_ready(*slot->destination);
      return true;
    });
  }

  void end_all(const Error& error) {
    engine_.reset();  // leaves its partials before their locks are let go
    const Clock::TimePoint begin = session_.clock().now();
    bool told = false;
    while (publisher_.open() > 0) {  // what has all its bytes is published
      publisher_.wait(kTick);
      finish_published();
      if (told || session_.clock().now() - begin < kTellPublishing) continue;
      told = true;
      tell_publishing();
    }
    for (Slot& slot : slots_) {
      if (slot.phase != Phase::kDone) finish(slot, error);
    }
  }

  /// Looking at the stop ends all work of ours; what is left is a call of the system.
  void tell_publishing() const {
    std::string paths;
    for (const Slot* slot : active_) {
      if (slot->phase != Phase::kPublishing) continue;
      paths += (paths.empty() ? "" : ", ") + slot->job.target->final_path();
    }
    if (paths.empty()) return;
    session_.emit(Warned{"", "waiting for the file system to finish writing " + paths});
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
  std::map<std::size_t, Destination*> ready_;  ///< may have files to try; by index
  std::vector<Slot*> waiting_;                 ///< for a lock, in the order of their first try
  Clock::TimePoint next_due_ = Clock::TimePoint::max();  ///< of `waiting_`
  bool more_to_try_ = false;                             ///< now
  std::size_t keeping_ = 0;                              ///< guards that keep their lock
  std::size_t telling_ = 0;                              ///< and that tell of its holder
  std::uint64_t progress_seen_ = 0;                      ///< changes at those that tell
  std::size_t max_active_;
  std::size_t most_kept_;
  std::vector<Slot*> active_;       ///< kRunning and kPublishing
  std::optional<Engine> engine_;    ///< after the slots: partials are left before their locks are
  Publisher publisher_;             ///< after the slots: its work is theirs
  std::set<std::string> prepared_;  ///< folders that this run has made or seen
  const std::string tag_ = posix::random_tag();  ///< of the partials: each file has one
  JournalNames journals_;
  bool waited_ = false;                               ///< since `journals_` was made
  std::optional<Clock::TimePoint> publishing_since_;  ///< nothing else is left to do
  Clock::TimePoint say_publishing_{};
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
