// One look into a file that nothing vouches for: what others put into a cache before us, or left
// half-done.
#pragma once

#include <string>
#include <vector>

#include "prefetch/contents.h"

namespace fvprefetch {

struct Glance {
  bool gone = false;  ///< it is not there, whatever stat() tells (another node removed it)
  /// What is said of it, as by fault_of(); empty: nothing shows. Who may not read it learns nothing
  /// here.
  std::string fault;
};

/// Opens it once, and reads a few KiB (contents.h). Blocks on the disk.
[[nodiscard]] Glance glance(const std::string& path, const Asked& asked);

/// Whether it is a Git LFS pointer.
[[nodiscard]] bool is_pointer(const std::string& path);

/// What is wrong with a file or folder of the user's own, each as a sentence: what glance() finds,
/// of a folder in what looks like weights (the first hundred files, three levels deep), or that it
/// is empty.
[[nodiscard]] std::vector<std::string> faults_at_path(const std::string& path);

}  // namespace fvprefetch
