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
    if (info && *info) {
      // Several connections write each at its own place: the size alone is soon that of the whole.
      largest = std::max(largest, std::min((*info)->size, (*info)->allocated));
    }
  }
  return largest;
}

const std::vector<std::string>& JournalNames::in(const std::string& directory) {
  const auto [known, is_new] = names_.try_emplace(directory);
  if (is_new) {
    auto names = posix::list(directory);
    if (names) known->second = *std::move(names);  // what cannot be seen cannot be gone on with
  }
  return known->second;
}

std::vector<std::string> journal_tags(const std::string& journals, const std::string& stem,
                                      JournalNames& names) {
  std::vector<std::string> tags;
  for (const std::string& name : names.in(journals)) {
    if (const auto tag = layout::journal_tag(name, stem); !tag.empty()) tags.emplace_back(tag);
  }
  return tags;
}

}  // namespace fvprefetch
