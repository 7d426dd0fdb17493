#include "base/posix.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <pwd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <climits>
#include <deque>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "base/clock.h"
#include "base/printable.h"
#include "base/try.h"

namespace fvprefetch::posix {
namespace {

// Repeats a system call that a signal interrupted. ESTALE (a network file system's handle that was
// replaced on the server) is resolved anew a few times, which is all that helps.
template <typename F>
auto again(F&& call) {
  constexpr int kStaleTries = 3;
  int stale = 0;
  for (;;) {
    const auto result = call();
    if (result != -1) return result;
    if (errno == EINTR) continue;
    if (errno == ESTALE && ++stale < kStaleTries) continue;
    return result;
  }
}

// On GlusterFS the second of two clients that make one name at the same moment is told that it is
// there, and may see it later, or never: for a directory the server undoes both. So `make` is
// called again, for two seconds, until it says that it was not that.
template <typename F>
void until_not_that(const std::string& directory, F&& make) {
  constexpr auto kPause = std::chrono::milliseconds(10);
  constexpr int kTries = 200;
  for (int i = 0; i < kTries && !make(); ++i) {
    real_clock().sleep_until(real_clock().now() + kPause, {});
    look_afresh(directory);
  }
}

// After a failed call: fail(last_error("create", path)).
Error last_error(std::string_view action, std::string_view path) {
  return errno_error(errno, action, path);
}

FileInfo to_info(const struct ::stat& status) {
  FileInfo info;
  info.regular = S_ISREG(status.st_mode);
  info.directory = S_ISDIR(status.st_mode);
  info.link = S_ISLNK(status.st_mode);
  info.size = static_cast<std::uint64_t>(status.st_size);
  info.allocated = static_cast<std::uint64_t>(status.st_blocks) * 512;  // whatever the block size
  info.mtime_ns = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  info.device = status.st_dev;
  info.inode = status.st_ino;
  info.links = status.st_nlink;
  info.user = status.st_uid;
  info.mode = status.st_mode & 07777U;
  info.executable = (status.st_mode & S_IXUSR) != 0;
  return info;
}

// What things made in a folder take over from it.
struct Heritage {
  // The group's, when the group is meant to share the folder. (umask 022 in a group's directory is
  // the usual way in which a cache becomes one person's.)
  mode_t bits = 0;
  std::optional<gid_t> group;
  // What is made there has another group at first, whose bits it would get.
  bool foreign = false;

  [[nodiscard]] bool shared() const { return bits != 0; }
};

Heritage heritage(const std::string& directory) {
  struct ::stat status {};
  if (again([&] { return ::stat(directory.c_str(), &status); }) != 0) return {};
  Heritage of;
  of.group = status.st_gid;
  const bool shared = (status.st_mode & (S_ISGID | S_IWGRP)) != 0;
  if (shared) of.bits = status.st_mode & (S_ISGID | S_IRWXG);
  of.foreign = shared && (status.st_mode & S_ISGID) == 0 && status.st_gid != ::getegid();
  return of;
}

// What this thread knows of the folders that it works in. Files come to a few of them by the
// thousand, and to ask again for each would be two system calls of some twenty. Not for long: the
// mode of a folder may be changed, and another file system be mounted there.
struct Folder {
  std::optional<Heritage> heritage;
  std::optional<bool> local;
  Clock::TimePoint forget_at{};
};

Folder& known_folder(const std::string& directory) {
  constexpr auto kMemory = std::chrono::seconds(1);
  constexpr std::size_t kMost = 16;
  thread_local std::map<std::string, Folder> folders;
  const auto now = Clock::TimePoint::clock::now();
  if (folders.size() > kMost) folders.clear();
  Folder& folder = folders[directory];
  if (folder.forget_at <= now) folder = {{}, {}, now + kMemory};
  return folder;
}

Heritage known_heritage(const std::string& directory) {
  Folder& folder = known_folder(directory);
  if (!folder.heritage) {
    const Heritage of = heritage(directory);
    if (!of.group) return of;  // not there yet
    folder.heritage = of;
  }
  return *folder.heritage;
}

// The mode that something new is made with. In a shared folder whose group it has not yet, the
// group that it has instead must not be able to write to it, not for a moment.
mode_t first_mode(mode_t mode, const Heritage& of) {
  return of.foreign ? mode & ~mode_t{S_IWGRP} : mode;
}

// Best effort: some file systems know no modes, and a narrow file still serves its owner.
// `status`: of the open file.
void set_mode(int fd, const struct ::stat& status, mode_t mode) {
  if ((status.st_mode & 07777U) == mode) return;
  (void)again([&] { return ::fchmod(fd, mode); });
}

// Gives a new file or folder of ours the group of the folder that it is made in, and then `mode`.
// The bits of the group are for that one: where it cannot be given (who makes it is no member),
// the group that it has gets no more than everybody.
void take_after(int fd, const struct ::stat& status, const Heritage& of, mode_t mode) {
  const bool right = !of.group || status.st_gid == *of.group ||
                     again([&] { return ::fchown(fd, static_cast<uid_t>(-1), *of.group); }) == 0;
  if (!right && of.shared()) {
    mode = (mode & ~mode_t{S_IRWXG | S_ISGID}) | ((mode & S_IRWXO) << 3U);
  }
  struct ::stat now = status;
  if (right && status.st_gid != of.group.value_or(status.st_gid)) {
    (void)::fstat(fd, &now);  // chown() takes bits away
  }
  set_mode(fd, now, mode);
}

std::string user_name(uid_t uid) {
  std::array<char, 4096> buffer{};
  struct ::passwd entry {};
  struct ::passwd* found = nullptr;
  (void)::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found);
  return found != nullptr ? found->pw_name : "user " + std::to_string(uid);
}

// Whose right is missing: of `path`, or of the nearest folder above it that is there. Empty when
// nothing can be said.
std::string owner_of(std::string path) {
  struct ::stat status {};
  while (::lstat(path.c_str(), &status) != 0) {
    const std::string above = parent(path);
    if (above == path) return {};
    path = above;
  }
  constexpr std::string_view kLetters = "rwxrwxrwx";
  std::string mode;
  for (std::size_t i = 0; i < kLetters.size(); ++i) {
    mode += (status.st_mode & (0400U >> i)) != 0 ? kLetters[i] : '-';
  }
  return " (" + escaped(path) + " is " + user_name(status.st_uid) + "'s, mode " + mode + ")";
}

// Of something that cannot be made. ENOENT speaks of the place then, and of nothing that was asked
// for.
Error cannot_make(int number, std::string_view action, const std::string& path) {
  Error error = errno_error(number, action, path);
  if (number != ENOENT) return error;
  error.code = ErrorCode::kPermission;
  if (const Status here = check_working_directory(); !here && !path.starts_with('/')) {
    error.message += "; " + here.error().message;
    error.hint = here.error().hint;
    return error;
  }
  const std::string folder = parent(path);
  const bool there = exists(folder);
  error.message +=
      there ? "; " + escaped(folder) + " takes no new names" : "; " + escaped(folder) + " is gone";
  error.hint = there ? "choose another place"
                     : "see who removes it while this runs, then run the same command again";
  return error;
}

bool fsync_unsupported(int number) {
  return number == EINVAL || number == EOPNOTSUPP || number == ENOSYS;
}

Status sync_directory(const std::string& directory) {
  const Fd fd(again([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  // A directory that may be written but not read cannot be synced; the rename itself has worked.
  if (!fd && errno == EACCES) return {};
  if (!fd) return fail(last_error("open directory", directory));
  if (again([&] { return ::fsync(fd.get()); }) != 0 && !fsync_unsupported(errno)) {
    return fail(last_error("sync directory", directory));
  }
  return {};
}

Result<FileInfo> sync_and_close(Fd fd, const std::string& path) {
  if (again([&] { return ::fsync(fd.get()); }) != 0 && !fsync_unsupported(errno)) {
    return fail(last_error("finish writing", path));
  }
  FVP_TRY(const FileInfo info, stat(fd, path));
  FVP_CHECK_OK(fd.close(path));
  return info;
}

// `ours`: what `from` is.
Status rename_ours(const FileInfo& ours, const std::string& from, const std::string& to) {
  if (again([&] { return ::rename(from.c_str(), to.c_str()); }) == 0) return {};
  const int number = errno;
  // NFS: the answer to the first RENAME was lost, the one sent again finds no source any more.
  struct ::stat status {};
  const bool done = number == ENOENT && ::lstat(to.c_str(), &status) == 0 &&
                    status.st_ino == ours.inode && status.st_dev == ours.device;
  if (done) return {};
  Error error = errno_error(number, "rename " + from + " to", to);
  if (number == ENOENT) {
    std::string gone = exists(from) ? to : from;
    if (!exists(parent(gone))) gone = parent(gone);
    error.message += "; " + escaped(gone) + " is gone";
  }
  return fail(std::move(error));
}

// What EFBIG means here: the remark and the hint.
std::pair<std::string, std::string> size_limit() {
  struct ::rlimit limit {};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    return {
        "; this process may make no file larger than " + std::to_string(limit.rlim_cur) + " bytes",
        "raise the limit of file sizes (`ulimit -f unlimited`)"};
  }
  return {"; the file system has no files that large",
          "choose another place with --cache-dir or --hf-cache-dir"};
}

}  // namespace

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) (void)::close(fd_);
    fd_ = other.release();
  }
  return *this;
}

Fd::~Fd() {
  if (fd_ >= 0) (void)::close(fd_);
}

int Fd::release() noexcept {
  return std::exchange(fd_, -1);
}

Status Fd::close(std::string_view path) {
  // Linux has closed the descriptor whatever it says, EINTR too: asking again could close another
  // thread's.
  if (::close(release()) != 0 && errno != EINTR) return fail(last_error("finish writing", path));
  return {};
}

Error errno_error(int number, std::string_view action, std::string_view path) {
  Error error;
  std::string remark;
  switch (number) {
    case ENOENT:
      error.code = ErrorCode::kNotFound;
      break;
    case ENOSPC:
      error.code = ErrorCode::kNoSpace;
      if (free_files(std::string(path)) == 0 && free_bytes(std::string(path)) != 0) {
        remark = "; it has no inode left for another file, whatever space it has";
        error.hint =
            "remove files there (`df -i` counts them), or choose another place with --cache-dir or "
            "--hf-cache-dir";
      }
      break;
    case EDQUOT:
      error.code = ErrorCode::kNoSpace;
      // The file system may have plenty, and `df` would say so.
      error.hint =
          "the quota of this user, group or project is used up, of space or of the number of files "
          "(quota -s, lfs quota): free some of it, or choose another place with --cache-dir or "
          "--hf-cache-dir";
      break;
    case EFBIG:
      error.code = ErrorCode::kNoSpace;
      std::tie(remark, error.hint) = size_limit();
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      error.code = ErrorCode::kPermission;
      break;
    case EISDIR:
    case ELOOP:
      // Whoever put it there.
      error.code = ErrorCode::kPermission;
      error.hint = "something else lies in its place: move it away";
      break;
    case ENOTDIR:
    case ENAMETOOLONG:
      if (is_link(std::string(path))) {  // its text is at fault
        error.code = ErrorCode::kPermission;
        error.hint = "it is a link to what cannot be: move it away";
        break;
      }
      // Nobody's right or disk is at fault, but the name that somebody gave.
      error.code = ErrorCode::kUsage;
      error.hint =
          "a folder of that path is a file, or the path is too long: check --cache-dir "
          "(FASTVIDEO_EVAL_CACHE), --hf-cache-dir (HF_HUB_CACHE) and `dest`";
      break;
    case EMFILE:
    case ENFILE:
      error.code = ErrorCode::kNoSpace;
      error.reason = kTooManyOpenFiles;
      error.hint = kDescriptorHint;
      break;
    case ENOMEM:
      error = out_of_memory().value();
      break;
    default:
      error.code = ErrorCode::kInternal;
  }
  error.message = "cannot " + escaped(action) + " " + escaped(path) + ": " +
                  std::generic_category().message(number) + remark;
  if (number == EACCES || number == EPERM) error.message += owner_of(std::string(path));
  error.subject = path;
  return error;
}

bool is_descriptor_shortage(const Error& error) {
  return error.reason == kTooManyOpenFiles;
}

int descriptor_shortage() {
  const Fd fd(again([] { return ::open("/", O_PATH | O_CLOEXEC); }));
  return !fd && (errno == EMFILE || errno == ENFILE) ? errno : 0;
}

std::size_t free_descriptors() {
  constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();
  struct ::rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return kUnlimited;
  }
  const std::size_t most = limit.rlim_cur;
  const auto open = list("/proc/self/fd");
  if (!open && is_descriptor_shortage(open.error())) return 0;
  // Those below the limit take one of it each. The list has its own descriptor, closed by now;
  // where there is no /proc, at least the standard three are open.
  constexpr std::size_t kStandard = 3;
  std::size_t used = kStandard;
  if (open && !open->empty()) {
    used = static_cast<std::size_t>(
        std::count_if(open->begin(), open->end(), [most](const std::string& name) {
          std::size_t number = 0;
          (void)std::from_chars(name.data(), name.data() + name.size(), number);
          return number < most;
        }));
    --used;
  }
  return most - std::min(most, used);
}

Result<std::optional<FileInfo>> stat(const std::string& path) {
  struct ::stat status {};
  if (again([&] { return ::stat(path.c_str(), &status); }) == 0) return to_info(status);
  const int number = errno;
  if (number == ENOENT || number == ENOTDIR) return std::nullopt;
  if (number == EACCES) FVP_CHECK_OK(check_readable(path));  // which names the folder
  return fail(errno_error(number, "look at", path));
}

Result<std::optional<FileInfo>> lstat(const std::string& path) {
  struct ::stat status {};
  if (again([&] { return ::lstat(path.c_str(), &status); }) == 0) return to_info(status);
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  return fail(last_error("look at", path));
}

bool exists(const std::string& path) {
  const auto info = stat(path);
  return info && info->has_value();
}

Result<FileInfo> stat(const Fd& fd, std::string_view path) {
  struct ::stat status {};
  if (again([&] { return ::fstat(fd.get(), &status); }) != 0) {
    return fail(last_error("look at", path));
  }
  return to_info(status);
}

namespace {

// The folder on the way to `path` that may not be searched, or `path` itself.
std::string denied_part(const std::string& path) {
  std::string real = real_path(path);
  for (std::size_t slash = real.find('/', 1); slash != std::string::npos;
       slash = real.find('/', slash + 1)) {
    std::string folder = real.substr(0, slash);
    if (::faccessat(AT_FDCWD, folder.c_str(), X_OK, AT_EACCESS) != 0) return folder;
  }
  return real;
}

}  // namespace

Status check_readable(const std::string& path) {
  if (again([&] { return ::faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS); }) == 0) return {};
  const int number = errno;
  if (number != EACCES && number != EPERM) return {};
  Error error = errno_error(number, "read", path);
  error.message = "cannot read " + escaped(path) + ": " + std::generic_category().message(number) +
                  owner_of(denied_part(path));
  error.hint =
      "ask its owner for the right to read it (chmod g+r, a folder g+rx), or choose another cache "
      "with --cache-dir or --hf-cache-dir";
  return fail(std::move(error));
}

bool is_link(const std::string& path) {
  struct ::stat status {};
  return again([&] { return ::lstat(path.c_str(), &status); }) == 0 && S_ISLNK(status.st_mode);
}

std::optional<std::string> read_link(const std::string& path) {
  std::string text(PATH_MAX, '\0');
  const ssize_t length = again([&] { return ::readlink(path.c_str(), text.data(), text.size()); });
  if (length < 0) return std::nullopt;
  text.resize(static_cast<std::size_t>(length));
  return text;
}

std::string parent(const std::string& path) {
  const std::size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path.empty() ? "." : "/";
  const std::size_t slash = path.find_last_of('/', end);
  if (slash == std::string::npos) return ".";
  const std::size_t last = path.find_last_not_of('/', slash);
  return last == std::string::npos ? "/" : path.substr(0, last + 1);
}

std::string existing_part(std::string path) {
  while (!exists(path)) {
    std::string above = parent(path);
    if (above == path) break;
    path = std::move(above);
  }
  return path;
}

std::string real_path(const std::string& path) {
  const auto push = [](std::deque<std::string>& segments, std::string_view text) {
    std::deque<std::string> more;
    while (!text.empty()) {
      const std::size_t slash = std::min(text.find('/'), text.size());
      if (slash > 0 && text.substr(0, slash) != ".") more.emplace_back(text.substr(0, slash));
      text.remove_prefix(std::min(slash + 1, text.size()));
    }
    segments.insert(segments.begin(), more.begin(), more.end());
  };

  std::deque<std::string> todo;
  push(todo, path);
  std::string done;  // resolved so far; "" is the root
  if (!path.starts_with('/')) {
    std::array<char, PATH_MAX> here{};
    if (::getcwd(here.data(), here.size()) == nullptr) return path;
    push(todo, here.data());  // begins at the root, with no links in it
  }
  constexpr int kMaxLinks = 40;  // as the kernel
  int links = 0;
  while (!todo.empty()) {
    const std::string segment = std::move(todo.front());
    todo.pop_front();
    if (segment == "..") {
      done.erase(std::min(done.find_last_of('/'), done.size()));
      continue;
    }
    std::string next = done + "/" + segment;
    const auto target = links < kMaxLinks ? read_link(next) : std::nullopt;
    if (!target) {
      done = std::move(next);
      continue;
    }
    ++links;
    if (target->starts_with('/')) done.clear();
    push(todo, *target);
  }
  return done.empty() ? "/" : done;
}

Status check_working_directory() {
  std::array<char, PATH_MAX> here{};
  if (::getcwd(here.data(), here.size()) != nullptr || errno != ENOENT) return {};
  return fail(ErrorCode::kPermission, "the working directory of this process was removed",
              "change to another directory, or give absolute paths");
}

bool is_local(const std::string& directory) {
  constexpr long kXfs = 0x58465342;  // not in linux/magic.h
  constexpr long kZfs = 0x2fc12fc1;
  struct ::statfs info {};
  if (::statfs(directory.c_str(), &info) != 0) return false;
  const auto type = static_cast<long>(info.f_type);
  return type == EXT4_SUPER_MAGIC || type == TMPFS_MAGIC || type == BTRFS_SUPER_MAGIC ||
         type == F2FS_SUPER_MAGIC || type == kXfs || type == kZfs;
}

bool may_write(const std::string& directory) {
  return ::faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) == 0;
}

void look_afresh(const std::string& directory) {
  Folder& folder = known_folder(directory);
  if (!folder.local) folder.local = is_local(directory);
  if (*folder.local) return;
  DIR* const stream = ::opendir(directory.c_str());
  if (stream == nullptr) {  // not there: no node remembers it, nor do we
    folder.local.reset();
    return;
  }
  (void)::readdir(stream);
  ::closedir(stream);
}

Result<std::vector<std::string>> list(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(directory.c_str()), &::closedir);
  std::vector<std::string> names;
  if (stream == nullptr) {
    if (errno == ENOENT || errno == ENOTDIR) return names;
    return fail(last_error("list", directory));
  }
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) break;
    const std::string_view name = static_cast<const char*>(entry->d_name);
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) return fail(last_error("list", directory));
  std::sort(names.begin(), names.end());
  return names;
}

namespace {

Error not_regular(const std::string& path) {
  return fail(ErrorCode::kUsage, escaped(path) + " is no regular file", "move it away").value();
}

}  // namespace

// A FIFO that somebody left in a shared cache must not hold us up, so nothing waits in open().
Result<Opened> open_with_info(const std::string& path) {
  Opened file;
  file.fd =
      Fd(again([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); }));
  if (!file.fd) {
    Error error = last_error("open", path);
    if (error.code == ErrorCode::kPermission) FVP_CHECK_OK(check_readable(path));  // says whose
    return fail(std::move(error));
  }
  FVP_TRY(file.info, stat(file.fd, path));
  if (!file.info.regular) return fail(not_regular(path));
  return file;
}

namespace {

Result<std::string> read_whole(const Fd& fd, const std::string& path, std::uint64_t limit) {
  std::string text;
  std::array<char, 64U << 10U> piece{};  // read(), not pread(): it may be a pipe
  for (;;) {
    const ssize_t length = again([&] { return ::read(fd.get(), piece.data(), piece.size()); });
    if (length < 0) return fail(last_error("read", path));
    if (length == 0) return text;
    text.append(piece.data(), static_cast<std::size_t>(length));
    if (text.size() > limit) {
      return fail(ErrorCode::kInternal, path + " is larger than the " + std::to_string(limit) +
                                            " bytes that it may have");
    }
  }
}

}  // namespace

Result<std::optional<std::string>> read_small(const std::string& path, std::uint64_t limit) {
  // Looked at first: what is not there is the usual case, and no error.
  FVP_TRY(const auto info, stat(path));
  if (!info) return std::nullopt;
  if (!info->regular) return fail(not_regular(path));
  const Result<Opened> file = open_with_info(path);
  if (!file && file.error().code == ErrorCode::kNotFound) return std::nullopt;  // removed meanwhile
  if (!file) return fail(file.error());
  FVP_TRY(std::string text, read_whole(file->fd, path, limit));
  return text;
}

Result<std::optional<std::string>> read_private(const std::string& path, std::uint64_t limit) {
  const Result<Opened> file = open_private_to_read(path);
  if (!file && file.error().code == ErrorCode::kNotFound) return std::nullopt;
  if (!file) return fail(file.error());
  FVP_TRY(std::string text, read_whole(file->fd, path, limit));
  return text;
}

Result<std::string> read_stream(const std::string& path, std::uint64_t limit) {
  const Fd fd(again([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY); }));
  if (!fd) return fail(last_error("read", path));
  return read_whole(fd, path, limit);
}

namespace {

// A name beside what is being made, which prune knows (cache/layout).
std::string unfinished_beside(const std::string& path) {
  return parent(path) + "/." + random_tag() + std::string(kUnfinishedSuffix);
}

// rename(2) that replaces nothing. 0 or errno, EEXIST for whatever is at `to`; EINVAL and the like
// where the file system has no such call (NFS).
int rename_new(const std::string& from, const std::string& to) {
  const auto renamed = again(
      [&] { return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE); });
  return renamed == 0 ? 0 : errno;
}

bool has_no_such_call(int number) {
  return number == EINVAL || number == ENOSYS || number == EOPNOTSUPP;
}

// The same of a directory. Where the call is missing an empty directory may be replaced after all:
// one that somebody has made this very moment, and that ours is as good as.
int rename_new_directory(const std::string& from, const std::string& to) {
  int number = rename_new(from, to);
  struct ::stat status {};
  if (has_no_such_call(number)) {
    if (::lstat(to.c_str(), &status) == 0) return EEXIST;
    number = again([&] { return ::rename(from.c_str(), to.c_str()); }) == 0 ? 0 : errno;
  }
  const bool taken = number == ENOTEMPTY || number == ENOTDIR || number == EEXIST;
  // NFS: the answer was lost, and the call that is sent again finds no source any more.
  const bool done = number == ENOENT && ::lstat(to.c_str(), &status) == 0;
  return taken || done ? EEXIST : number;
}

void fit_directory(const std::string& path, const Heritage& of) {
  const Fd fd(
      again([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }));
  struct ::stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return;
  take_after(fd.get(), status, of, (status.st_mode & 07777U) | of.bits);
}

// mkdir(2) with what the folder above hands down. 0 or errno.
int make_one_directory(const std::string& path) {
  const Heritage of = heritage(parent(path));
  const auto make = [&of](const std::string& name) {
    const auto made = again([&] { return ::mkdir(name.c_str(), first_mode(0777, of)); });
    if (made != 0) return errno;
    if (of.shared() || (of.group && *of.group != ::getegid())) fit_directory(name, of);
    return 0;
  };
  if (!of.shared()) return make(path);
  // Another member of the group who finds it must find it open to the group, so it has its mode
  // before it has its name.
  const std::string temp = unfinished_beside(path);
  if (const int failed = make(temp); failed != 0) return failed;
  const int failed = rename_new_directory(temp, path);
  if (failed == 0) return 0;
  (void)::rmdir(temp.c_str());  // prune knows the name
  if (failed == EEXIST) return failed;
  return make(path);  // this file system renames no directories (object stores)
}

}  // namespace

void fit_directory(const std::string& path) {
  fit_directory(path, heritage(parent(path)));
}

Status make_directories(const std::string& path) {
  // Look first: where nothing may be written, mkdir of what is there says EROFS or EACCES. And not
  // into this node's memory: for a while NFS has a directory there that another node has removed.
  look_afresh(path);
  FVP_TRY(const auto there, stat(path));
  if (there && there->directory) return {};
  if (there) return fail(errno_error(ENOTDIR, "make directory", path));

  const std::string above = parent(path);
  if (above != path && above != "." && above != "/") FVP_CHECK_OK(make_directories(above));
  int number = 0;
  struct ::stat status {};
  Status up;
  until_not_that(above, [&] {
    number = make_one_directory(path);
    if (number == ENOENT || number == ESTALE) {  // the one above was undone, or cleared up
      up = make_directories(above);
      return !up;
    }
    return number != EEXIST || ::lstat(path.c_str(), &status) == 0;
  });
  if (!up) return up;
  if (number == 0) return {};
  if (number == EEXIST) {  // somebody else was faster
    FVP_TRY(const auto now, stat(path));
    if (now && now->directory) return {};
    if (!now &&
        S_ISLNK(status.st_mode)) {  // scratch that was purged, or is not mounted on this node
      return fail(ErrorCode::kNotFound, escaped(path) + " is a link to a place that does not exist",
                  "is its file system mounted on this node? Else mend the link, or choose another "
                  "place with --cache-dir or --hf-cache-dir");
    }
  }
  return fail(cannot_make(number, "make directory", path));
}

Status make_directories_below(const std::string& root, const std::string& path) {
  Status made = make_directories(path);
  if (made) return made;
  if (made.error().code == ErrorCode::kNotFound) {  // a link in its place leads nowhere
    if (!exists(root)) return made;
    made.error().code = ErrorCode::kPermission;
    return made;
  }
  if (made.error().code != ErrorCode::kUsage) return made;
  const std::string there = existing_part(path);
  const auto info = stat(there);
  if (there.size() <= root.size() || !info || !*info || (*info)->directory) return made;
  return fail(ErrorCode::kPermission,
              "cannot make directory " + escaped(path) + ": " + escaped(there) + " is no directory",
              "remove what is in its place");
}

namespace {

// The folder was made already; but whoever clears up a cache, or GlusterFS (until_not_that), may
// have taken it away since.
//
// `why`: the folder cannot be made; what open() says then is but what follows from it.
template <typename F>
Fd open_making_folders(const std::string& path, std::optional<Error>& why, F&& open) {
  constexpr int kTries = 3;
  Fd fd(again(open));
  for (int i = 0; i < kTries && !fd && (errno == ENOENT || errno == ESTALE); ++i) {
    Status made = make_directories(parent(path));
    why = made ? std::nullopt : std::optional(std::move(made).error());
    fd = Fd(again(open));
  }
  if (fd || (errno != ENOENT && errno != ESTALE)) why.reset();
  return fd;
}

Result<Opened> create(const std::string& path) {
  // The kernel applies the umask and default ACLs; we only add.
  Opened file;
  std::optional<Error> why;
  const std::string folder = parent(path);
  file.fd = open_making_folders(path, why, [&] {
    return ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                  first_mode(0666, known_heritage(folder)));
  });
  const int number = errno;
  if (!file.fd && why) return fail(*std::move(why));
  if (!file.fd) return fail(cannot_make(number, "create", path));
  struct ::stat status {};
  if (::fstat(file.fd.get(), &status) != 0) return fail(last_error("look at", path));
  const Heritage of = known_heritage(folder);
  take_after(file.fd.get(), status, of,
             (status.st_mode & 07777U) | S_IRUSR | S_IWUSR | (of.bits & (S_IRGRP | S_IWGRP)));
  file.info = to_info(status);
  return file;
}

// A new private file `temp` with `text` in it, handed on to `finish`; no `temp` is left on failure.
template <typename F>
Status write_text(const std::string& temp, std::string_view text, F&& finish) {
  FVP_TRY(Opened file, create(temp));
  Status status = write_at(file.fd, 0, std::as_bytes(std::span(text.data(), text.size())), temp);
  if (status) status = finish(std::move(file));
  if (!status) (void)remove_file(temp);  // the error that matters is the first one
  return status;
}

}  // namespace

Result<Fd> create_private(const std::string& path) {
  FVP_TRY(Opened file, create(path));
  return std::move(file.fd);
}

Result<Fd> duplicate(const Fd& fd, std::string_view path) {
  Fd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail(last_error("open again", path));
  return copy;
}

namespace {

// What lies at a name of our own may be anything: whoever may write in the folder can have put it
// there. Nothing is followed or waited for, and what is no regular file is not opened at all.
Result<Opened> open_ours(const std::string& path, int flags) {
  Opened file;
  file.fd = Fd(again([&] {
    return ::open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  }));
  const int number = file.fd ? 0 : errno;
  if (file.fd) {
    FVP_TRY(file.info, stat(file.fd, path));
    if (file.info.regular) return file;
  }
  if (number == EACCES && flags == O_RDONLY) FVP_CHECK_OK(check_readable(path));  // says whose
  const bool other_kind = number == 0 || number == EISDIR || number == ENXIO || number == ENODEV;
  if (!other_kind && number != ELOOP) return fail(errno_error(number, "open", path));
  return fail(ErrorCode::kPermission,
              "cannot open " + escaped(path) + ": it is " +
                  (number == ELOOP ? "a symbolic link, which is not followed" : "no regular file"),
              "remove what is in its place");
}

}  // namespace

Result<Opened> open_private(const std::string& path) {
  return open_ours(path, O_RDWR);
}

Result<Opened> open_private_to_read(const std::string& path) {
  return open_ours(path, O_RDONLY);
}

Result<Fd> open_read(const std::string& path) {
  FVP_TRY(Opened file, open_with_info(path));
  return std::move(file.fd);
}

Status write_at(const Fd& fd, std::uint64_t offset, std::span<const std::byte> data,
                std::string_view path) {
  while (!data.empty()) {
    const ssize_t length = again(
        [&] { return ::pwrite(fd.get(), data.data(), data.size(), static_cast<off_t>(offset)); });
    if (length < 0) return fail(last_error("write", path));
    if (length == 0) return fail(errno_error(ENOSPC, "write", path));  // or we would never end
    data = data.subspan(static_cast<std::size_t>(length));
    offset += static_cast<std::uint64_t>(length);
  }
  return {};
}

Result<std::size_t> read_at(const Fd& fd, std::uint64_t offset, std::span<std::byte> data,
                            std::string_view path) {
  const ssize_t length = again(
      [&] { return ::pread(fd.get(), data.data(), data.size(), static_cast<off_t>(offset)); });
  if (length < 0) return fail(last_error("read", path));
  return static_cast<std::size_t>(length);
}

Result<std::size_t> read_fully_at(const Fd& fd, std::uint64_t offset, std::span<std::byte> data,
                                  std::string_view path) {
  std::size_t done = 0;
  while (done < data.size()) {
    FVP_TRY(const std::size_t some, read_at(fd, offset + done, data.subspan(done), path));
    if (some == 0) break;
    done += some;
  }
  return done;
}

Status truncate(const Fd& fd, std::uint64_t size, std::string_view path) {
  if (again([&] { return ::ftruncate(fd.get(), static_cast<off_t>(size)); }) != 0) {
    return fail(last_error("truncate", path));
  }
  return {};
}

Status sync_data(const Fd& fd, std::string_view path) {
  if (again([&] { return ::fdatasync(fd.get()); }) != 0 && !fsync_unsupported(errno)) {
    return fail(last_error("finish writing", path));
  }
  return {};
}

bool clone(const Fd& from, const Fd& to) {
  return ::ioctl(to.get(), FICLONE, from.get()) == 0;
}

Status copy(const Fd& from, const Fd& to, std::uint64_t offset, std::uint64_t size,
            std::string_view path) {
  const auto ended = [&] {
    return fail(ErrorCode::kInternal, std::string(path) + " ended while it was copied");
  };
  while (size > 0) {
    off_t in = static_cast<off_t>(offset);
    off_t out = in;
    const ssize_t length =
        again([&] { return ::copy_file_range(from.get(), &in, to.get(), &out, size, 0); });
    if (length == 0) return ended();
    if (length < 0) break;  // not between these two: by hand, which has errors of its own
    offset += static_cast<std::uint64_t>(length);
    size -= static_cast<std::uint64_t>(length);
  }
  std::vector<std::byte> buffer(std::min<std::uint64_t>(size, 1U << 20U));
  while (size > 0) {
    const std::size_t most = std::min<std::uint64_t>(size, buffer.size());
    FVP_TRY(const std::size_t length, read_at(from, offset, std::span(buffer).first(most), path));
    if (length == 0) return ended();
    FVP_CHECK_OK(write_at(to, offset, std::span(buffer).first(length), path));
    offset += length;
    size -= length;
  }
  return {};
}

Status rename_private(const std::string& from, const std::string& to) {
  FVP_TRY(const auto ours, lstat(from));
  if (!ours) return fail(errno_error(ENOENT, "rename " + from + " to", to));
  return rename_ours(*ours, from, to);
}

Published publish(std::vector<Unpublished> files) {
  Published published;
  std::vector<FileInfo> infos;
  for (Unpublished& file : files) {
    const auto closed = sync_and_close(std::move(file.fd), file.from);
    if (!closed) {
      published.status = fail(closed.error());
      return published;
    }
    infos.push_back(*closed);
  }
  std::set<std::string> directories;
  std::size_t renamed = 0;
  for (; renamed < files.size(); ++renamed) {
    const Unpublished& file = files[renamed];
    published.status = rename_ours(infos[renamed], file.from, file.to);
    if (!published.status) break;
    directories.insert(parent(file.to));
  }
  for (const std::string& directory : directories) {
    const Status synced = sync_directory(directory);
    if (synced) continue;
    published.status = synced;
    return published;
  }
  infos.resize(renamed);
  published.infos = std::move(infos);
  return published;
}

Result<FileInfo> publish(Fd fd, const std::string& from, const std::string& to) {
  FVP_TRY(const FileInfo info, sync_and_close(std::move(fd), from));
  FVP_CHECK_OK(rename_ours(info, from, to));
  FVP_CHECK_OK(sync_directory(parent(to)));
  return info;
}

Status move(const std::string& from, const std::string& to) {
  if (again([&] { return ::rename(from.c_str(), to.c_str()); }) != 0) {
    return fail(last_error("rename " + from + " to", to));
  }
  FVP_CHECK_OK(sync_directory(parent(to)));
  return sync_directory(parent(from));
}

Status publish_text(const std::string& temp, const std::string& to, std::string_view text) {
  return write_text(temp, text, [&](Opened file) -> Status {
    FVP_CHECK_OK(publish(std::move(file.fd), temp, to));
    return {};
  });
}

Status replace_text(const std::string& temp, const std::string& to, std::string_view text) {
  return write_text(temp, text, [&](Opened file) -> Status {
    FVP_CHECK_OK(file.fd.close(temp));
    return rename_ours(file.info, temp, to);
  });
}

Status publish_link(const std::string& temp, const std::string& path, const std::string& target) {
  if (again([&] { return ::symlink(target.c_str(), temp.c_str()); }) != 0) {
    return fail(last_error("make symbolic link", temp));
  }
  if (again([&] { return ::rename(temp.c_str(), path.c_str()); }) != 0) {
    const int number = errno;
    if (number == ENOENT && read_link(path) == target) return {};  // as in publish()
    (void)remove_file(temp);  // the error that matters is the first one
    return fail(errno_error(number, "rename " + temp + " to", path));
  }
  // No fsync: a link that a power failure takes away is made again from its blob.
  return {};
}

Status make_executable(const Fd& fd, std::string_view path) {
  struct ::stat status {};
  if (again([&] { return ::fstat(fd.get(), &status); }) != 0) {
    return fail(last_error("look at", path));
  }
  set_mode(fd.get(), status,
           (status.st_mode & 07777U) | ((status.st_mode & (S_IRUSR | S_IRGRP | S_IROTH)) >> 2U));
  return {};
}

Status make_link(const std::string& path, const std::string& target) {
  if (again([&] { return ::symlink(target.c_str(), path.c_str()); }) != 0) {
    return fail(last_error("make symbolic link", path));
  }
  return {};
}

Status sync_path(const std::string& path) {
  const Fd fd(
      again([&] { return ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC); }));
  if (!fd) return fail(last_error("open", path));
  if (again([&] { return ::fsync(fd.get()); }) != 0 && !fsync_unsupported(errno)) {
    return fail(last_error("finish writing", path));
  }
  return {};
}

Status publish_directory(const std::string& from, const std::string& to, const std::string& aside) {
  const auto rename_to = [](const std::string& a, const std::string& b, unsigned flags) {
    return again([&] { return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), flags); });
  };
  if (rename_to(from, to, 0) != 0) {
    const int number = errno;
    // A link that somebody made there is replaced, as that of a file is.
    const bool taken = number == ENOTEMPTY || number == EEXIST || is_link(to);
    if (!taken) return fail(errno_error(number, "rename " + from + " to", to));
    if (rename_to(from, to, RENAME_EXCHANGE) != 0) {
      if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) {
        return fail(last_error("exchange " + from + " with", to));
      }
      if (rename_to(to, aside, 0) != 0) return fail(last_error("rename " + to + " to", aside));
      if (rename_to(from, to, 0) != 0) {
        Error error = last_error("rename " + from + " to", to);
        (void)rename_to(aside, to, 0);  // the error that matters is the first one
        return fail(std::move(error));
      }
    }
  }
  return sync_directory(parent(to));
}

Status remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);  // by descriptors, so that no link leads it elsewhere
  if (!error) return {};
  return fail(errno_error(error.value(), "remove", path));
}

std::uint64_t allocated_below(const std::string& directory) {
  std::uint64_t bytes = 0;
  std::error_code error;
  const auto options = std::filesystem::directory_options::skip_permission_denied;
  std::filesystem::recursive_directory_iterator at(directory, options, error);
  for (; !error && at != std::filesystem::recursive_directory_iterator(); at.increment(error)) {
    const auto info = lstat(at->path().string());
    if (info && *info && (*info)->regular) bytes += std::min((*info)->size, (*info)->allocated);
  }
  return bytes;
}

Status remove_file(const std::string& path) {
  if (again([&] { return ::unlink(path.c_str()); }) != 0 && errno != ENOENT && errno != ENOTDIR) {
    return fail(last_error("remove", path));
  }
  return {};
}

namespace {

// Of the file system that `path` lies in, or will when it is made; nullopt: it does not say.
std::optional<struct ::statvfs> file_system_of(const std::string& path) {
  struct ::statvfs status {};
  std::string place = path;
  while (again([&] { return ::statvfs(place.c_str(), &status); }) != 0) {
    const int number = errno;
    std::string above = parent(place);
    if (number != ENOENT || above == place) return std::nullopt;
    place = std::move(above);
  }
  return status;
}

}  // namespace

std::optional<std::uint64_t> free_bytes(const std::string& directory) {
  const auto status = file_system_of(directory);
  // Object stores behind FUSE say 0 blocks; more free than there is means nothing either.
  if (!status || status->f_blocks == 0 || status->f_bavail > status->f_blocks) return std::nullopt;
  return std::uint64_t{status->f_bavail} * status->f_frsize;
}

std::optional<std::uint64_t> free_files(const std::string& directory) {
  const auto status = file_system_of(directory);
  // Those that make inodes as they need them say 0 of 0.
  if (!status || status->f_files == 0 || status->f_favail > status->f_files) return std::nullopt;
  return std::uint64_t{status->f_favail};
}

namespace {

Error not_a_lock_file(const std::string& path) {
  return fail(ErrorCode::kPermission,
              "cannot open lock file " + escaped(path) + ": it is not a regular file",
              "remove what is in its place")
      .value();
}

// Puts a lock file at `path` that has its group and mode before it has its name: another member of
// the group may open it in the next moment. Best effort; nothing is replaced.
void place_lock_file(const std::string& path, const Heritage& of, mode_t mode) {
  const std::string temp = unfinished_beside(path);
  {
    const Fd fd(again([&] {
      return ::open(temp.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    first_mode(0666, of));
    }));
    struct ::stat status {};
    if (!fd) return;
    if (::fstat(fd.get(), &status) == 0) take_after(fd.get(), status, of, mode);
  }
  const int failed = rename_new(temp, path);
  if (failed == 0) return;
  if (has_no_such_call(failed)) (void)again([&] { return ::link(temp.c_str(), path.c_str()); });
  (void)::unlink(temp.c_str());  // prune knows the name
}

}  // namespace

Result<Opened> open_lock_file(const std::string& path, mode_t mode) {
  const std::string folder = parent(path);
  const auto open_with = [&path](int flags) {
    // A FIFO must not be waited for: whoever may write in the directory can put one there.
    return Fd(again([&] {
      return ::open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0666);
    }));
  };
  Fd fd;
  int number = 0;
  std::optional<Error> why;
  until_not_that(parent(path), [&] {
    fd = open_making_folders(path, why, [&] {
      const Heritage of = known_heritage(folder);
      if (of.shared()) {
        Fd there = open_with(O_RDWR);
        if (there || errno != ENOENT) return there.release();
        place_lock_file(path, of, mode);
      }
      return open_with(O_RDWR | O_CREAT).release();
    });
    number = errno;
    return fd || number != EEXIST;  // we did not ask for O_EXCL
  });
  if (!fd && number == EACCES) {
    // Another user's file in a sticky directory (fs.protected_regular) opens without O_CREAT; one
    // that we may only read still locks on a local file system (on NFS flock says EBADF).
    fd = open_with(O_RDWR);
    if (!fd) fd = open_with(O_RDONLY);
  }
  if (!fd && why) return fail(*std::move(why));
  if (!fd && number == ELOOP) {
    return fail(ErrorCode::kPermission, "cannot open lock file " + escaped(path) +
                                            ": it is a symbolic link, which is not followed");
  }
  // ENXIO: a FIFO or a device without another end, or a socket.
  if (!fd && (number == EISDIR || number == ENXIO || number == ENODEV)) {
    return fail(not_a_lock_file(path));
  }
  if (!fd) return fail(errno_error(number, "open lock file", path));
  struct ::stat status {};
  if (again([&] { return ::fstat(fd.get(), &status); }) != 0)
    return fail(last_error("look at", path));
  if (!S_ISREG(status.st_mode)) return fail(not_a_lock_file(path));
  // One with a second name is somebody's own file as well: it serves as a lock, with its own mode.
  const bool ours = status.st_uid == ::geteuid() && status.st_nlink == 1;
  if (ours && (status.st_mode & 07777U) != mode) {
    take_after(fd.get(), status, known_heritage(folder), mode);
  }
  return Opened{std::move(fd), to_info(status)};
}

std::string random_tag() {
  return random_hex(8);
}

std::string random_hex(std::size_t digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text(digits, '\0');
  const auto length = ::getrandom(text.data(), text.size(), 0);
  if (length != static_cast<ssize_t>(text.size())) {
    std::random_device device;
    for (char& c : text) c = static_cast<char>(device());
  }
  for (char& c : text) c = kDigits[static_cast<unsigned char>(c) & 15U];
  return text;
}

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

}  // namespace fvprefetch::posix
