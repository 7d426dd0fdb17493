#include "cache/lease.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
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

/// A record as somebody else left it.
struct Read {
  Holder holder;
  ProcessName process;
  std::uint64_t bytes_done = 0;
};

std::string record_text(const Holder& self, const ProcessName& process, std::uint64_t beat,
                        std::uint64_t bytes_done) {
  // What comes from outside is cut, so that the record keeps its size.
  const auto cut = [](const std::string& text) { return text.substr(0, 64); };
  const json record = {{"version", 1},
                       {"beat", beat},
                       {"host", cut(process.host)},
                       {"boot", cut(process.boot)},
                       {"pid_namespace", cut(process.pid_namespace)},
                       {"pid", process.pid},
                       {"started", process.started},
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
  read.bytes_done = number("bytes_done");
  return read;
}

/// What lies at the name of a lease.
struct Sight {
  posix::Peek peek;
  std::optional<Read> read;  ///< nullopt: not legible for us

  /// Nobody has touched the one since the other. (A record that may not be read still has a time.)
  [[nodiscard]] bool same(const Sight& other) const {
    return peek.info.inode == other.peek.info.inode && peek.text == other.peek.text &&
           (!peek.text.empty() || peek.info.mtime_ns == other.peek.info.mtime_ns);
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
    if (record) found->text = record->text;
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
  (void)posix::remove_directory(path);
}

/// A record on disk. Its file is written by whoever beats, and by nobody once it is there.
struct Record {
  posix::Fd fd;
  std::string path;
  posix::FileInfo info;      ///< when it was made
  bool local = false;        ///< else others see what was written only when it is synced
  std::uint64_t leases = 0;  ///< that are links to it, as far as we know; under State::linking

  [[nodiscard]] bool is(const posix::FileInfo& other) const {
    return other.inode == info.inode && other.device == info.device;
  }
};

bool hard_links_are_refused(int number) {
  return number == EPERM || number == EOPNOTSUPP || number == ENOSYS || number == EMLINK ||
         number == EXDEV || number == EINVAL;
}

}  // namespace

// Shared with the heart's thread, which may be stuck in a write when its keeper goes.
struct LeaseKeeper::State {
  struct Lease {
    std::string path;
    std::shared_ptr<Record> record;
    bool directory = false;
    std::atomic<bool> lost = false;
  };

  State(Holder holder, LeaseTimes lease_times, Clock& some_clock)
      : self(std::move(holder)), times(lease_times), clock(some_clock) {}

  [[nodiscard]] std::string text() {
    return record_text(self, this_process(), ++beats, bytes_done.load());
  }

  Result<std::shared_ptr<Record>> make_record(const std::string& path) {
    const std::string directory = posix::parent(path);
    auto fd = posix::create_private(path);
    if (!fd) return fail(std::move(fd).error());
    auto record = std::make_shared<Record>();
    record->fd = *std::move(fd);
    record->path = path;
    record->local = posix::is_local(directory);
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

  Status write(const Record& record) {
    const std::string now = text();
    FVP_CHECK_OK(posix::write_at(record.fd, 0, std::as_bytes(std::span(now)), record.path));
    return record.local ? Status{} : posix::sync_data(record.fd, record.path);
  }

  /// The record that leases in `directory` are links to.
  Result<std::shared_ptr<Record>> record_in(const std::string& directory) {
    const std::lock_guard guard(mutex);
    for (const auto& record : records) {
      if (posix::parent(record->path) == directory) return record;
    }
    FVP_TRY(auto record, make_record(layout::lease_record(directory, posix::random_tag())));
    records.push_back(record);
    return record;
  }

  void forget(const std::shared_ptr<Record>& record) {
    const std::lock_guard guard(mutex);
    std::erase(records, record);
  }

  void add(const std::shared_ptr<Lease>& lease) {
    const std::lock_guard guard(mutex);
    leases.push_back(lease);
  }
  void remove(const std::shared_ptr<Lease>& lease) {
    const std::lock_guard guard(mutex);
    std::erase(leases, lease);
  }

  [[nodiscard]] bool still_ours(const Lease& lease) {
    const std::string name = lease.directory ? layout::record_in_lease(lease.path) : lease.path;
    if (lease.record->local) {  // one kernel: what it says is so
      const auto info = posix::lstat(name);
      return !info || (*info && lease.record->is(**info));
    }
    if (!lease.directory && has_lost_links(*lease.record)) return false;
    posix::look_afresh(posix::parent(lease.path));
    const auto found = posix::peek(name, 0);
    if (!found) return true;  // not now: nothing says that it is not
    return *found && lease.record->is((*found)->info);
  }

  /// Asks the file and not the name, which a client of GlusterFS believes to be ours long after it
  /// was taken. Whoever takes one lease of ours over takes this process for dead, so all are lost.
  [[nodiscard]] bool has_lost_links(const Record& record) {
    const std::lock_guard guard(linking);
    const auto info = posix::stat(record.fd, record.path);
    return info && info->links < 1 + record.leases;
  }

  void beat() {
    // Not under the mutex: a server that hangs must not hold up who takes or lets go of a lease.
    std::vector<std::shared_ptr<Lease>> held;
    std::vector<std::shared_ptr<Record>> written;
    {
      const std::lock_guard guard(mutex);
      held = leases;
    }
    for (const auto& lease : held) {
      if (std::find(written.begin(), written.end(), lease->record) == written.end()) {
        // Best effort: a beat that is lost is made up for by the next.
        (void)write(*lease->record);
        written.push_back(lease->record);
      }
      if (!still_ours(*lease)) lease->lost = true;
    }
  }

  const Holder self;
  const LeaseTimes times;
  Clock& clock;
  std::atomic<std::uint64_t> beats{0};
  std::atomic<std::uint64_t> bytes_done{0};
  std::mutex linking;  // one link more or less at a time, or their number says nothing
  std::mutex mutex;
  std::vector<std::shared_ptr<Record>> records;  // under mutex
  std::vector<std::shared_ptr<Lease>> leases;    // under mutex
  bool beating = false;                          // under mutex
  bool over = false;                             // under mutex
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
    const std::lock_guard guard(state_->linking);
    if (ours) remove_lease(lease_->path, lease_->directory);
    if (!lease_->directory) --lease_->record->leases;
  }

  void tell() override {}  // the record says it from the first moment on

  [[nodiscard]] bool lost() override {
    if (!lease_->lost && !state_->still_ours(*lease_)) lease_->lost = true;
    return lease_->lost;
  }

 private:
  std::shared_ptr<State> state_;
  std::shared_ptr<State::Lease> lease_;
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
    if (!now) return ride_out(std::move(now).error());
    unseen_since_.reset();
    if (!*now) {
      seen_.reset();
      if (is_left_to_another()) return nullptr;
      return take();
    }
    free_since_.reset();
    if ((*now)->peek.info.link) {
      return fail(ErrorCode::kInternal,
                  "the lease " + path_ + " is a symbolic link, which is not followed",
                  "remove it, when no fvprefetch made it");
    }
    note(*std::move(*now));
    if (!is_dead()) return nullptr;
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
  [[nodiscard]] Result<std::unique_ptr<HeldLock>> ride_out(Error error) {
    const Clock::TimePoint at = state_->clock.now();
    if (!unseen_since_) unseen_since_ = at;
    if (seen_) seen_at_ = at;  // silence that nobody listened to proves nothing
    const bool may_pass = error.code == ErrorCode::kInternal;
    if (may_pass && at - *unseen_since_ < state_->times.dead_after) return nullptr;
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
    if (moved && *moved && (*moved)->same(dead)) {
      remove_lease(tombstone, directory);
      if (!directory) remove_record(dead.peek.info.inode);
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
  void remove_record(std::uint64_t inode) const {
    const std::string folder = posix::parent(path_);
    const auto names = posix::list(folder);
    if (!names) return;  // best effort: pruning finds it
    for (const std::string& name : *names) {
      const auto lease = layout::lease_name(name);
      if (!lease || lease->kind != layout::LeaseName::Kind::kRecord) continue;
      const std::string record = folder + "/" + name;
      const auto info = posix::lstat(record);
      if (info && *info && (*info)->inode == inode) (void)posix::remove_file(record);
    }
  }

  [[nodiscard]] Result<std::unique_ptr<HeldLock>> take() {
    constexpr int kTries = 3;  // the record may have been removed by hand
    for (int i = 0; i < kTries; ++i) {
      FVP_TRY(const auto record, state_->record_in(posix::parent(path_)));
      const std::unique_lock guard(state_->linking);
      const auto before = posix::stat(record->fd, record->path);
      if (!before && before.error().code == ErrorCode::kNotFound) {  // GlusterFS
        state_->forget(record);
        continue;
      }
      if (!before) return fail(before.error());
      const int failed = posix::hard_link(record->path, path_);
      FVP_TRY(const posix::FileInfo after, posix::stat(record->fd, record->path));
      const bool grew = after.links == before->links + 1;
      if (grew && failed == 0) return hold(record, false);
      if (failed == EEXIST && !grew) return busy();
      if (hard_links_are_refused(failed)) return take_directory();
      if (failed == ENOENT) {
        state_->forget(record);
        continue;
      }
      // It says that it worked, or nothing that can be believed: what does the name lead to?
      FVP_TRY(const auto named, posix::lstat(path_));
      if (named && record->is(*named)) return hold(record, false);
      if (failed == 0 && named && named->link) {
        // BeeGFS can be told to make a symbolic link instead.
        (void)posix::remove_file(path_);
        return take_directory();
      }
      if (failed == 0 || failed == EEXIST || failed == EIO || failed == ESTALE ||
          failed == ETIMEDOUT) {
        return busy();
      }
      return fail(posix::errno_error(failed, "make the lease", path_));
    }
    return busy();
  }

  [[nodiscard]] Result<std::unique_ptr<HeldLock>> take_directory() {
    const int failed = posix::make_directory(path_);
    if (failed == EEXIST) return busy();
    if (failed != 0) return fail(posix::errno_error(failed, "make the lease", path_));
    auto record = state_->make_record(layout::record_in_lease(path_));
    if (!record) {
      (void)posix::remove_directory(path_);
      // An object store lets several make one directory.
      if (posix::exists(layout::record_in_lease(path_))) return busy();
      return fail(std::move(record).error());
    }
    return hold(*record, true);
  }

  [[nodiscard]] static std::unique_ptr<HeldLock> busy() { return nullptr; }

  [[nodiscard]] std::unique_ptr<HeldLock> hold(const std::shared_ptr<Record>& record,
                                               bool directory) {
    auto lease = std::make_shared<State::Lease>();
    lease->path = path_;
    lease->record = record;
    lease->directory = directory;
    if (!directory) ++record->leases;
    return std::make_unique<HeldLease>(state_, std::move(lease));
  }

  std::string path_;
  std::shared_ptr<State> state_;
  Manner manner_;
  bool first_ = true;
  std::optional<Sight> seen_;   ///< of the last look
  Clock::TimePoint seen_at_{};  ///< since when it is the same
  std::optional<Clock::TimePoint> unseen_since_;
  std::optional<Clock::TimePoint> free_since_;  ///< while it is, and as far as we looked
};

void keep_beating(const std::shared_ptr<State>& state) noexcept {
  std::unique_lock guard(state->mutex);
  while (!state->ended.wait_for(guard, state->times.beat(), [&] { return state->over; })) {
    guard.unlock();
    state->beat();
    guard.lock();
  }
}

}  // namespace

LeaseKeeper::LeaseKeeper(Holder self, LeaseTimes times, Clock& clock, Heart heart)
    : state_(std::make_shared<State>(std::move(self), times, clock)) {
  state_->beating = heart == Heart::kNone;  // as good as
}

LeaseKeeper::~LeaseKeeper() {
  std::vector<std::shared_ptr<Record>> records;
  {
    const std::lock_guard guard(state_->mutex);
    state_->over = true;
    records.swap(state_->records);
  }
  state_->ended.notify_all();
  for (const auto& record : records) (void)posix::remove_file(record->path);  // best effort
}

std::unique_ptr<Lock> LeaseKeeper::lease(const std::string& lock) {
  begin_to_beat();
  return std::make_unique<LeaseLock>(layout::lease_beside(lock), state_, Manner::kEager);
}

std::unique_ptr<AwaitedLease> LeaseKeeper::awaited_lease(const std::string& lock) {
  begin_to_beat();
  return std::make_unique<LeaseLock>(layout::lease_beside(lock), state_, Manner::kAwaiting);
}

void LeaseKeeper::begin_to_beat() {
  const bool first = [&] {
    const std::lock_guard guard(state_->mutex);
    return !std::exchange(state_->beating, true);
  }();
  if (first) {
    try {
      std::thread(keep_beating, state_).detach();
    } catch (const std::system_error&) {
      // Without a heart a lease still works for `dead_after`; then it may be taken over, which
      // costs work and nothing else.
    }
  }
}

void LeaseKeeper::tell_progress(std::uint64_t bytes_done) {
  state_->bytes_done = bytes_done;
}

void LeaseKeeper::beat() {
  state_->beat();
}

std::optional<std::string> known_lease_holder(const std::string& lock) {
  const auto sight = look_at(layout::lease_beside(lock));
  if (!sight || !*sight || is_gone(**sight)) return std::nullopt;
  if ((*sight)->read) return (*sight)->read->holder.describe();
  return "somebody whose record cannot be read by this version";
}

}  // namespace fvprefetch
