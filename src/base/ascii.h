// Letters of protocols and formats, which no locale changes.
#pragma once

#include <algorithm>
#include <string>

namespace fvprefetch {

/// A to Z as a to z; every other byte as it is.
[[nodiscard]] constexpr char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
[[nodiscard]] inline std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return lower(c); });
  return text;
}

}  // namespace fvprefetch
