// Unfinished downloads of a target, as anybody can see them: private to the two stores.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fvprefetch {

/// Bytes of the largest partial of `target_name` in `directory`; 0 when there is none. What has not
/// been written yet does not count, though bytes behind it may have been.
[[nodiscard]] std::uint64_t largest_partial(const std::string& directory,
                                            const std::string& target_name);

/// Tags of the partials of `stem` that have a journal in the directory `journals`; the others
/// cannot be gone on with. (The journals of a cache are few, the files beside a target may be
/// thousands.)
[[nodiscard]] std::vector<std::string> journal_tags(const std::string& journals,
                                                    const std::string& stem);

}  // namespace fvprefetch
