// What a claim on a name is made of (cache/lease): to make a name that nobody else can make as
// well, to look at what lies there without following or waiting for anything, and to take it away.
//
// The calls give errno instead of an Error where the caller has to tell "somebody has it" from "not
// on this file system" and from "the answer was lost": over NFS a call may have worked though it
// says that it did not (open(2), O_EXCL; cluster-facts B2).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/posix.h"
#include "fvprefetch/error.h"

namespace fvprefetch::posix {

/// link(2) of the file `from` itself. 0 or errno.
[[nodiscard]] int hard_link(const std::string& from, const std::string& to);

/// What a try to make one more name of a file, which one process alone can make, has come to.
struct LinkClaim {
  enum class Outcome {
    kMade,     ///< the name is the file's
    kTaken,    ///< something else is at the name, or came between
    kNoLinks,  ///< hard links do not work here, and nothing of ours is at the name
    kNoFile    ///< the file itself has gone
  };
  Outcome outcome = Outcome::kTaken;
  int error = 0;        ///< kNoLinks: errno; 0: links are made, with inode numbers of their own
  bool counted = true;  ///< kMade: the link count of the file shows it
};
/// link(`path`, `name`), where `fd` is `path` and open. link() is not believed: over NFS its answer
/// may be lost, and many FUSE file systems number inodes by path. There the new name is another
/// file for everything that asks the kernel, so it is removed again and counts as kNoLinks.
/// `is_ours` tells by the first `limit` bytes of a file whether it is this one. Errors: `fd` or
/// `name` cannot be looked at.
[[nodiscard]] Result<LinkClaim> claim_by_link(
    const Fd& fd, const std::string& path, const std::string& name, std::size_t limit,
    const std::function<bool(const std::string&)>& is_ours);
/// mkdir(2), with the bits that a shared directory hands down. 0 or errno.
[[nodiscard]] int make_directory(const std::string& path);
/// rmdir(2). 0 or errno.
int remove_directory(const std::string& path);

/// Lets everybody read a file of ours; best effort.
void make_readable(const Fd& fd);

/// What lies at a name.
struct Peek {
  FileInfo info;     ///< of the name itself: a symbolic link is not followed
  std::string text;  ///< of a regular file that may be read: the first bytes
};
/// Looks at `path`, on NFS past the client's memory of it. nullopt: nothing there. Never waits for
/// a FIFO or a device. At most `limit` bytes of text.
[[nodiscard]] Result<std::optional<Peek>> peek(const std::string& path, std::size_t limit);

}  // namespace fvprefetch::posix
