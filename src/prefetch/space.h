// Whether what is missing fits onto the disks that it goes to. Several caches may lie on one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace fvprefetch {

class SpaceCheck {
 public:
  /// What is known of the file system of a directory, or of the nearest one above it that is there.
  struct Place {
    std::optional<std::uint64_t> free;  ///< bytes; nullopt: it does not tell
    std::string device;                 ///< tells file systems apart
  };
  struct Answer {
    bool fits = false;  ///< it is counted then; meaningless where `free` is not known
    std::optional<std::uint64_t> free;
    std::uint64_t others = 0;  ///< bytes that were counted before on the same file system
    std::string device;
  };

  SpaceCheck();  ///< of the disks of this node
  explicit SpaceCheck(std::function<Place(const std::string&)> look) : look_(std::move(look)) {}

  /// `bytes` more go to `directory`. Each directory is looked at once.
  [[nodiscard]] Answer take(const std::string& directory, std::uint64_t bytes);

 private:
  std::function<Place(const std::string&)> look_;
  std::map<std::string, Place> known_;          ///< by directory
  std::map<std::string, std::uint64_t> taken_;  ///< by device
};

}  // namespace fvprefetch
