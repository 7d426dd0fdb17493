// Numbers of file formats and of our own messages, lowest byte first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fvprefetch {

/// The number of `width` bytes (at most 8) at `offset`; `bytes` must have so many.
[[nodiscard]] constexpr std::uint64_t little_endian(std::string_view bytes, std::size_t offset,
                                                    std::size_t width) {
  std::uint64_t value = 0;
  for (std::size_t i = width; i-- > 0;) {
    value = (value << 8U) | static_cast<unsigned char>(bytes[offset + i]);
  }
  return value;
}

}  // namespace fvprefetch
