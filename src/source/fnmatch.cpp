// Python's fnmatch.fnmatchcase: `*` and `?` match "/" and newlines too, `[seq]` and `[!seq]` as
// fnmatch.translate() reads them, nothing is an escape, and case counts. Characters are code
// points, as in Python; bytes that are not UTF-8 are characters of their own (surrogateescape).
#include "source/resolve.h"

#include <cstddef>
#include <string>
#include <string_view>

namespace fvprefetch {
namespace {

/// Length of the UTF-8 sequence at the start of `text`; 0 when it is none.
std::size_t sequence_length(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  std::size_t length = 0;
  if (first < 0x80) {
    length = 1;
  } else if ((first & 0xE0U) == 0xC0U) {
    length = 2;
  } else if ((first & 0xF0U) == 0xE0U) {
    length = 3;
  } else if ((first & 0xF8U) == 0xF0U) {
    length = 4;
  }
  if (length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U) return 0;
  }
  return length;
}

std::u32string code_points(std::string_view text) {
  std::u32string points;
  points.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    const auto first = static_cast<unsigned char>(text.front());
    if (length == 0) {
      points += static_cast<char32_t>(0xDC00U + first);
      text.remove_prefix(1);
      continue;
    }
    char32_t point = length == 1 ? first : first & (0x7FU >> length);
    for (std::size_t i = 1; i < length; ++i) {
      point = (point << 6U) | (static_cast<unsigned char>(text[i]) & 0x3FU);
    }
    points += point;
    text.remove_prefix(length);
  }
  return points;
}

/// The "]" that ends the set whose "[" is just before `begin`; npos when it is not closed, and then
/// the "[" stands for itself. A "]" at the start of the set is a member.
std::size_t set_end(std::u32string_view pattern, std::size_t begin) {
  std::size_t at = begin;
  if (at < pattern.size() && pattern[at] == U'!') ++at;
  if (at < pattern.size() && pattern[at] == U']') ++at;
  return pattern.find(U']', at);
}

bool set_matches(std::u32string_view set, char32_t point) {
  const bool negated = set.starts_with(U'!');
  if (negated) set.remove_prefix(1);
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (i + 2 < set.size() && set[i + 1] == U'-') {
      if (set[i] <= point && point <= set[i + 2]) return !negated;
      i += 2;
    } else if (set[i] == point) {
      return !negated;
    }
  }
  return negated;
}

}  // namespace

bool fnmatch(std::string_view pattern_text, std::string_view text_bytes) {
  const std::u32string pattern = code_points(pattern_text);
  const std::u32string text = code_points(text_bytes);
  constexpr std::size_t kNone = std::u32string::npos;
  std::size_t p = 0;
  std::size_t t = 0;
  // Where to go on when what follows the last `*` did not match: the star takes one more. Earlier
  // stars need no second look, so the whole takes at most pattern * text steps.
  std::size_t after_star = kNone;
  std::size_t star_text = 0;
  while (true) {
    bool matched = false;
    std::size_t next = p + 1;
    if (p < pattern.size() && pattern[p] == U'*') {
      after_star = next;
      star_text = t;
      p = next;
      continue;
    }
    if (p == pattern.size()) {
      if (t == text.size()) return true;
    } else if (t < text.size()) {
      if (pattern[p] == U'?') {
        matched = true;
      } else if (const std::size_t end = pattern[p] == U'[' ? set_end(pattern, p + 1) : kNone;
                 end != kNone) {
        matched = set_matches(std::u32string_view(pattern).substr(p + 1, end - p - 1), text[t]);
        next = end + 1;
      } else {
        matched = pattern[p] == text[t];
      }
    }
    if (matched) {
      p = next;
      ++t;
    } else if (after_star != kNone && star_text < text.size()) {
      p = after_star;
      t = ++star_text;
    } else {
      return false;
    }
  }
}

}  // namespace fvprefetch
