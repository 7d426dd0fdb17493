// The disk. Every change that fvprefetch makes to a file system goes through here.
//
// Paths are std::string. Reading follows symbolic links (a Hub pointer is one); what creates, locks
// or replaces a name never follows one in the last component; nothing opens a published file for
// writing. Calls interrupted by a signal are begun again. Descriptors are O_CLOEXEC. errno becomes
// an Error with the path in it: ENOENT kNotFound; ENOSPC, EDQUOT, EFBIG kNoSpace; EACCES, EPERM,
// EROFS and, for something else in the way, EISDIR, ELOOP kPermission; EMFILE, ENFILE kNoSpace with
// the reason kTooManyOpenFiles; else kInternal.
//
// Publishing (the one way to a final name): private file beside the target, written and checked ->
// fsync -> close, result checked (delayed write errors come here on NFS) -> rename -> fsync of the
// directory.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch::posix {

/// Owns a file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd();
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] explicit operator bool() const { return fd_ >= 0; }
  int release() noexcept;
  /// Closes and reports what close() said; delayed write errors arrive here.
  [[nodiscard]] Status close(std::string_view path);

 private:
  int fd_ = -1;
};

struct FileInfo {
  bool regular = false;
  bool directory = false;
  bool link = false;            ///< symbolic; only of what lstat() looked at
  std::uint64_t size = 0;       ///< bytes
  std::uint64_t allocated = 0;  ///< bytes that have a place on the disk; a hole has none
  std::int64_t mtime_ns = 0;    ///< nanoseconds since 1970
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t links = 0;
  std::uint64_t user = 0;   ///< its owner's id
  std::uint32_t mode = 0;   ///< permissions, 07777
  bool executable = false;  ///< for its owner
};

/// An open file, and what it was when it was opened.
struct Opened {
  Fd fd;
  FileInfo info;
};

/// errno `number` of `action` on `path` as an Error.
[[nodiscard]] Error errno_error(int number, std::string_view action, std::string_view path);

/// Whether it came of EMFILE or ENFILE: more may be opened when others are closed.
[[nodiscard]] bool is_descriptor_shortage(const Error& error);
/// EMFILE or ENFILE where no descriptor can be had now; else 0.
[[nodiscard]] int descriptor_shortage();
/// How many descriptors this process may open besides those that it has (RLIMIT_NOFILE).
[[nodiscard]] std::size_t free_descriptors();

/// What `path` leads to, symbolic links followed. nullopt: nothing there (ENOENT, ENOTDIR, or a
/// dangling link).
[[nodiscard]] Result<std::optional<FileInfo>> stat(const std::string& path);
/// What `path` itself is: a symbolic link in its last component is not followed.
[[nodiscard]] Result<std::optional<FileInfo>> lstat(const std::string& path);
[[nodiscard]] bool exists(const std::string& path);
/// kPermission when this user may not read what `path` leads to, with its owner and mode, or those
/// of the folder that is closed. What is not there at all is for others to tell. One access(2).
[[nodiscard]] Status check_readable(const std::string& path);
/// What an open file is.
[[nodiscard]] Result<FileInfo> stat(const Fd& fd, std::string_view path);
/// Whether `path` itself, not what it leads to, is a symbolic link.
[[nodiscard]] bool is_link(const std::string& path);
/// The directory that `path` lies in; "." for a bare name.
[[nodiscard]] std::string parent(const std::string& path);
/// `path`, or the nearest directory above it that is there: where it would be made.
[[nodiscard]] std::string existing_part(std::string path);

/// Absolute, without ".", ".." and symbolic links as far as they can be resolved; what does not
/// exist stays as it is (Python's os.path.realpath).
[[nodiscard]] std::string real_path(const std::string& path);
/// Why relative paths lead nowhere: the working directory of this process was removed.
[[nodiscard]] Status check_working_directory();
/// The text of the symbolic link `path`; nullopt when it is not one or not there.
[[nodiscard]] std::optional<std::string> read_link(const std::string& path);
/// Names in a directory, sorted, without . and ..; empty when it is not there.
[[nodiscard]] Result<std::vector<std::string>> list(const std::string& directory);

/// Whether this kernel alone writes the file system that `directory` lies in. An unknown one may be
/// shared, so the answer is good for what is cheaper or quicker, never for what must be right.
[[nodiscard]] bool is_local(const std::string& directory);

/// Whether names can be made in `directory`, as far as its rights tell.
[[nodiscard]] bool may_write(const std::string& directory);

/// Makes a network file system look at the directory again: NFS keeps "not there" of a name for up
/// to a minute, until the directory is opened and read (cluster-facts B2). Costs one open and one
/// read; nothing on a local file system.
void look_afresh(const std::string& directory);

/// The whole of a small regular file (at most `limit` bytes, else kInternal). nullopt: not there;
/// kUsage: a FIFO, a device or a directory.
[[nodiscard]] Result<std::optional<std::string>> read_small(const std::string& path,
                                                            std::uint64_t limit = 64U << 20U);

/// The same of what may also be a pipe; it waits for its writer.
[[nodiscard]] Result<std::string> read_stream(const std::string& path,
                                              std::uint64_t limit = 64U << 20U);

/// The same of a small file of our own, for which a link in its place is not taken: kPermission for
/// all that is no regular file.
[[nodiscard]] Result<std::optional<std::string>> read_private(const std::string& path,
                                                              std::uint64_t limit = 64U << 20U);

// What we make in a directory gets that directory's group, as far as its maker may give it, and in
// a shared directory (one that is writable by its group or has the set-group-ID bit) then the
// group's bits, so that a group's cache stays shared whatever the umask. No bit is ever given to
// another group: where the directory's cannot be given, the one that there is gets no more than
// everybody. All this before anybody else can know the name.

/// Of a file or directory that has not its name yet: ".<8 hex>" and this. A process that was killed
/// in that moment leaves it.
constexpr std::string_view kUnfinishedSuffix = ".fvprefetch-new";

/// mkdir -p. New directories have the set-group-ID bit of a shared directory they are made in, too.
/// An existing one is fine.
[[nodiscard]] Status make_directories(const std::string& path);
/// The same of a directory of our own below `root`: something else in its way there is kPermission.
[[nodiscard]] Status make_directories_below(const std::string& root, const std::string& path);
/// Gives the new directory `path` what the one above hands down; best effort.
void fit_directory(const std::string& path);

/// Creates a private file, and its folder when that is gone: O_CREAT | O_EXCL | O_NOFOLLOW,
/// readable and writable by the owner, mode 0666 & ~umask plus the group's read and write bits of a
/// shared directory (for a second it is taken to be as it was); nobody narrows it later.
[[nodiscard]] Result<Fd> create_private(const std::string& path);
/// Another descriptor of the same open file.
[[nodiscard]] Result<Fd> duplicate(const Fd& fd, std::string_view path);
/// A file of our own that is there already, for reading and writing. Whoever may write in its
/// directory can have put something else there: a link is not followed, a FIFO not waited for, and
/// all that is no regular file is kPermission.
[[nodiscard]] Result<Opened> open_private(const std::string& path);
/// The same for reading.
[[nodiscard]] Result<Opened> open_private_to_read(const std::string& path);
/// A regular file for reading; kUsage for anything else, which is never waited for.
[[nodiscard]] Result<Fd> open_read(const std::string& path);
/// The same, with what it is.
[[nodiscard]] Result<Opened> open_with_info(const std::string& path);

[[nodiscard]] Status write_at(const Fd& fd, std::uint64_t offset, std::span<const std::byte> data,
                              std::string_view path);
/// Reads `data.size()` bytes at `offset`; fewer only at the end of the file.
[[nodiscard]] Result<std::size_t> read_fully_at(const Fd& fd, std::uint64_t offset,
                                                std::span<std::byte> data, std::string_view path);
/// Reads up to `data.size()` bytes at `offset`; 0 at the end.
[[nodiscard]] Result<std::size_t> read_at(const Fd& fd, std::uint64_t offset,
                                          std::span<std::byte> data, std::string_view path);
[[nodiscard]] Status truncate(const Fd& fd, std::uint64_t size, std::string_view path);

/// fdatasync: what was written survives a power failure.
[[nodiscard]] Status sync_data(const Fd& fd, std::string_view path);
/// Makes `to`, which must be empty, share all of `from`'s blocks. False: not on this file system.
[[nodiscard]] bool clone(const Fd& from, const Fd& to);
/// Copies `size` bytes at `offset` to the same place of `to`; inside the kernel where it can.
/// kInternal when `from` ends before.
[[nodiscard]] Status copy(const Fd& from, const Fd& to, std::uint64_t offset, std::uint64_t size,
                          std::string_view path);
/// rename() of a private file to another private name; nothing is synced. kNotFound: somebody else
/// was faster.
[[nodiscard]] Status rename_private(const std::string& from, const std::string& to);

/// A private file that is written and checked, and the name that it is to have.
struct Unpublished {
  Fd fd;
  std::string from;
  std::string to;
};
/// Of the first so many, which have their names for good: what they were when they were closed.
struct Published {
  std::vector<FileInfo> infos;
  Status status;  ///< a failure: why the others have not
};
/// fsync(`fd`), close, rename(`from`, `to`), fsync of the directory. What it was when it was
/// closed. On failure `from` is left.
[[nodiscard]] Result<FileInfo> publish(Fd fd, const std::string& from, const std::string& to);
/// The same of several: all are synced and closed before the first is renamed, and each directory
/// is synced once, after the last.
[[nodiscard]] Published publish(std::vector<Unpublished> files);

/// rename(`from`, `to`) of a file that was published before, and fsync of both directories.
[[nodiscard]] Status move(const std::string& from, const std::string& to);

/// Writes `text` to a private file `temp` and publishes it as `to` (same file system).
[[nodiscard]] Status publish_text(const std::string& temp, const std::string& to,
                                  std::string_view text);

/// As publish_text without syncing, for records that nobody misses after a power failure.
[[nodiscard]] Status replace_text(const std::string& temp, const std::string& to,
                                  std::string_view text);

/// Makes `path` a symbolic link with exactly this target text, by a private link `temp` and rename,
/// so that no reader ever finds the name absent.
[[nodiscard]] Status publish_link(const std::string& temp, const std::string& path,
                                  const std::string& target);

/// Lets everybody run the file who may read it.
[[nodiscard]] Status make_executable(const Fd& fd, std::string_view path);

/// Makes `path`, a private name or a name in a private directory, a symbolic link to `target`.
[[nodiscard]] Status make_link(const std::string& path, const std::string& target);

/// fsync of a file, or of the names in a directory, that is open nowhere.
[[nodiscard]] Status sync_path(const std::string& path);

/// Publishes a private directory, whose contents are synced, as `to`, and syncs the directory that
/// has them. What is at `to` already is exchanged with it in one step and lies at `from` then;
/// where the file system cannot do that (NFS), it goes to the free private name `aside` first, and
/// for a moment nothing is at `to`. On failure `from` and `to` are as before.
[[nodiscard]] Status publish_directory(const std::string& from, const std::string& to,
                                       const std::string& aside);

/// Removes a private directory with all that is in it; links in it are not followed. Absence is
/// fine.
[[nodiscard]] Status remove_tree(const std::string& path);

/// Bytes that the files below `directory` take on the disk, as far as they can be seen; links are
/// not followed.
[[nodiscard]] std::uint64_t allocated_below(const std::string& directory);

/// Removes a file of our own; absence is fine, any other failure is ignored by callers on purpose
/// (an orphan is found later by pruning).
[[nodiscard]] Status remove_file(const std::string& path);

/// Free bytes for an unprivileged user; nullopt when the file system does not say (0 or nonsense).
[[nodiscard]] std::optional<std::uint64_t> free_bytes(const std::string& directory);
/// How many more files an unprivileged user may make there; nullopt when the file system does not
/// say, or has no such bound.
[[nodiscard]] std::optional<std::uint64_t> free_files(const std::string& directory);

/// Opens (creates) a lock file without truncation or O_EXCL: O_RDWR | O_CREAT | O_NOFOLLOW, of
/// `mode` whatever the umask says when we own it; a new one in a shared directory has it before it
/// has its name. Never waits for a FIFO or a device: what is not a
/// regular file is kPermission. Retries without O_CREAT where a sticky directory
/// refuses it for another user's file (fs.protected_regular), and read-only where that is all that
/// another user's file allows.
[[nodiscard]] Result<Opened> open_lock_file(const std::string& path, mode_t mode);

/// 8 random hex digits for private names.
[[nodiscard]] std::string random_tag();
/// `digits` random hex digits.
[[nodiscard]] std::string random_hex(std::size_t digits);

[[nodiscard]] std::string host_name();

}  // namespace fvprefetch::posix
