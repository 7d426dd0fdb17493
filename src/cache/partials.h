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

/// Tags of our own partials of `target_name` in `directory`.
[[nodiscard]] std::vector<std::string> partial_tags(const std::string& directory,
                                                    const std::string& target_name);

}  // namespace fvprefetch
