// What a claim on a name is made of (cache/lease): to make a name that nobody else can make as
// well, to look at what lies there without following or waiting for anything, and to take it away.
//
// The calls give errno instead of an Error where the caller has to tell "somebody has it" from "not
// on this file system" and from "the answer was lost": over NFS a call may have worked though it
// says that it did not (open(2), O_EXCL; cluster-facts B2).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/posix.h"
#include "fvprefetch/error.h"

namespace fvprefetch::posix {

/// link(2) of the file `from` itself. 0 or errno.
[[nodiscard]] int hard_link(const std::string& from, const std::string& to);
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
