// How far an unfinished download has come, as anybody can see it: private to the two stores.
#pragma once

#include <cstdint>
#include <string>

namespace fvprefetch {

/// Size of the largest partial of `target_name` in `directory`; 0 when there is none.
[[nodiscard]] std::uint64_t largest_partial(const std::string& directory,
                                            const std::string& target_name);

}  // namespace fvprefetch
