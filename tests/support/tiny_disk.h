// A file system of 1 MiB and 1024 files, to find out what happens when it is full. Linux only, and
// only where a test may mount (root in CI does): where it may not, the test fails and says so,
// since a full disk is nothing to leave untested.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "support/temp_dir.h"

namespace fvprefetch::testing {

class TinyDisk {
 public:
  TinyDisk() {
    // In a mount namespace of this process: the kernel takes the mount away however the test ends.
    const bool mounted =
        ::unshare(CLONE_NEWNS) == 0 &&
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        ::mount("tmpfs", dir_.path().c_str(), "tmpfs", 0, "size=1m,nr_inodes=1024,mode=0755") == 0;
    if (!mounted) ADD_FAILURE() << "cannot mount a small tmpfs: " << std::strerror(errno);
  }
  TinyDisk(const TinyDisk&) = delete;
  TinyDisk& operator=(const TinyDisk&) = delete;
  ~TinyDisk() { (void)::umount2(dir_.path().c_str(), MNT_DETACH); }

  [[nodiscard]] const TempDir& dir() const { return dir_; }

  /// Takes every byte that is free.
  void fill() const {
    std::ofstream file(dir_ / "filler", std::ios::binary);
    const std::string page(4096, 'f');
    while (file << page << std::flush) {
    }
  }
  /// Takes every inode that is free: then not even a directory can be made.
  void take_all_inodes() const {
    for (int i = 0; std::ofstream(dir_ / ("name" + std::to_string(i))); ++i) {
    }
  }

 private:
  TempDir dir_;
};

}  // namespace fvprefetch::testing
