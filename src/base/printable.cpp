#include "base/printable.h"

#include <array>
#include <cstdint>

#include "base/utf8.h"

namespace fvprefetch {
namespace {

struct Span {
  char32_t first;
  char32_t last;
};

constexpr std::array kUnprintable = {
    Span{0x00, 0x1f},        // C0
    Span{0x7f, 0x9f},        // DEL and C1
    Span{0x61c, 0x61c},      // Arabic letter mark
    Span{0x180e, 0x180e},    // Mongolian vowel separator
    Span{0x200b, 0x200b},    // zero width space
    Span{0x200e, 0x200f},    // marks of direction
    Span{0x2028, 0x202e},    // separators of lines and paragraphs; embeddings, overrides
    Span{0x2060, 0x206f},    // invisible operators, isolates
    Span{0xd800, 0xdfff},    // surrogates
    Span{0xfdd0, 0xfdef},    // noncharacters
    Span{0xfeff, 0xfeff},    // byte order mark
    Span{0xfff0, 0xfffb},    // annotations
    Span{0xfffe, 0xffff},    // noncharacters
    Span{0xe0000, 0xe0fff},  // tags
};

constexpr std::string_view kDigits = "0123456789abcdef";

void append_hex(std::string& out, std::string_view bytes) {
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    out.append("\\x").append(1, kDigits[byte >> 4U]).append(1, kDigits[byte & 0xfU]);
  }
}

void append_utf16(std::string& out, std::uint32_t unit) {
  out += "\\u";
  for (const unsigned shift : {12U, 8U, 4U, 0U}) out += kDigits[(unit >> shift) & 0xfU];
}

// Copies `text`; `escape` is called with `out`, the character and its bytes for each that is not
// printable.
template <typename Escape>
std::string copy(std::string_view text, Escape escape) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Character next = decode_utf8(text);
    const std::string_view bytes = text.substr(0, next.length);
    if (next.valid && is_printable(next.character)) {
      out += bytes;
    } else {
      escape(out, next, bytes);
    }
    text.remove_prefix(next.length);
  }
  return out;
}

}  // namespace

bool is_printable(char32_t character) {
  constexpr char32_t kLow = 0xffff;
  if ((character & kLow) >= 0xfffe || character > 0x10ffff) return false;
  for (const Span& span : kUnprintable) {
    if (character >= span.first && character <= span.last) return false;
  }
  return true;
}

bool is_printable(std::string_view text) {
  while (!text.empty()) {
    const Utf8Character next = decode_utf8(text);
    if (!next.valid || !is_printable(next.character)) return false;
    text.remove_prefix(next.length);
  }
  return true;
}

std::string escaped(std::string_view text) {
  return copy(text, [](std::string& out, const Utf8Character& /*next*/, std::string_view bytes) {
    if (bytes == "\n") {
      out += "\\n";
    } else if (bytes == "\t") {
      out += "\\t";
    } else {
      append_hex(out, bytes);
    }
  });
}

std::string escaped_lines(std::string_view text) {
  return copy(text, [](std::string& out, const Utf8Character& /*next*/, std::string_view bytes) {
    if (bytes == "\n" || bytes == "\t") {
      out += bytes;
    } else {
      append_hex(out, bytes);
    }
  });
}

std::string escaped_json(std::string_view document) {
  return copy(document, [](std::string& out, const Utf8Character& next, std::string_view bytes) {
    constexpr char32_t kBeyond = 0x10000;
    if (!next.valid) {
      append_utf16(out, 0xfffd);  // the replacement character
    } else if (next.character < 0x20) {
      out += bytes;  // between values: within strings a writer of JSON has escaped it
    } else if (next.character < kBeyond) {
      append_utf16(out, next.character);
    } else {
      append_utf16(out, 0xd800U + ((next.character - kBeyond) >> 10U));
      append_utf16(out, 0xdc00U + ((next.character - kBeyond) & 0x3ffU));
    }
  });
}

}  // namespace fvprefetch
