// The one predicate for a path that somebody else chose (a manifest, a server) and that will be
// appended to a directory of ours. Pure; any thread.
#pragma once

#include <string_view>

namespace fvprefetch {

/// Why `path` must not be appended to a directory, as the end of a sentence ("has an empty
/// segment"); empty when it is safe: relative, no empty, "." or ".." segment (also between
/// backslashes, which some clients take for separators), no control character, no segment over
/// 255 bytes, at most 2,048 bytes in all.
[[nodiscard]] constexpr std::string_view relative_path_fault(std::string_view path) {
  constexpr std::size_t kLongestSegment = 255;  // NAME_MAX of every file system we met
  if (path.empty()) return "is empty";
  if (path.front() == '/') return "is absolute";
  constexpr std::size_t kLongest = 2048;  // PATH_MAX, with room for the directory before it
  if (path.size() > kLongest) return "has more than 2048 bytes";
  for (std::size_t i = 0; i < path.size(); ++i) {
    const auto byte = static_cast<unsigned char>(path[i]);
    // C1, too, which terminals take for escape sequences: in UTF-8 two bytes.
    const bool c1 = byte == 0xc2 && i + 1 < path.size() &&
                    static_cast<unsigned char>(path[i + 1]) >= 0x80 &&
                    static_cast<unsigned char>(path[i + 1]) < 0xa0;
    if (byte < 0x20 || byte == 0x7f || c1) return "has a control character";
  }
  std::size_t slash_start = 0;  // of the segment between slashes
  std::size_t part_start = 0;   // of the part between slashes or backslashes
  for (std::size_t i = 0; i <= path.size(); ++i) {
    const bool slash = i == path.size() || path[i] == '/';
    if (!slash && path[i] != '\\') continue;
    if (path.substr(part_start, i - part_start) == "..") return "has a \"..\" segment";
    part_start = i + 1;
    if (!slash) continue;
    const std::string_view segment = path.substr(slash_start, i - slash_start);
    if (segment.empty()) return "has an empty segment";
    if (segment == ".") return "has a \".\" segment";
    if (segment.size() > kLongestSegment) return "has a segment of more than 255 bytes";
    slash_start = i + 1;
  }
  return {};
}

}  // namespace fvprefetch
