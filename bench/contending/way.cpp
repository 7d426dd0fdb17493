#include "way.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <stop_token>
#include <utility>
#include <vector>

#include "base/posix.h"
#include "base/try.h"
#include "cache/flock_call.h"
#include "cache/lease.h"

namespace fvprefetch::contending {
namespace {

/// A file that is locked as long as it is open.
class HeldFile final : public HeldLock {
 public:
  explicit HeldFile(posix::Fd fd) : fd_(std::move(fd)) {}
  void tell() override {}
  [[nodiscard]] bool lost() override { return false; }

 private:
  posix::Fd fd_;
};

/// One blocking call of the kernel.
class Blocking final : public Way {
 public:
  explicit Blocking(Primitive primitive) : ofd_(primitive == Primitive::kOfd) {}

  [[nodiscard]] Result<std::unique_ptr<HeldLock>> take(const std::string& lock,
                                                       const std::function<bool()>& hit,
                                                       Clock::TimePoint) override {
    if (hit()) return nullptr;
    // Over NFS flock is a byte-range lock as well: the two must never meet on one file.
    const std::string path = ofd_ ? lock + ".ofd" : lock;
    FVP_TRY(posix::Opened file, posix::open_lock_file(path, 0664));
    while (call(file.fd.get()) != 0) {
      if (errno != EINTR) return fail(posix::errno_error(errno, "lock", path));
    }
    return std::make_unique<HeldFile>(std::move(file.fd));
  }

 private:
  [[nodiscard]] int call(int fd) const {
    if (!ofd_) return ::flock(fd, LOCK_EX);
    struct flock whole {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    return ::fcntl(fd, F_OFD_SETLKW, &whole);
  }

  bool ofd_;
};

/// The product's locks and its way to wait for them.
class Ours final : public Way {
 public:
  explicit Ours(Primitive primitive) : primitive_(primitive) {}

  [[nodiscard]] Result<std::unique_ptr<HeldLock>> take(const std::string& path,
                                                       const std::function<bool()>& hit,
                                                       Clock::TimePoint deadline) override {
    Clock& clock = real_clock();
    LockWait wait({}, clock.now());
    std::unique_ptr<Lock> lock;  // none for a hit
    for (;;) {
      if (hit()) return nullptr;
      if (!lock) lock = make_lock(path);
      FVP_TRY(std::unique_ptr<HeldLock> held, lock->try_acquire());
      if (held) return held;
      const Clock::TimePoint now = clock.now();
      if (now >= deadline) return nullptr;
      const LockWait::Step step = wait.step(now, lock->holder_progress());
      if (step.timed_out) return nullptr;
      clock.sleep_until(step.next_try, {}, &wake_);
    }
  }

 private:
  [[nodiscard]] std::unique_ptr<Lock> make_lock(const std::string& path) {
    if (primitive_ == Primitive::kLease) return keeper_.lease(path);
    std::vector<ChainPart> parts;
    parts.push_back({make_flock(path, 0664, self_, calls_), ChainPart::Need::kOneOf});
    parts.push_back({keeper_.lease(path), ChainPart::Need::kOneOf});
    return make_chain(std::move(parts));
  }

  Primitive primitive_;
  Wake wake_;
  FlockCalls calls_{FlockCalls::Habits{.wake = &wake_}};
  Holder self_;
  LeaseKeeper keeper_{self_, LeaseTimes{}, real_clock()};
};

}  // namespace

std::optional<Primitive> primitive(std::string_view name) {
  if (name == "flock") return Primitive::kFlock;
  if (name == "ofd") return Primitive::kOfd;
  if (name == "lease") return Primitive::kLease;
  if (name == "auto") return Primitive::kAuto;
  return std::nullopt;
}

std::unique_ptr<Way> make_way(Primitive primitive) {
  if (primitive == Primitive::kFlock || primitive == Primitive::kOfd) {
    return std::make_unique<Blocking>(primitive);
  }
  return std::make_unique<Ours>(primitive);
}

}  // namespace fvprefetch::contending
