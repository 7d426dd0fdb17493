#include "prefetch/space.h"

#include <algorithm>
#include <limits>

#include "base/posix.h"

namespace fvprefetch {
namespace {

SpaceCheck::Place look_at_disk(const std::string& directory) {
  const auto info = posix::stat(posix::existing_part(directory));
  // A mount of rclone says that none of its inodes is free, and makes files all the same. Where
  // that is true the first file tells.
  auto files = posix::free_files(directory);
  if (files == 0) files.reset();
  return {posix::free_bytes(directory),
          info && *info ? std::to_string((*info)->device) : std::string(), files};
}

}  // namespace

SpaceCheck::SpaceCheck() : look_(look_at_disk) {}

SpaceCheck::Answer SpaceCheck::take(const std::string& directory, std::uint64_t bytes,
                                    std::uint64_t files) {
  const auto [place, is_new] = known_.try_emplace(directory);
  if (is_new) place->second = look_(directory);
  const Place& there = place->second;
  Answer answer;
  answer.free = there.free;
  answer.device = there.device;
  std::uint64_t& taken_files = taken_files_[there.device];
  const bool files_fit =
      !there.free_files || files <= *there.free_files - std::min(*there.free_files, taken_files);
  std::uint64_t& taken = taken_[there.device];
  answer.others = taken;
  const std::uint64_t free = there.free.value_or(std::numeric_limits<std::uint64_t>::max());
  answer.fits = bytes <= free - std::min(free, taken);
  if (answer.fits && !files_fit) {
    answer.fits = false;
    answer.free_files = there.free_files;
  }
  if (answer.fits) {
    taken = add_sizes(taken, bytes);
    taken_files = add_sizes(taken_files, files);
  }
  return answer;
}

std::uint64_t add_sizes(std::uint64_t a, std::uint64_t b) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  return a > kMost - b ? kMost : a + b;
}

Error too_many_files(std::uint64_t files, const std::string& directory, std::uint64_t free) {
  return fail(ErrorCode::kNoSpace,
              "what is missing is " + std::to_string(files) + " new files or more, and " +
                  "the file system of " + directory + " has inodes for " + std::to_string(free),
              "remove files there (`df -i` counts them), or choose another place with --cache-dir "
              "or --hf-cache-dir; --no-space-check begins all the same")
      .value();
}

}  // namespace fvprefetch
