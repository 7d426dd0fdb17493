// Files that verify found to be wrong. To the run that repairs them they are as good as absent: no
// receipt and no right size speaks for them, until another file lies at the path.
#pragma once

#include <map>
#include <string>

#include "base/posix.h"

namespace fvprefetch {

/// Whether two looks saw one file. Tells what changes when a name is given to another file, or the
/// file is written to.
[[nodiscard]] bool same_file(const posix::FileInfo& a, const posix::FileInfo& b);

class Rejected {
 public:
  /// `file` is what `path` led to when it was found wrong.
  void add(const std::string& path, const posix::FileInfo& file);
  /// `path` still leads to the file that was found wrong. Looks at the disk for known paths only.
  [[nodiscard]] bool holds(const std::string& path) const;

 private:
  std::map<std::string, posix::FileInfo> files_;
};

}  // namespace fvprefetch
