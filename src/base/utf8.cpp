#include "base/utf8.h"

namespace fvprefetch {

Utf8Character decode_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  std::size_t length = 0;
  char32_t character = 0;
  char32_t least = 0;
  if ((lead & 0xe0U) == 0xc0) {
    length = 2;
    character = lead & 0x1fU;
    least = 0x80;
  } else if ((lead & 0xf0U) == 0xe0) {
    length = 3;
    character = lead & 0x0fU;
    least = 0x800;
  } else if ((lead & 0xf8U) == 0xf0) {
    length = 4;
    character = lead & 0x07U;
    least = 0x10000;
  }
  if (length == 0 || length > text.size()) return {};
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return {};
    character = (character << 6U) | (byte(i) & 0x3fU);
  }
  constexpr char32_t kMost = 0x10ffff;
  if (character < least || character > kMost) return {};
  return {character, length, true};
}

}  // namespace fvprefetch
