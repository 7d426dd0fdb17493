#include "prefetch/space.h"

#include <algorithm>

#include "base/posix.h"

namespace fvprefetch {
namespace {

SpaceCheck::Place look_at_disk(const std::string& directory) {
  const auto info = posix::stat(posix::existing_part(directory));
  return {posix::free_bytes(directory),
          info && *info ? std::to_string((*info)->device) : std::string()};
}

}  // namespace

SpaceCheck::SpaceCheck() : look_(look_at_disk) {}

SpaceCheck::Answer SpaceCheck::take(const std::string& directory, std::uint64_t bytes) {
  const auto [place, is_new] = known_.try_emplace(directory);
  if (is_new) place->second = look_(directory);
  Answer answer;
  answer.free = place->second.free;
  answer.device = place->second.device;
  if (!answer.free) return answer;
  std::uint64_t& taken = taken_[answer.device];
  answer.others = taken;
  answer.fits = bytes <= *answer.free - std::min(*answer.free, taken);
  if (answer.fits) taken += bytes;
  return answer;
}

}  // namespace fvprefetch
