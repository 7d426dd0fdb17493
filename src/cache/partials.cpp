#include "cache/partials.h"

#include <algorithm>

#include "base/posix.h"
#include "cache/layout.h"

namespace fvprefetch {

std::uint64_t largest_partial(const std::string& directory, const std::string& target_name) {
  const auto names = posix::list(directory);
  std::uint64_t largest = 0;
  if (!names) return largest;  // only for people: what cannot be seen is not told
  for (const std::string& name : *names) {
    if (!layout::is_partial_of(name, target_name)) continue;
    const auto info = posix::stat(directory + "/" + name);
    if (info && *info) largest = std::max(largest, (*info)->size);
  }
  return largest;
}

}  // namespace fvprefetch
