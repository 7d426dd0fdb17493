// UTF-8 as RFC 3629 has it, read character by character. Pure; any thread.
#pragma once

#include <cstddef>
#include <string_view>

namespace fvprefetch {

struct Utf8Character {
  char32_t character = 0;
  std::size_t length = 1;  ///< bytes
  bool valid = false;
};

/// The character that `text`, which is not empty, begins with: no longer form than needed, nothing
/// above U+10FFFF. Surrogates, which are no characters, are decoded like others. Not valid: one
/// byte that is not UTF-8, or the first of a character that is cut.
[[nodiscard]] Utf8Character decode_utf8(std::string_view text);

}  // namespace fvprefetch
