// What a directory lies on: file system, mount, space, rights. For people to read: what a file
// system does is never concluded from its type.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fvprefetch/error.h"

namespace fvprefetch::posix {

struct Mount {
  std::string type;     ///< "nfs4", "ext4", "fuse.glusterfs"
  std::string source;   ///< what is mounted; an address without user and password
  std::string point;    ///< where
  std::string options;  ///< of the mount and of the file system, comma-separated, without secrets
};
/// The mount that `path` (absolute, links resolved) lies in, by the text of /proc/self/mountinfo.
[[nodiscard]] std::optional<Mount> mount_of(std::string_view mountinfo, std::string_view path);
/// The same of this process; nullopt when the system does not say.
[[nodiscard]] std::optional<Mount> mount_of(const std::string& path);

/// As statvfs() tells it; over a network that need not know of a quota.
struct Space {
  std::uint64_t bytes_total = 0;
  std::uint64_t bytes_free = 0;   ///< for an unprivileged user
  std::uint64_t files_total = 0;  ///< 0: not limited, or not told
  std::uint64_t files_free = 0;
  bool read_only = false;
};
[[nodiscard]] Result<Space> space_of(const std::string& path);

struct Rights {
  std::string mode;  ///< "drwxrwsr-x"
  std::uint64_t owner = 0;
  std::uint64_t group = 0;
  bool read = false;   ///< to list and to enter
  bool write = false;  ///< to make and remove names in it; false too on a read-only mount
};
/// Of this process in the directory `path`.
[[nodiscard]] Result<Rights> rights_in(const std::string& path);

}  // namespace fvprefetch::posix
