#include "base/mount.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/posix.h"
#include "base/try.h"
#include "base/url.h"

namespace fvprefetch::posix {
namespace {

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// "\040" is a blank, as the kernel writes it.
std::string unescape(std::string_view text) {
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      out +=
          static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + text[i + 3] - '0');
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool lies_in(std::string_view path, std::string_view point) {
  if (point == "/") return path.starts_with('/');
  return path.starts_with(point) && (path.size() == point.size() || path[point.size()] == '/');
}

bool is_secret(std::string_view option) {
  const std::string_view key = option.substr(0, option.find('='));
  return key.find("pass") != std::string_view::npos ||
         key.find("secret") != std::string_view::npos ||
         key.find("cred") != std::string_view::npos || key.find("key") != std::string_view::npos;
}

// Those of the mount win: "ro" of a mount whose file system is "rw".
std::string merge(std::string_view of_mount, std::string_view of_file_system) {
  std::vector<std::string_view> all = split(of_mount, ',');
  for (const std::string_view option : split(of_file_system, ',')) {
    const bool known = std::find(all.begin(), all.end(), option) != all.end();
    if (!known && option != "rw" && option != "ro") all.push_back(option);
  }
  std::string out;
  for (const std::string_view option : all) {
    if (option.empty() || is_secret(option)) continue;
    out += (out.empty() ? "" : ",") + unescape(option);
  }
  return out;
}

}  // namespace

std::optional<Mount> mount_of(std::string_view mountinfo, std::string_view path) {
  // 36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/root rw,errors=continue
  constexpr std::size_t kPoint = 4;
  constexpr std::size_t kOptions = 5;
  std::optional<Mount> found;
  for (const std::string_view line : split(mountinfo, '\n')) {
    const auto fields = split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() <= kOptions || fields.end() - dash < 4) continue;
    std::string point = unescape(fields[kPoint]);
    // Of two mounts on one point the later one is seen.
    if (!lies_in(path, point) || (found && point.size() < found->point.size())) continue;
    Mount mount;
    mount.type = *(dash + 1);
    mount.source = unescape(*(dash + 2));
    if (mount.source.find("://") != std::string::npos) mount.source = redact(mount.source);
    mount.options = merge(fields[kOptions], *(dash + 3));
    mount.point = std::move(point);
    found = std::move(mount);
  }
  return found;
}

std::optional<Mount> mount_of(const std::string& path) {
  const auto text = read_small("/proc/self/mountinfo");
  if (!text || !*text) return std::nullopt;
  return mount_of(**text, path);
}

Result<Space> space_of(const std::string& path) {
  struct ::statvfs told {};
  while (::statvfs(path.c_str(), &told) != 0) {
    if (errno != EINTR) return fail(errno_error(errno, "ask for the space of", path));
  }
  const std::uint64_t unit = told.f_frsize != 0 ? told.f_frsize : told.f_bsize;
  Space space;
  space.bytes_total = told.f_blocks * unit;
  space.bytes_free = told.f_bavail * unit;
  space.files_total = told.f_files;
  space.files_free = told.f_favail;
  space.read_only = (told.f_flag & ST_RDONLY) != 0;
  return space;
}

Result<Rights> rights_in(const std::string& path) {
  struct ::stat told {};
  if (::stat(path.c_str(), &told) != 0) return fail(errno_error(errno, "look at", path));
  Rights rights;
  constexpr std::string_view kLetters = "rwxrwxrwx";
  rights.mode = S_ISDIR(told.st_mode) ? "d" : "-";
  for (std::size_t i = 0; i < kLetters.size(); ++i) {
    rights.mode += (told.st_mode & (0400U >> i)) != 0 ? kLetters[i] : '-';
  }
  const auto special = [&](unsigned bit, std::size_t at, char with, char without) {
    if ((told.st_mode & bit) != 0) rights.mode[at] = rights.mode[at] == 'x' ? with : without;
  };
  special(S_ISUID, 3, 's', 'S');
  special(S_ISGID, 6, 's', 'S');
  special(S_ISVTX, 9, 't', 'T');
  rights.owner = told.st_uid;
  rights.group = told.st_gid;
  const auto may = [&](int what) {
    return ::faccessat(AT_FDCWD, path.c_str(), what, AT_EACCESS) == 0;
  };
  rights.read = may(R_OK | X_OK);
  rights.write = may(W_OK | X_OK);
  return rights;
}

}  // namespace fvprefetch::posix
