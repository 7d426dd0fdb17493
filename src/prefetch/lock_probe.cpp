#include "prefetch/lock_probe.h"

#include <fcntl.h>

#include <cerrno>
#include <optional>
#include <span>
#include <utility>

#include "base/claim.h"
#include "base/clock.h"
#include "base/posix.h"
#include "base/try.h"
#include "base/within.h"
#include "cache/flock_call.h"
#include "cache/layout.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;
using Outcome = Attempt::Outcome;

constexpr mode_t kMode = 0664;

Attempt attempt_of(int number, bool busy) {
  if (number == 0) return {Outcome::kTaken, 0, {}};
  return {busy ? Outcome::kBusy : Outcome::kRefused, number, {}};
}

Attempt lock_attempt(int number) {
  // EACCES: SMB's word for it, where locks are mandatory (flock(2)), and POSIX's for fcntl().
  return attempt_of(number, number == EAGAIN || number == EACCES);
}

Attempt name_attempt(int number) {
  return attempt_of(number, number == EEXIST);
}

// Counts the time, and remembers a call that hung: the next one would hang as well, and a lock that
// it got late is let go by the thread that was left behind.
class Patient : public LockProbe {
 public:
  explicit Patient(milliseconds patience) : patience_(patience) {}

  Attempt take() final {
    if (hung_) return {Outcome::kHung, 0, patience_};
    const auto begin = real_clock().now();
    Attempt attempt = take_within(patience_);
    attempt.took = std::chrono::duration_cast<milliseconds>(real_clock().now() - begin);
    hung_ = attempt.outcome == Outcome::kHung;
    return attempt;
  }
  void let_go() final {
    if (!hung_) hung_ = !let_go_within(patience_);
  }

 protected:
  virtual Attempt take_within(milliseconds patience) = 0;
  /// False: it hangs.
  virtual bool let_go_within(milliseconds patience) = 0;

 private:
  milliseconds patience_;
  bool hung_ = false;
};

// A lock that closing its descriptor lets go.
class DescriptorProbe : public Patient {
 public:
  DescriptorProbe(std::string path, milliseconds patience)
      : Patient(patience), path_(std::move(path)) {}

 protected:
  bool let_go_within(milliseconds patience) final {
    if (!held_) return true;
    // Closing speaks to the server, too.
    auto held = std::make_shared<posix::Fd>(std::move(held_));
    return within(patience,
                  [held = std::move(held)]() mutable {
                    held.reset();
                    return true;
                  })
        .has_value();
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  void keep(posix::Fd fd) { held_ = std::move(fd); }

 private:
  std::string path_;
  posix::Fd held_;
};

int errno_of(const Error& error) {
  return error.code == ErrorCode::kPermission ? EPERM
         : error.code == ErrorCode::kNoSpace  ? ENOSPC
         : error.code == ErrorCode::kNotFound ? ENOENT
                                              : EIO;
}

class FlockProbe final : public DescriptorProbe {
 public:
  using DescriptorProbe::DescriptorProbe;

 private:
  Attempt take_within(milliseconds patience) override {
    auto opened = within(patience, [path = path()] { return posix::open_lock_file(path, kMode); });
    if (!opened) return {Outcome::kHung, 0, {}};
    if (!*opened) return lock_attempt(errno_of(opened->error()));
    const auto call = FlockCalls().begin(std::move((*opened)->fd), FlockCalls::Blocking::kNo);
    if (call == nullptr) return lock_attempt(EIO);
    const auto result = call->result(patience);
    if (!result) return {Outcome::kHung, 0, {}};
    if (*result == 0) keep(call->take());
    return lock_attempt(*result);
  }
};

class OfdProbe final : public DescriptorProbe {
 public:
  using DescriptorProbe::DescriptorProbe;

 private:
  struct Locked {
    int result = 0;
    posix::Fd fd;
  };

  Attempt take_within(milliseconds patience) override {
    auto locked = within(patience, [path = path()] {
      Locked out;
      auto file = posix::open_lock_file(path, kMode);
      if (!file) {
        out.result = errno_of(file.error());
        return out;
      }
      struct ::flock whole {};
      whole.l_type = F_WRLCK;
      whole.l_whence = SEEK_SET;
      while (::fcntl(file->fd.get(), F_OFD_SETLK, &whole) != 0) {
        if (errno == EINTR) continue;
        out.result = errno;
        return out;
      }
      out.fd = std::move(file->fd);
      return out;
    });
    if (!locked) return {Outcome::kHung, 0, {}};
    if (locked->result == 0) keep(std::move(locked->fd));
    return lock_attempt(locked->result);
  }
};

// A name that one process alone can make.
class NameProbe : public Patient {
 public:
  NameProbe(std::string path, milliseconds patience) : Patient(patience), path_(std::move(path)) {}

 protected:
  Attempt take_within(milliseconds patience) final {
    const auto result = within(patience, maker());
    if (!result) return {Outcome::kHung, 0, {}};
    held_ = *result == 0;
    return name_attempt(*result);
  }
  bool let_go_within(milliseconds patience) final {
    if (!std::exchange(held_, false)) return true;
    return within(patience, remover()).has_value();
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  /// They own all that they use.
  [[nodiscard]] virtual std::function<int()> maker() const = 0;
  [[nodiscard]] virtual std::function<int()> remover() const = 0;

 private:
  std::string path_;
  bool held_ = false;
};

// As a lease does it (base/claim), so that what is said here is what a fetch meets.
class LinkProbe final : public NameProbe {
 public:
  LinkProbe(std::string path, const std::string& who, milliseconds patience)
      : NameProbe(std::move(path), patience), own_(std::make_shared<Own>()) {
    own_->path = this->path() + "." + who;
  }

 private:
  struct Own {
    std::string path;
    std::string text = posix::random_hex(16);
    posix::Fd fd;
  };

  std::function<int()> maker() const override {
    return [path = path(), own = own_]() -> int {
      if (!own->fd) {
        auto made = posix::create_private(own->path);
        if (!made) return errno_of(made.error());
        const Status written =
            posix::write_at(*made, 0, std::as_bytes(std::span(own->text)), own->path);
        if (!written) return errno_of(written.error());
        own->fd = *std::move(made);
      }
      const auto claim =
          posix::claim_by_link(own->fd, own->path, path, own->text.size(),
                               [&own](const std::string& text) { return text == own->text; });
      if (!claim) return errno_of(claim.error());
      switch (claim->outcome) {
        case posix::LinkClaim::Outcome::kMade:
          return 0;
        case posix::LinkClaim::Outcome::kTaken:
          return EEXIST;
        case posix::LinkClaim::Outcome::kNoLinks:
          return claim->error != 0 ? claim->error : EOPNOTSUPP;
        case posix::LinkClaim::Outcome::kNoFile:
          break;
      }
      return EIO;
    };
  }
  std::function<int()> remover() const override {
    return [path = path()] { return posix::remove_file(path) ? 0 : EIO; };
  }

  std::shared_ptr<Own> own_;  ///< one call at a time uses it: who hung is not asked again
};

class MkdirProbe final : public NameProbe {
 public:
  using NameProbe::NameProbe;

 private:
  std::function<int()> maker() const override {
    return [path = path()] { return posix::make_directory(path); };
  }
  std::function<int()> remover() const override {
    return [path = path()] { return posix::remove_directory(path); };
  }
};

Status remove_tree(const std::string& directory) {
  FVP_TRY(const auto names, posix::list(directory));
  for (const std::string& name : names) {
    const std::string path = std::string(directory).append("/").append(name);
    FVP_TRY(const auto info, posix::lstat(path));
    if (info && info->directory) {
      FVP_CHECK_OK(remove_tree(path));
    } else {
      FVP_CHECK_OK(posix::remove_file(path));
    }
  }
  const int failed = posix::remove_directory(directory);
  if (failed == 0 || failed == ENOENT) return {};
  return fail(posix::errno_error(failed, "remove", directory));
}

// What a doctor that was killed has left a day ago, by the file system's own clock; best effort.
void remove_stale(const std::string& base, const std::string& tag) {
  constexpr std::int64_t kDayNs = 24LL * 3600 * 1'000'000'000;
  const auto now = posix::lstat(probe_directory(base, tag));
  const auto names = posix::list(base);
  if (!now || !*now || !names) return;
  for (const std::string& name : *names) {
    if (!layout::is_doctor_directory(name)) continue;
    const std::string path = std::string(base).append("/").append(name);
    const auto info = posix::lstat(path);
    if (!info || !*info || !(*info)->directory || (*now)->mtime_ns - (*info)->mtime_ns < kDayNs) {
      continue;
    }
    (void)remove_tree(path);
  }
}

}  // namespace

std::string_view name(Primitive primitive) {
  switch (primitive) {
    case Primitive::kFlock:
      return "flock";
    case Primitive::kOfd:
      return "OFD";
    case Primitive::kLink:
      return "link";
    case Primitive::kMkdir:
      break;
  }
  return "mkdir";
}

std::unique_ptr<LockProbe> make_lock_probe(Primitive primitive, const std::string& directory,
                                           const std::string& who, milliseconds patience) {
  switch (primitive) {
    case Primitive::kFlock:
      return std::make_unique<FlockProbe>(directory + "/flock", patience);
    case Primitive::kOfd:
      return std::make_unique<OfdProbe>(directory + "/ofd", patience);
    case Primitive::kLink:
      return std::make_unique<LinkProbe>(directory + "/link", who, patience);
    case Primitive::kMkdir:
      break;
  }
  return std::make_unique<MkdirProbe>(directory + "/mkdir", patience);
}

std::string probe_directory(const std::string& base, const std::string& tag) {
  return layout::doctor_directory(base, tag);
}

Status make_probe_directory(const std::string& base, const std::string& tag) {
  FVP_CHECK_OK(posix::make_directories(probe_directory(base, tag)));
  remove_stale(base, tag);
  return {};
}

Status remove_probes(const std::string& directory) {
  return remove_tree(directory);
}

Status remove_probe_directory(const std::string& base, const std::string& tag, bool made_base) {
  FVP_CHECK_OK(remove_tree(probe_directory(base, tag)));
  // Somebody may have put something into it meanwhile; then it stays.
  if (made_base) (void)posix::remove_directory(base);
  return {};
}

}  // namespace fvprefetch
