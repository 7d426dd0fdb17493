// One look into a file that nothing vouches for: what others put into a cache before us, or left
// half-done.
#pragma once

#include <string>
#include <vector>

#include "base/digest.h"
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

/// What fault_of() says of it, which is not all that glance() finds; empty where it cannot be read.
[[nodiscard]] std::string contents_fault(const std::string& path, const Asked& asked);

/// Whether it is a Git LFS pointer.
[[nodiscard]] bool is_pointer(const std::string& path);

/// What is wrong with a file or folder of the user's own, each as a sentence: what glance() finds,
/// of a folder in what looks like weights (the first hundred files), pointers, links that lead
/// nowhere, or that there is no file in it. Looks at 10,000 names at most, and ends when
/// `must_stop` says so, which may be empty.
[[nodiscard]] std::vector<std::string> faults_at_path(const PathSource& source,
                                                      const StopCheck& must_stop);

/// The same of a folder that something was unpacked into.
[[nodiscard]] std::vector<std::string> faults_in_folder(const std::string& folder,
                                                        const StopCheck& must_stop);

}  // namespace fvprefetch
