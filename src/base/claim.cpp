#include "base/claim.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <span>

#include "base/try.h"

namespace fvprefetch::posix {
namespace {

template <typename F>
int errno_of(F&& call) {
  for (;;) {
    if (call() == 0) return 0;
    if (errno != EINTR) return errno;
  }
}

}  // namespace

int hard_link(const std::string& from, const std::string& to) {
  return errno_of([&] { return ::link(from.c_str(), to.c_str()); });
}

Result<LinkClaim> claim_by_link(const Fd& fd, const std::string& path, const std::string& name,
                                std::size_t limit,
                                const std::function<bool(const std::string&)>& is_ours) {
  using Outcome = LinkClaim::Outcome;
  const auto before = stat(fd, path);
  if (!before && before.error().code == ErrorCode::kNotFound) {  // GlusterFS
    return LinkClaim{Outcome::kNoFile, ENOENT, false};
  }
  if (!before) return fail(before.error());
  const int failed = hard_link(path, name);
  FVP_TRY(const FileInfo after, stat(fd, path));
  const bool grew = after.links == before->links + 1;
  if (failed == EEXIST && !grew) return LinkClaim{Outcome::kTaken, 0, false};
  if (failed == ENOENT && !grew) return LinkClaim{Outcome::kNoFile, ENOENT, false};

  // Neither what link() says nor the count is enough: what does the name lead to?
  FVP_TRY(const auto named, lstat(name));
  if (named && named->inode == after.inode && named->device == after.device) {
    return LinkClaim{Outcome::kMade, 0, grew};
  }
  if (named && named->link && failed == 0) {
    // BeeGFS can be told to make a symbolic link instead.
    (void)remove_file(name);
    return LinkClaim{Outcome::kNoLinks, 0, false};
  }
  if (named) {
    FVP_TRY(const auto found, peek(name, limit));
    if (!found || !is_ours(found->text)) return LinkClaim{Outcome::kTaken, 0, false};
    (void)remove_file(name);
    return LinkClaim{Outcome::kNoLinks, 0, false};
  }
  // Made, and gone since.
  if (failed == 0 || grew) return LinkClaim{Outcome::kTaken, 0, false};
  return LinkClaim{Outcome::kNoLinks, failed, false};
}

int make_directory(const std::string& path) {
  const int failed = errno_of([&] { return ::mkdir(path.c_str(), 0755); });
  // Others must be able to take it away when we are gone.
  if (failed == 0) fit_directory(path);
  return failed;
}

int remove_directory(const std::string& path) {
  return errno_of([&] { return ::rmdir(path.c_str()); });
}

void make_readable(const Fd& fd) {
  constexpr mode_t kAll = S_IRUSR | S_IRGRP | S_IROTH;
  struct ::stat status {};
  if (::fstat(fd.get(), &status) != 0 || (status.st_mode & kAll) == kAll) return;
  if (status.st_nlink != 1) return;  // somebody's own file as well
  (void)::fchmod(fd.get(), (status.st_mode & 07777U) | kAll);
}

Result<std::optional<Peek>> peek(const std::string& path, std::size_t limit) {
  // A name may go, and another come, between two looks; what was opened stays what it was.
  constexpr int kTries = 5;
  for (int i = 0; i < kTries; ++i) {
    // open() first: it is what makes an NFS client ask its server, which lstat() need not.
    const Fd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    const int failed = errno;
    if (fd) {
      // On GlusterFS what is open goes with its last name.
      const auto info = stat(fd, path);
      if (!info && info.error().code == ErrorCode::kNotFound) continue;
      if (!info) return fail(info.error());
      Peek found{*info, {}};
      if (!found.info.regular) return found;
      std::string text(limit, '\0');
      const auto length = read_at(fd, 0, std::as_writable_bytes(std::span(text)), path);
      if (!length && length.error().code == ErrorCode::kNotFound) continue;
      if (!length) return fail(length.error());
      found.text = text.substr(0, *length);
      return found;
    }
    if (failed == ENOENT || failed == ENOTDIR) return std::nullopt;
    if (failed == EINTR || failed == ESTALE) continue;
    if (failed != ELOOP && failed != EACCES && failed != EPERM && failed != ENXIO) {
      return fail(errno_error(failed, "look at", path));
    }
    FVP_TRY(const auto info, lstat(path));
    if (info) return Peek{*info, {}};
  }
  return fail(errno_error(ESTALE, "look at", path));
}

}  // namespace fvprefetch::posix
