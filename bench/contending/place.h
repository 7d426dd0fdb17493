// Where was measured: what a figure is worth nothing without. No names of hosts, users or folders:
// the files may be published.
#pragma once

#include <string>

namespace fvprefetch::contending {

struct Place {
  std::string file_system;  ///< "ext4", "nfs4", "fuse.glusterfs"
  std::string options;      ///< of the mount, without those that name paths and addresses
  std::string processor;
  int cores = 0;
  std::string kernel;
};

[[nodiscard]] Place place_of(const std::string& folder);

}  // namespace fvprefetch::contending
