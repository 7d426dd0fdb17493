#include "prefetch/rejected.h"

namespace fvprefetch {

bool same_file(const posix::FileInfo& a, const posix::FileInfo& b) {
  return a.device == b.device && a.inode == b.inode && a.size == b.size && a.mtime_ns == b.mtime_ns;
}

void Rejected::add(const std::string& path, const posix::FileInfo& file) {
  files_.insert_or_assign(path, file);
}

bool Rejected::holds(const std::string& path) const {
  const auto known = files_.find(path);
  if (known == files_.end()) return false;
  const auto now = posix::stat(path);
  return now && *now && same_file(**now, known->second);
}

}  // namespace fvprefetch
