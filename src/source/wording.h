// Small helpers for messages about other people's text. Pure; any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace fvprefetch {

/// `text` fit for one line of a message: escaped (base/printable.h), the middle of a long one cut.
[[nodiscard]] std::string printable(std::string_view text);

/// The one of `known` that `word` was most likely meant to be; "" when none is near.
[[nodiscard]] std::string_view nearest(std::string_view word,
                                       std::span<const std::string_view> known);

}  // namespace fvprefetch
