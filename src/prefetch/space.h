// Whether what is missing fits onto the disks that it goes to. Several caches may lie on one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "fvprefetch/error.h"

namespace fvprefetch {

class SpaceCheck {
 public:
  /// What is known of the file system of a directory, or of the nearest one above it that is there.
  struct Place {
    std::optional<std::uint64_t> free;  ///< bytes; nullopt: it does not tell
    std::string device;                 ///< tells file systems apart
    /// How many more it takes; nullopt: it does not tell.
    std::optional<std::uint64_t> free_files = std::nullopt;
  };
  struct Answer {
    bool fits = false;  ///< it is counted then; where `free` is not known: as far as files go
    std::optional<std::uint64_t> free;
    std::uint64_t others = 0;  ///< bytes that were counted before on the same file system
    std::string device;
    /// Set: there is room for the bytes, but not for so many files; it takes this many more.
    std::optional<std::uint64_t> free_files;
  };

  SpaceCheck();  ///< of the disks of this node
  explicit SpaceCheck(std::function<Place(const std::string&)> look) : look_(std::move(look)) {}

  /// `bytes` more go to `directory`, in at least so many new `files`. Each directory is looked at
  /// once.
  [[nodiscard]] Answer take(const std::string& directory, std::uint64_t bytes,
                            std::uint64_t files = 0);

 private:
  std::function<Place(const std::string&)> look_;
  std::map<std::string, Place> known_;          ///< by directory
  std::map<std::string, std::uint64_t> taken_;  ///< by device
  std::map<std::string, std::uint64_t> taken_files_;
};

/// `a` and `b` bytes, or the largest number where that is more.
[[nodiscard]] std::uint64_t add_sizes(std::uint64_t a, std::uint64_t b);

/// Of so many new files in `directory`, whose file system takes `free` more: kNoSpace.
[[nodiscard]] Error too_many_files(std::uint64_t files, const std::string& directory,
                                   std::uint64_t free);

}  // namespace fvprefetch
