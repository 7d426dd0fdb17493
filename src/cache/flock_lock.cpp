// flock(2), because Python's filelock uses it: fcntl locks would not exclude it (hf-contract
// section 9). On NFS the kernel maps it to a byte-range lock over the whole file, which wants a
// descriptor that is open for writing.
//
// The holder record is a file of its own: filelock truncates the lock file, and on SMB a lock makes
// its file unreadable for others. It only describes; nothing is decided by it. Format:
//   {"version": 1, "host": "...", "pid": 4242, "job": "...", "since": "..."}
#include <sys/file.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "base/posix.h"
#include "base/printable.h"
#include "base/try.h"
#include "cache/layout.h"
#include "cache/lock.h"

namespace fvprefetch {
namespace {

using nlohmann::json;

constexpr std::uint64_t kLargestRecord = 64U << 10U;

bool write_record(const std::string& path, const Holder& holder) {
  const json record = {{"version", 1},
                       {"host", holder.host},
                       {"pid", holder.pid},
                       {"job", holder.job},
                       {"since", holder.since}};
  return posix::replace_text(path + "." + posix::random_tag(), path,
                             record.dump(-1, ' ', false, json::error_handler_t::replace))
      .has_value();
}

std::optional<Holder> read_record(const std::string& path) {
  const auto text = posix::read_private(path, kLargestRecord);
  if (!text || !*text) return std::nullopt;
  const json record = json::parse(**text, nullptr, /*allow_exceptions=*/false);
  if (!record.is_object()) return std::nullopt;
  const auto field = [&record](const char* key) {
    const auto found = record.find(key);
    return found != record.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  const auto version = record.find("version");
  const auto pid = record.find("pid");
  if (version == record.end() || *version != 1) return std::nullopt;
  if (pid == record.end() || !pid->is_number_integer()) return std::nullopt;
  return Holder{field("host"), pid->get<std::int64_t>(), field("job"), field("since"), {}, {}};
}

// Killed before it could remove its record. Only a process of this host can be asked after.
bool is_gone(const Holder& holder) {
  return holder.host == posix::host_name() && holder.pid > 0 &&
         ::kill(static_cast<pid_t>(holder.pid), 0) != 0 && errno == ESRCH;
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (;;) {
    const std::size_t begin = line.find_first_not_of(' ');
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    const std::size_t end = std::min(line.find(' '), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

template <typename T>
std::optional<T> number(std::string_view text, int base = 10) {
  T value{};
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value, base);
  if (error != std::errc() || end != last) return std::nullopt;
  return value;
}

// The process of this host that holds flock on the file, from the kernel's own list. A line is
//   1: FLOCK  ADVISORY  WRITE 4242 08:01:1234567 0 EOF
// where a process that only waits has "->" after the number.
std::optional<pid_t> holder_in_kernel(const posix::FileInfo& file) {
  const auto locks = posix::read_small("/proc/locks");
  if (!locks || !*locks) return std::nullopt;
  std::string_view rest = **locks;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const auto words = words_of(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (words.size() < 6 || words[1] != "FLOCK") continue;
    const std::string_view place = words[5];
    const std::size_t colon = place.find(':');
    const std::size_t second = place.find(':', colon + 1);
    if (colon == std::string_view::npos || second == std::string_view::npos) continue;
    const auto major_number = number<unsigned>(place.substr(0, colon), 16);
    const auto minor_number = number<unsigned>(place.substr(colon + 1, second - colon - 1), 16);
    const auto inode = number<std::uint64_t>(place.substr(second + 1));
    if (!major_number || !minor_number || !inode || *inode != file.inode) continue;
    if (makedev(*major_number, *minor_number) != file.device) continue;
    // A holder in another container or on another host has no number here that means anything.
    const auto pid = number<pid_t>(words[4]);
    if (pid && *pid > 0) return pid;
  }
  return std::nullopt;
}

std::string command_of(pid_t pid) {
  const auto text = posix::read_small("/proc/" + std::to_string(pid) + "/comm");
  if (!text || !*text) return {};
  return (*text)->substr(0, (*text)->find('\n'));
}

class HeldFlock final : public HeldLock {
 public:
  /// `queue`: it was waited for in one, which may go on behind us.
  HeldFlock(posix::Fd fd, std::string record, Holder self, const posix::FileInfo& file,
            FlockCalls* queue)
      : fd_(std::move(fd)),
        record_(std::move(record)),
        self_(std::move(self)),
        since_ns_(wall_clock_ns()),
        file_(file),
        queue_(queue) {}
  HeldFlock(const HeldFlock&) = delete;
  HeldFlock& operator=(const HeldFlock&) = delete;
  ~HeldFlock() override {
    // The record first: afterwards it could be the next holder's.
    if (told_) (void)posix::remove_file(record_);  // best effort: it is seen to be stale
    // A child that was forked meanwhile shares the lock; closing our descriptor would leave it.
    (void)::flock(fd_.get(), LOCK_UN);
    if (queue_ != nullptr) queue_->let_go(file_);
  }

  void tell() override {
    if (std::exchange(tried_, true)) return;
    self_.pid = ::getpid();  // now: the program may have forked since it began
    self_.since = rfc3339(since_ns_ / 1'000'000'000);
    told_ = write_record(record_, self_);
  }

  [[nodiscard]] bool lost() override { return false; }

 private:
  posix::Fd fd_;
  std::string record_;
  Holder self_;
  std::int64_t since_ns_;
  posix::FileInfo file_;
  FlockCalls* queue_;
  bool tried_ = false;
  bool told_ = false;
};

class Flock final : public Lock {
 public:
  Flock(std::string path, unsigned mode, Holder self, FlockCalls& calls)
      : path_(std::move(path)), mode_(mode), self_(std::move(self)), calls_(calls) {
    if (self_.host.empty()) self_.host = posix::host_name();
  }

  [[nodiscard]] Result<std::unique_ptr<HeldLock>> try_acquire() override {
    // filelock 3.20.4 to 3.29.4 unlinks the file while it still holds the lock:
    //   they: open, flock ............... unlink, release
    //   we:          open (same inode) ..................... flock: of a file without a name
    //   others:                                   open (a new inode), flock: both of us hold it
    // So what was locked must still be what the name leads to; else it is opened again.
    constexpr int kTries = 10;
    for (int i = 0; i < kTries; ++i) {
      FVP_TRY(posix::Fd fd, ask());
      if (!fd) return nullptr;
      FVP_TRY(const auto named, posix::stat(path_));
      if (!named || named->inode != file_.inode || named->device != file_.device) continue;

      return std::make_unique<HeldFlock>(std::move(fd), layout::holder_record(path_), self_, file_,
                                         queued_ ? &calls_ : nullptr);
    }
    return nullptr;  // taken and unlinked by others as fast as we look: the same as held
  }

  [[nodiscard]] std::string describe_holder() const override {
    if (call_ && !queued_ && Clock::TimePoint::clock::now() - asked_ > kWorthALine) {
      return "nobody that is known: the file system does not answer the lock call on " + path_;
    }
    if (auto holder = known_holder(path_)) return *std::move(holder);
    return "another program (it left no record beside " + path_ + ")";
  }

  [[nodiscard]] std::string kind() const override { return "flock"; }

 private:
  static constexpr std::chrono::seconds kWorthALine{1};

  /// The locked file; an empty Fd when somebody else has it, or nothing is known yet.
  [[nodiscard]] Result<posix::Fd> ask() {
    if (!call_) {
      queued_ = false;
      FVP_TRY(posix::Opened opened, open());
      file_ = opened.info;
      posix::Fd fd = std::move(opened.fd);
      switch (calls_.way(file_.device, posix::parent(path_))) {
        case FlockCalls::Way::kNever:
          return fail(no_answer());
        case FlockCalls::Way::kDirect: {
          // The sign is the lease that goes with it, where there is one (cache/lock.h: chain).
          if (calls_.just_let_go(file_)) {
            return begin(std::move(fd), FlockCalls::Blocking::kYes, layout::lease_beside(path_));
          }
          const int result = lock_now(fd);
          if (result == 0) return fd;
          if (result != EWOULDBLOCK) return fail(refused(result));
          if (!calls_.queues(file_.device, posix::parent(path_))) return posix::Fd();
          return begin(std::move(fd), FlockCalls::Blocking::kYes);
        }
        case FlockCalls::Way::kThread: {
          FVP_TRY(posix::Fd locked, begin(std::move(fd), FlockCalls::Blocking::kNo));
          if (locked) return locked;
        }
      }
    }
    if (!call_) return posix::Fd();
    const auto result = call_->result(queued_ ? std::chrono::milliseconds(0)
                                              : calls_.shortly(file_.device, posix::parent(path_)));
    if (!result) {
      if (queued_ || Clock::TimePoint::clock::now() - asked_ < calls_.patience())
        return posix::Fd();
      calls_.hung(file_.device);
      call_.reset();
      return fail(no_answer());
    }
    calls_.answered(file_.device);
    const std::unique_ptr<FlockCall> call = std::move(call_);
    if (*result == 0) return call->take();
    if (*result != EWOULDBLOCK) return fail(refused(*result));
    // Into the queue at once: at the next try there would be others before us.
    if (!queued_ && calls_.queues(file_.device, posix::parent(path_))) {
      return begin(call->take(), FlockCalls::Blocking::kYes);
    }
    return posix::Fd();
  }

  [[nodiscard]] Result<posix::Fd> begin(posix::Fd fd, FlockCalls::Blocking blocking,
                                        std::string sign = {}) {
    queued_ = blocking == FlockCalls::Blocking::kYes;
    asked_ = Clock::TimePoint::clock::now();
    FVP_TRY(posix::Fd mine, posix::duplicate(fd, path_));
    call_ = calls_.begin(std::move(fd), blocking, std::move(sign));
    if (call_ || queued_) return posix::Fd();
    // No thread can be had: rather a call that may hang than none.
    const int result = lock_now(mine);
    if (result == 0) return mine;
    if (result == EWOULDBLOCK) return posix::Fd();
    return fail(refused(result));
  }

  [[nodiscard]] static int lock_now(const posix::Fd& fd) {
    while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EINTR) return errno;
    }
    return 0;
  }

  // Every errno but EWOULDBLOCK means that there are no locks here: ENOSYS, EOPNOTSUPP, ENOLCK,
  // EBADF and 524 have been seen on Lustre, NFS and FUSE.
  [[nodiscard]] Error refused(int number) const {
    return fail(ErrorCode::kInternal,
                "cannot lock " + path_ + ": " + std::generic_category().message(number),
                "the file system does not lock here; --lock lease says the same without trying")
        .value();
  }
  [[nodiscard]] Error no_answer() const {
    return fail(ErrorCode::kInternal,
                "cannot lock " + path_ + ": the call has not returned for " +
                    std::to_string(calls_.patience().count() / 1000) + " s",
                "the file system does not answer here; --lock lease goes on without asking it")
        .value();
  }

  [[nodiscard]] Result<posix::Opened> open() const {
    auto file = posix::open_lock_file(path_, mode_);
    if (file || file.error().code != ErrorCode::kNotFound) return file;
    FVP_CHECK_OK(posix::make_directories(posix::parent(path_)));
    return posix::open_lock_file(path_, mode_);
  }

  std::string path_;
  unsigned mode_;
  Holder self_;
  FlockCalls& calls_;
  posix::FileInfo file_;             ///< what was opened, and is locked, or may be soon
  std::unique_ptr<FlockCall> call_;  ///< on its way
  bool queued_ = false;              ///< it stands in the kernel's queue
  Clock::TimePoint asked_{};         ///< when it began; real time, as it is a real call
};

}  // namespace

std::optional<std::string> known_holder(const std::string& path) {
  const auto holder = read_record(layout::holder_record(path));
  if (holder && !is_gone(*holder)) return holder->describe();
  const auto file = posix::stat(path);
  const auto pid = file && *file ? holder_in_kernel(**file) : std::nullopt;
  if (!pid) return std::nullopt;
  const std::string command = command_of(*pid);
  return "pid " + std::to_string(*pid) + (command.empty() ? "" : " (" + escaped(command) + ")") +
         " on this host";
}

bool is_held(const std::string& path) {
  const auto file = posix::open_private_to_read(path);
  if (!file) return false;
  // Shared, which is enough to see an exclusive one, and all that NFS gives to a reader.
  while (::flock(file->fd.get(), LOCK_SH | LOCK_NB) != 0) {
    if (errno != EINTR) return errno == EWOULDBLOCK;
  }
  (void)::flock(file->fd.get(), LOCK_UN);
  return false;
}

std::unique_ptr<Lock> make_flock(std::string path, unsigned mode, Holder self, FlockCalls& calls) {
  return std::make_unique<Flock>(std::move(path), mode, std::move(self), calls);
}

}  // namespace fvprefetch
