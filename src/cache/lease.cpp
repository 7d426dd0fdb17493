#include "cache/lease.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/claim.h"
#include "base/posix.h"
#include "base/process.h"
#include "base/try.h"
#include "cache/layout.h"

namespace fvprefetch {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr std::size_t kRecordBytes = 1024;

/// A record as it was read.
struct Read {
  Holder holder;
  ProcessName process;
  std::string nonce;  ///< "" in one of an earlier version
  std::uint64_t bytes_done = 0;
};

std::string record_text(const Holder& self, const ProcessName& process, const std::string& nonce,
                        std::uint64_t beat, std::uint64_t bytes_done) {
  // What comes from outside is cut, so that the record keeps its size.
  const auto cut = [](const std::string& text) { return text.substr(0, 64); };
  const json record = {{"version", 1},
                       {"beat", beat},
                       {"host", cut(process.host)},
                       {"boot", cut(process.boot)},
                       {"pid_namespace", cut(process.pid_namespace)},
                       {"pid", process.pid},
                       {"started", process.started},
                       {"nonce", nonce},
                       {"user", cut(self.user)},
                       {"job", cut(self.job)},
                       {"step", cut(self.step)},
                       {"since", cut(self.since)},
                       {"bytes_done", bytes_done}};
  std::string text = record.dump(-1, ' ', false, json::error_handler_t::replace);
  text.resize(kRecordBytes - 1, ' ');
  return text + "\n";
}

std::optional<Read> parse(const std::string& text) {
  const json record = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!record.is_object()) return std::nullopt;
  const auto word = [&record](const char* key) {
    const auto found = record.find(key);
    return found != record.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  const auto number = [&record](const char* key) {
    const auto found = record.find(key);
    return found != record.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
  };
  if (number("version") != 1 || number("pid") == 0) return std::nullopt;
  Read read;
  read.process = {word("host"), word("boot"), word("pid_namespace"),
                  static_cast<std::int64_t>(number("pid")), number("started")};
  read.holder = {word("host"),  read.process.pid, word("job"),
                 word("since"), word("user"),     word("step")};
  read.nonce = word("nonce");
  read.bytes_done = number("bytes_done");
  return read;
}

/// What lies at the name of a lease.
struct Sight {
  posix::Peek peek;
  std::optional<Read> read;  ///< nullopt: not legible for us

  /// Nothing has been written between the two looks. The text decides: where inodes are numbered
  /// by path, a file has another number after a rename. (What cannot be read still has a time.)
  [[nodiscard]] bool same(const Sight& other) const {
    if (!peek.text.empty() || !other.peek.text.empty()) return peek.text == other.peek.text;
    return peek.info.inode == other.peek.info.inode &&
           peek.info.mtime_ns == other.peek.info.mtime_ns;
  }
  /// The same after a rename, below which rclone reads nothing any more of a file that has a size.
  /// A record that is just being made has none.
  [[nodiscard]] bool same_as_before_rename(const Sight& other) const {
    return same(other) || (peek.text.empty() && !other.peek.text.empty() && peek.info.size > 0 &&
                           peek.info.size == other.peek.info.size);
  }
};

Result<std::optional<Sight>> look_at(const std::string& lease) {
  // Not by what an NFS client remembers: the name may be gone, or somebody else's, while the record
  // that it led to is still there and opens.
  posix::look_afresh(posix::parent(lease));
  FVP_TRY(auto found, posix::peek(lease, kRecordBytes));
  if (!found) return std::nullopt;
  if (found->info.directory) {
    FVP_TRY(const auto record, posix::peek(layout::record_in_lease(lease), kRecordBytes));
    if (record) {
      found->text = record->text;
      found->info.size = record->info.size;
    } else {
      found->info.size = 0;
    }
  }
  Sight sight{*std::move(found), std::nullopt};
  sight.read = parse(sight.peek.text);
  return sight;
}

bool is_gone(const Sight& sight) {
  return sight.read && liveness(sight.read->process) == Liveness::kGone;
}

void remove_lease(const std::string& path, bool directory) {
  // Best effort, all of it: what stays is found to be dead.
  if (!directory) return (void)posix::remove_file(path);
  (void)posix::remove_file(layout::record_in_lease(path));
  // FUSE is told of a close() after it has returned. Until it has heard of it, a file that is
  // removed stays in its directory under another name.
  constexpr int kTries = 20;
  constexpr std::chrono::milliseconds kPause{5};
  for (int i = 0; i < kTries; ++i) {
    const int failed = posix::remove_directory(path);
    if (failed != ENOTEMPTY && failed != EEXIST) return;
    real_clock().sleep_until(real_clock().now() + kPause, {});
  }
  (void)posix::rename_private(path, layout::tombstone(path, posix::random_tag()));
}

/// A record on disk. Its file is written by the heartbeat alone, once it is there.
struct Record {
  std::mutex writing;  ///< held over a write
  posix::Fd fd;        ///< closed under `writing`, when its lease is let go
  std::string path;
  std::string nonce;
  posix::FileInfo info;  ///< when it was made
  bool local = false;    ///< else others see what was written only when it is synced

  std::mutex linking;        ///< one link more or less at a time, or their number says nothing
  std::uint64_t leases = 0;  ///< that are links to it, as far as we know; under `linking`
  bool counts = true;        ///< its link count tells of them; under `linking`

  std::mutex renewing;  ///< no I/O under it
  Clock::TimePoint renewed_at{};
  std::optional<Clock::TimePoint> failing_since;  ///< the first try after `renewed_at`
  std::string failure;                            ///< of the last try that has returned

  [[nodiscard]] bool is(const posix::FileInfo& other) const {
    return other.inode == info.inode && other.device == info.device;
  }
  [[nodiscard]] bool wrote(const std::string& text) const {
    const auto read = parse(text);
    return read && read->nonce == nonce;
  }
};

/// Where leases lie. Its mutex is held over I/O in this directory, and over nothing else.
struct Directory {
  explicit Directory(std::string where) : path(std::move(where)) {}

  const std::string path;
  std::mutex mutex;
  std::shared_ptr<Record> record;  ///< that the leases are links to; under `mutex`
  bool no_links = false;           ///< under `mutex`
};

/// The leases that a lock of this process holds or is about to take, by the nonce of the record and
/// the name. Of all keepers: what one of them holds is no orphan for another.
class Claimed {
 public:
  Claimed(const std::string& nonce, const std::string& lease) : key_(nonce, name_of(lease)) {
    const std::lock_guard guard(mutex());
    keys().insert(key_);
  }
  Claimed(const Claimed&) = delete;
  Claimed& operator=(const Claimed&) = delete;
  ~Claimed() {
    const std::lock_guard guard(mutex());
    keys().erase(keys().find(key_));
  }

  [[nodiscard]] static bool has(const std::string& nonce, const std::string& lease) {
    const std::lock_guard guard(mutex());
    return keys().contains({nonce, name_of(lease)});
  }

 private:
  using Key = std::pair<std::string, std::string>;

  // Without its directory, which may have several paths; the nonce belongs to one directory.
  static std::string name_of(const std::string& lease) {
    return lease.substr(lease.rfind('/') + 1);
  }
  // Never destroyed: heartbeats may outlive main().
  static std::mutex& mutex() {
    static auto* const instance = new std::mutex;
    return *instance;
  }
  static std::multiset<Key>& keys() {
    static auto* const instance = new std::multiset<Key>;
    return *instance;
  }

  Key key_;
};

}  // namespace

// Shared with the threads that beat, which may be stuck in a write when their keeper goes.
struct LeaseKeeper::State : std::enable_shared_from_this<LeaseKeeper::State> {
  struct Lease {
    std::string path;
    std::shared_ptr<Record> record;
    bool directory = false;
    std::unique_ptr<Claimed> claimed;
    std::atomic<bool> lost = false;
    std::atomic<bool> released = false;
  };

  State(Holder holder, LeaseTimes lease_times, Clock& some_clock, Heart some_heart)
      : self(std::move(holder)), times(lease_times), clock(some_clock), heart(some_heart) {}

  Result<std::shared_ptr<Record>> make_record(const std::string& path, std::string nonce) {
    const std::string directory = posix::parent(path);
    auto fd = posix::create_private(path);
    if (!fd) return fail(std::move(fd).error());
    auto record = std::make_shared<Record>();
    record->fd = *std::move(fd);
    record->path = path;
    record->nonce = std::move(nonce);
    record->local = posix::is_local(directory);
    record->renewed_at = clock.now();
    posix::make_readable(record->fd);
    Status written = write(*record);
    if (written) {
      auto info = posix::stat(record->fd, path);
      if (info) {
        record->info = *info;
        return record;
      }
      written = fail(std::move(info).error());
    }
    (void)posix::remove_file(path);  // the error that matters is the first one
    return fail(std::move(written).error());
  }

  Status write(Record& record) {
    const std::lock_guard guard(record.writing);
    if (!record.fd) return {};  // let go
    const std::string now =
        record_text(self, this_process(), record.nonce, ++beats, bytes_done.load());
    FVP_CHECK_OK(posix::write_at(record.fd, 0, std::as_bytes(std::span(now)), record.path));
    return record.local ? Status{} : posix::sync_data(record.fd, record.path);
  }

  void renew(Record& record) {
    const Clock::TimePoint began = clock.now();
    {
      const std::lock_guard guard(record.renewing);
      if (!record.failing_since) record.failing_since = began;
    }
    const Status written = write(record);
    const std::lock_guard guard(record.renewing);
    if (!written) {
      record.failure = written.error().message;
      return;
    }
    record.renewed_at = began;
    record.failing_since.reset();
    record.failure.clear();
  }

  /// For how long the record could not be renewed, when that is most of the lease time. Not of a
  /// process that was suspended itself: it has tried for an instant only.
  [[nodiscard]] std::optional<Error> overdue(Record& record, const std::string& lease) {
    const std::lock_guard guard(record.renewing);
    const Clock::TimePoint now = clock.now();
    const auto silent = now - record.renewed_at;
    if (!record.failing_since || silent < times.stop_after() ||
        now - *record.failing_since < times.stop_after() - 2 * times.beat()) {
      return std::nullopt;
    }
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(silent).count();
    return fail(ErrorCode::kLockTimeout,
                "the lease " + lease + " could not be renewed for " + std::to_string(seconds) +
                    " s: " +
                    (record.failure.empty() ? "writing to it has not returned" : record.failure),
                "others may take it over now; run again to resume, when the file system answers")
        .value();
  }

  std::shared_ptr<Directory> directory(const std::string& path) {
    const std::lock_guard guard(mutex);
    for (const auto& known : directories) {
      if (known->path == path) return known;
    }
    return directories.emplace_back(std::make_shared<Directory>(path));
  }

  void add(const std::shared_ptr<Lease>& lease);
  void remove(const std::shared_ptr<Lease>& lease) {
    const std::lock_guard guard(mutex);
    std::erase(leases, lease);
  }

  /// The file is closed first: FUSE renames one that is open instead of removing it, and then its
  /// directory cannot be removed either. While a beat is under way, that beat removes it.
  static void remove_with_record(Lease& lease) {
    lease.released = true;
    const std::unique_lock guard(lease.record->writing, std::try_to_lock);
    if (!guard || !lease.record->fd) return;
    lease.record->fd = posix::Fd();
    remove_lease(lease.path, true);
  }

  [[nodiscard]] bool still_ours(const Lease& lease) {
    Record& record = *lease.record;
    const std::string name = lease.directory ? layout::record_in_lease(lease.path) : lease.path;
    if (record.local) {  // one kernel: what it says is so
      const auto info = posix::lstat(name);
      if (!info || (*info && record.is(**info))) return true;
    } else {
      if (!lease.directory && has_lost_links(record)) return false;
      posix::look_afresh(posix::parent(lease.path));
    }
    const auto found = posix::peek(name, kRecordBytes);
    if (!found) return true;  // not now: nothing says that it is not
    return *found && (record.is((*found)->info) || record.wrote((*found)->text));
  }

  /// Asks the file and not the name, which a client of GlusterFS believes to be ours long after it
  /// was taken. Whoever takes one lease of ours over takes this process for dead, so all are lost.
  [[nodiscard]] bool has_lost_links(Record& record) {
    // A link that is being made may hang; it says nothing then, and the next beat asks again.
    const std::unique_lock guard(record.linking, std::try_to_lock);
    if (!guard || !record.counts) return false;
    const auto info = posix::stat(record.fd, record.path);
    return info && info->links < 1 + record.leases;
  }

  /// Of the leases on one device, or on all. Nothing that another file system needs is held over
  /// it.
  void beat(std::optional<std::uint64_t> device) {
    std::vector<std::shared_ptr<Lease>> held;
    std::vector<std::shared_ptr<Record>> written;
    {
      const std::lock_guard guard(mutex);
      for (const auto& lease : leases) {
        if (!device || lease->record->info.device == *device) held.push_back(lease);
      }
    }
    for (const auto& lease : held) {
      if (std::find(written.begin(), written.end(), lease->record) != written.end()) continue;
      renew(*lease->record);
      written.push_back(lease->record);
    }
    for (const auto& lease : held) {
      if (lease->released) {
        remove_with_record(*lease);
      } else if (!still_ours(*lease)) {
        lease->lost = true;
      }
    }
  }

  const Holder self;
  const LeaseTimes times;
  Clock& clock;
  const Heart heart;
  std::atomic<std::uint64_t> beats{0};
  std::atomic<std::uint64_t> bytes_done{0};
  std::mutex mutex;                                     // no I/O under it
  std::vector<std::shared_ptr<Directory>> directories;  // under mutex
  std::vector<std::shared_ptr<Lease>> leases;           // under mutex
  std::set<std::uint64_t> beating;                      // devices, each on a thread; under mutex
  bool over = false;                                    // under mutex
  std::condition_variable ended;
};

namespace {

using State = LeaseKeeper::State;

class HeldLease final : public HeldLock {
 public:
  HeldLease(std::shared_ptr<State> state, std::shared_ptr<State::Lease> lease)
      : state_(std::move(state)), lease_(std::move(lease)) {
    state_->add(lease_);
  }
  HeldLease(const HeldLease&) = delete;
  HeldLease& operator=(const HeldLease&) = delete;
  ~HeldLease() override {
    state_->remove(lease_);
    const bool ours = !lost();
    if (lease_->directory) {
      if (ours) State::remove_with_record(*lease_);
      return;
    }
    const std::lock_guard guard(lease_->record->linking);
    if (ours) remove_lease(lease_->path, false);
    --lease_->record->leases;
  }

  void tell() override {}  // the record says it from the first moment on

  [[nodiscard]] bool lost() override {
    if (!lease_->lost && !state_->still_ours(*lease_)) lease_->lost = true;
    return lease_->lost;
  }

  [[nodiscard]] std::optional<Error> expired() override {
    auto overdue = state_->overdue(*lease_->record, lease_->path);
    if (!overdue) {
      overdue_since_.reset();
      return std::nullopt;
    }
    // Not at the first sight: who was suspended in the midst of a write ends that write now.
    const Clock::TimePoint now = state_->clock.now();
    if (!overdue_since_) overdue_since_ = now;
    if (now - *overdue_since_ < state_->times.beat() / 2) return std::nullopt;
    return overdue;
  }

 private:
  std::shared_ptr<State> state_;
  std::shared_ptr<State::Lease> lease_;
  std::optional<Clock::TimePoint> overdue_since_;
};

enum class Manner { kEager, kAwaiting };

class LeaseLock final : public AwaitedLease {
 public:
  LeaseLock(std::string path, std::shared_ptr<State> state, Manner manner)
      : path_(std::move(path)), state_(std::move(state)), manner_(manner) {}

  [[nodiscard]] Result<std::unique_ptr<HeldLock>> try_acquire() override {
    // Most are free, and to make the name is to look.
    if (std::exchange(first_, false) && manner_ == Manner::kEager) {
      auto taken = take();
      if (!taken || *taken) return taken;
    }
    Result<std::optional<Sight>> now = look_at(path_);
    if (!now) return ride_out(std::move(now).error(), unseen_since_);
    unseen_since_.reset();
    if (!*now) {
      seen_.reset();
      if (is_left_to_another()) return nullptr;
      return take();
    }
    free_since_.reset();
    const posix::FileInfo& there = (*now)->peek.info;
    if (!there.regular && !there.directory) {
      return fail(
          ErrorCode::kInternal,
          "the lease " + path_ + " is " +
              (there.link ? "a symbolic link, which is not followed" : "not a regular file"),
          "move it away: fvprefetch makes only files and folders there");
    }
    note(*std::move(*now));
    if (!is_dead() && !is_orphan_of_ours()) return nullptr;
    if (!take_over()) return nullptr;
    return take();
  }

  [[nodiscard]] std::string describe_holder() const override {
    if (!seen_) return "another process";
    if (seen_->read) return seen_->read->holder.describe();
    return "somebody whose record in " + path_ + " cannot be read by this version";
  }

  [[nodiscard]] std::uint64_t holder_progress() const override {
    return seen_ && seen_->read ? seen_->read->bytes_done : 0;
  }

  [[nodiscard]] std::string kind() const override { return "lease"; }

  [[nodiscard]] bool held_by_other() const override { return seen_.has_value(); }

 private:
  // EIO and the like come from a server that is away; it is given as long as a silent holder.
  [[nodiscard]] Result<std::unique_ptr<HeldLock>> ride_out(Error error,
                                                           std::optional<Clock::TimePoint>& since) {
    const Clock::TimePoint at = state_->clock.now();
    if (!since) since = at;
    if (seen_) seen_at_ = at;  // silence that nobody listened to proves nothing
    const bool may_pass = error.code == ErrorCode::kInternal;
    if (may_pass && at - *since < state_->times.dead_after) return nullptr;
    return fail(std::move(error));
  }

  [[nodiscard]] bool is_left_to_another() {
    if (manner_ == Manner::kEager) return false;
    const Clock::TimePoint at = state_->clock.now();
    if (!free_since_) free_since_ = at;
    return at - *free_since_ < state_->times.dead_after;
  }

  void note(Sight now) {
    if (!seen_ || !seen_->same(now)) seen_at_ = state_->clock.now();
    seen_ = std::move(now);
  }

  [[nodiscard]] bool is_dead() const {
    return is_gone(*seen_) || state_->clock.now() - seen_at_ >= state_->times.dead_after;
  }

  /// It names this very process, and no lock of this process has it: a release that did not come
  /// through, or a lease that was made though the call said no.
  [[nodiscard]] bool is_orphan_of_ours() const {
    return seen_->read && seen_->read->process == this_process() &&
           !Claimed::has(seen_->read->nonce, path_);
  }

  /// True: the name is free, as far as we did it.
  [[nodiscard]] bool take_over() {
    const Sight dead = *std::exchange(seen_, std::nullopt);
    // Once more, as late as can be.
    const auto still = look_at(path_);
    if (!still || !*still || !(*still)->same(dead)) return false;
    const std::string tombstone = layout::tombstone(path_, posix::random_tag());
    if (!posix::rename_private(path_, tombstone)) return false;  // somebody else was faster
    const auto moved = look_at(tombstone);
    const bool directory = dead.peek.info.directory;
    if (moved && *moved && (*moved)->same_as_before_rename(dead)) {
      remove_lease(tombstone, directory);
      if (!directory) remove_record(dead);
      return true;
    }
    // A living one, that was made since the last look. (A directory cannot be linked back; rename()
    // replaces none that has a record in it.)
    if (directory) {
      (void)posix::rename_private(tombstone, path_);
    } else {
      (void)posix::hard_link(tombstone, path_);
      (void)posix::remove_file(tombstone);
    }
    return false;
  }

  /// That of the dead process: its other leases, which are links to it, do without.
  void remove_record(const Sight& dead) const {
    const std::string folder = posix::parent(path_);
    const auto names = posix::list(folder);
    if (!names) return;  // best effort: pruning finds it
    for (const std::string& name : *names) {
      const auto lease = layout::lease_name(name);
      if (!lease || lease->kind != layout::LeaseName::Kind::kRecord) continue;
      const std::string record = folder + "/" + name;
      const auto found = posix::peek(record, kRecordBytes);
      if (found && *found && (*found)->text == dead.peek.text) (void)posix::remove_file(record);
    }
  }

  [[nodiscard]] Result<std::unique_ptr<HeldLock>> take() {
    constexpr int kTries = 3;  // the record may have been removed by hand
    const auto directory = state_->directory(posix::parent(path_));
    const std::unique_lock guard(directory->mutex);
    for (int i = 0; i < kTries && !directory->no_links; ++i) {
      if (!directory->record) {
        FVP_TRY(directory->record,
                state_->make_record(layout::lease_record(directory->path, posix::random_tag()),
                                    new_nonce()));
      }
      const std::shared_ptr<Record> record = directory->record;
      auto claimed = std::make_unique<Claimed>(record->nonce, path_);
      const std::unique_lock linking(record->linking);
      FVP_TRY(const posix::LinkClaim claim,
              posix::claim_by_link(record->fd, record->path, path_, kRecordBytes,
                                   [&](const std::string& text) { return record->wrote(text); }));
      switch (claim.outcome) {
        case posix::LinkClaim::Outcome::kMade:
          ++record->leases;
          record->counts = record->counts && claim.counted;
          return hold(record, false, std::move(claimed));
        case posix::LinkClaim::Outcome::kTaken:
          return busy();
        case posix::LinkClaim::Outcome::kNoFile:
          directory->record.reset();
          continue;
        case posix::LinkClaim::Outcome::kNoLinks:
          break;
      }
      break;
    }
    auto taken = take_directory();
    // A server that is away says no as well. Now that mkdir() has worked it was not that.
    if (taken && *taken) forget_links(*directory);
    return taken;
  }

  static void forget_links(Directory& directory) {
    if (directory.record) {
      const std::lock_guard linking(directory.record->linking);
      if (directory.record->leases > 0) return;
      (void)posix::remove_file(directory.record->path);  // best effort: pruning finds it
    }
    directory.record.reset();
    directory.no_links = true;
  }

  [[nodiscard]] Result<std::unique_ptr<HeldLock>> take_directory() {
    std::string nonce = new_nonce();
    auto claimed = std::make_unique<Claimed>(nonce, path_);
    const int failed = posix::make_directory(path_);
    if (failed == EEXIST) return busy();
    if (failed != 0) {
      Error error = posix::errno_error(failed, "make the lease", path_);
      return ride_out(std::move(error), untaken_since_);
    }
    auto record = state_->make_record(layout::record_in_lease(path_), std::move(nonce));
    if (!record) {
      (void)posix::remove_directory(path_);
      // An object store lets several make one directory.
      if (posix::exists(layout::record_in_lease(path_))) return busy();
      return fail(std::move(record).error());
    }
    return hold(*record, true, std::move(claimed));
  }

  [[nodiscard]] static std::string new_nonce() { return posix::random_hex(16); }

  [[nodiscard]] static std::unique_ptr<HeldLock> busy() { return nullptr; }

  [[nodiscard]] std::unique_ptr<HeldLock> hold(const std::shared_ptr<Record>& record,
                                               bool directory, std::unique_ptr<Claimed> claimed) {
    untaken_since_.reset();
    auto lease = std::make_shared<State::Lease>();
    lease->path = path_;
    lease->record = record;
    lease->directory = directory;
    lease->claimed = std::move(claimed);
    return std::make_unique<HeldLease>(state_, std::move(lease));
  }

  std::string path_;
  std::shared_ptr<State> state_;
  Manner manner_;
  bool first_ = true;
  std::optional<Sight> seen_;                      ///< of the last look
  Clock::TimePoint seen_at_{};                     ///< since when it is the same
  std::optional<Clock::TimePoint> unseen_since_;   ///< since when no look has worked
  std::optional<Clock::TimePoint> untaken_since_;  ///< since when it cannot be made
  std::optional<Clock::TimePoint> free_since_;     ///< while it is, and as far as we looked
};

void keep_beating(const std::shared_ptr<State>& state, std::uint64_t device) noexcept {
  std::unique_lock guard(state->mutex);
  while (!state->ended.wait_for(guard, state->times.beat(), [&] { return state->over; })) {
    guard.unlock();
    state->beat(device);
    guard.lock();
  }
}

}  // namespace

void LeaseKeeper::State::add(const std::shared_ptr<Lease>& lease) {
  const std::uint64_t device = lease->record->info.device;
  const bool first = [&] {
    const std::lock_guard guard(mutex);
    leases.push_back(lease);
    return heart == Heart::kThread && beating.insert(device).second;
  }();
  if (!first) return;
  try {
    std::thread([self = shared_from_this(), device] { keep_beating(self, device); }).detach();
  } catch (const std::system_error&) {
    // Without a heartbeat a lease still works for `dead_after`; then it may be taken over, which
    // costs work and nothing else. The next lease tries again.
    const std::lock_guard guard(mutex);
    beating.erase(device);
  }
}

LeaseKeeper::LeaseKeeper(Holder self, LeaseTimes times, Clock& clock, Heart heart)
    : state_(std::make_shared<State>(std::move(self), times, clock, heart)) {}

LeaseKeeper::~LeaseKeeper() {
  std::vector<std::shared_ptr<Directory>> directories;
  {
    const std::lock_guard guard(state_->mutex);
    state_->over = true;
    directories.swap(state_->directories);
  }
  state_->ended.notify_all();
  for (const auto& directory : directories) {
    const std::unique_lock guard(directory->mutex, std::try_to_lock);  // one that hangs has it
    if (guard && directory->record)
      (void)posix::remove_file(directory->record->path);  // best effort
  }
}

std::unique_ptr<Lock> LeaseKeeper::lease(const std::string& lock) {
  return std::make_unique<LeaseLock>(layout::lease_beside(lock), state_, Manner::kEager);
}

std::unique_ptr<AwaitedLease> LeaseKeeper::awaited_lease(const std::string& lock) {
  return std::make_unique<LeaseLock>(layout::lease_beside(lock), state_, Manner::kAwaiting);
}

void LeaseKeeper::tell_progress(std::uint64_t bytes_done) {
  state_->bytes_done = bytes_done;
}

void LeaseKeeper::beat() {
  state_->beat(std::nullopt);
}

std::optional<std::string> known_lease_holder(const std::string& lock) {
  const auto sight = look_at(layout::lease_beside(lock));
  if (!sight || !*sight || is_gone(**sight)) return std::nullopt;
  if ((*sight)->read) return (*sight)->read->holder.describe();
  return "somebody whose record cannot be read by this version";
}

}  // namespace fvprefetch
