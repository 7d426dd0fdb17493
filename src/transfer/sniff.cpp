#include "transfer/sniff.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>

#include "base/ascii.h"
#include "base/printable.h"
#include "base/utf8.h"

namespace fvprefetch {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";

// `prefix` is lower case.
bool begins_with(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(),
                    [](char want, char have) { return want == lower(have); });
}

void skip_space(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
}

// --- text or not ---------------------------------------------------------------------------------

bool is_control(std::uint32_t c) {
  constexpr std::string_view kInText = "\t\n\v\f\r\x1b";  // ESC: ISO-2022-JP
  if (c < 0x20) return kInText.find(static_cast<char>(c)) == std::string_view::npos;
  return c == 0x7f;
}

void append_utf8(std::string& text, std::uint32_t c) {
  const auto byte = [&text](std::uint32_t value) { text += static_cast<char>(value); };
  if (c < 0x80) {
    byte(c);
  } else if (c < 0x800) {
    byte(0xC0U | (c >> 6U));
    byte(0x80U | (c & 0x3FU));
  } else if (c < 0x10000) {
    byte(0xE0U | (c >> 12U));
    byte(0x80U | ((c >> 6U) & 0x3FU));
    byte(0x80U | (c & 0x3FU));
  } else {
    byte(0xF0U | (c >> 18U));
    byte(0x80U | ((c >> 12U) & 0x3FU));
    byte(0x80U | ((c >> 6U) & 0x3FU));
    byte(0x80U | (c & 0x3FU));
  }
}

// The next character of UTF-8, taken from `text`; nullopt where it is not UTF-8, or cut there.
std::optional<std::uint32_t> next_utf8(std::string_view& text) {
  const Utf8Character next = decode_utf8(text);
  if (!next.valid || (next.character >= 0xD800 && next.character < 0xE000)) return std::nullopt;
  text.remove_prefix(next.length);
  return next.character;
}

// A letter of several bytes that ends too early.
bool is_cut_letter(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  return first >= 0xC2 && first <= 0xF4 && text.size() < length &&
         std::all_of(text.begin() + 1, text.end(),
                     [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; });
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    if (!next_utf8(text)) return is_cut_letter(text);
  }
  return true;
}

// UTF-16 (`width` 2) or UTF-32 (4) as UTF-8; nullopt where it is none, or no text.
std::optional<std::string> narrowed(std::string_view bytes, std::size_t width, bool little) {
  std::string text;
  std::uint32_t high = 0;  // the first half of a pair
  for (; bytes.size() >= width; bytes.remove_prefix(width)) {
    std::uint32_t c = 0;
    for (std::size_t i = 0; i < width; ++i) {
      c = (c << 8U) | static_cast<unsigned char>(bytes[little ? width - 1 - i : i]);
    }
    if (width == 2 && c >= 0xD800 && c < 0xDC00 && high == 0) {
      high = c;
      continue;
    }
    const bool is_low = c >= 0xDC00 && c < 0xE000;
    if (is_low != (high != 0)) return std::nullopt;
    if (is_low) c = 0x10000 + ((high - 0xD800) << 10U) + (c - 0xDC00);
    high = 0;
    if (is_control(c) || (c >= 0xD800 && c < 0xE000) || c > 0x10FFFF) return std::nullopt;
    append_utf8(text, c);
  }
  return text;
}

struct Wide {
  std::string_view mark;  // byte order mark
  std::size_t width;
  bool little;
};
constexpr std::array<Wide, 4> kWides = {{{{"\xFF\xFE\0\0", 4}, 4, true},
                                         {{"\0\0\xFE\xFF", 4}, 4, false},
                                         {{"\xFF\xFE", 2}, 2, true},
                                         {{"\xFE\xFF", 2}, 2, false}}};

// Without a byte order mark: every page and every error begins with ASCII, of which all bytes but
// one of each unit are 0. So much of it that no header of numbers looks like that.
bool begins_wide(std::string_view bytes, const Wide& wide) {
  constexpr std::size_t kUnits = 8;
  if (bytes.size() < kUnits * wide.width) return false;
  for (std::size_t i = 0; i < kUnits * wide.width; ++i) {
    const bool is_letter = i % wide.width == (wide.little ? 0 : wide.width - 1);
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (is_letter ? byte == 0 || byte >= 0x80 || is_control(byte) : byte != 0) return false;
  }
  return true;
}

// The text without byte order mark, as UTF-8 where it was wider; nullopt for what is not text. Text
// in another charset of bytes (Latin-1, Shift-JIS) stays as it is.
std::optional<std::string> as_text(std::string_view bytes) {
  for (const Wide& wide : kWides) {
    if (!bytes.starts_with(wide.mark)) continue;
    auto text = narrowed(bytes.substr(wide.mark.size()), wide.width, wide.little);
    if (text && !text->empty()) return text;
  }
  for (const Wide& wide : kWides) {
    if (begins_wide(bytes, wide)) return narrowed(bytes, wide.width, wide.little);
  }
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (bytes.starts_with(kByteOrderMark)) bytes.remove_prefix(kByteOrderMark.size());
  std::size_t ascii = 0;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (is_control(byte)) return std::nullopt;
    if (byte < 0x80) ++ascii;
  }
  // Of weights a byte in nine is a control character, so a few hundred without any are text;
  // a few could be chance.
  constexpr std::size_t kEnough = 256;
  const bool is_text = is_utf8(bytes) || (bytes.size() >= kEnough && ascii >= bytes.size() / 4);
  return is_text ? std::optional<std::string>(bytes) : std::nullopt;
}

// --- pickles of protocol 0, the one kind of weights that is text
// -----------------------------------

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789+-.eEinfaL") == std::string_view::npos;
}

bool is_dotted_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    const char l = lower(c);
    return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
  });
}

// The operations of a pickle, one after the other, to its end or to where the beginning is cut.
bool is_text_pickle(std::string_view text) {
  constexpr std::string_view kFirst = "(cILFSV])}";
  constexpr std::string_view kWithoutArgument = "()]}.012NRabdelostu";
  if (text.empty() || kFirst.find(text.front()) == std::string_view::npos) return false;
  const bool is_cut = text.size() >= kSniffBytes - 3;  // without a byte order mark
  bool cut_here = false;
  const auto line = [&] {
    const std::size_t end = text.find('\n');
    cut_here = end == std::string_view::npos;
    const std::string_view argument = text.substr(0, end);
    text.remove_prefix(cut_here ? text.size() : end + 1);
    return argument;
  };
  for (std::size_t operations = 1; !text.empty(); ++operations) {
    const char operation = text.front();
    text.remove_prefix(1);
    std::string_view argument;
    bool right = true;
    switch (operation) {
      case 'c':
      case 'i':
        argument = line();
        right = is_dotted_name(argument);
        if (!cut_here) {
          argument = line();
          right = right && is_dotted_name(argument);
        }
        break;
      case 'I':
      case 'L':
      case 'F':
      case 'p':
      case 'g':
        argument = line();
        right = is_number(argument);
        break;
      case 'S':
        argument = line();
        right = argument.starts_with('\'') || argument.starts_with('"');
        break;
      case 'V':
      case 'P':
        (void)line();
        break;
      default:
        right = kWithoutArgument.find(operation) != std::string_view::npos;
    }
    if (cut_here) return is_cut && operations > 1;
    if (!right) return false;
    if (operation == '.') return operations > 1;
  }
  return is_cut;
}

// --- which text ----------------------------------------------------------------------------------

bool is_pointer(std::string_view text) {
  return text.starts_with("version https://git-lfs.github.com/spec/") ||
         text.starts_with("version https://hawser.github.com/spec/");
}

// Without comments, declarations and blanks in front.
std::string_view first_element(std::string_view text) {
  for (;;) {
    skip_space(text);
    const std::string_view end = text.starts_with("<!--") ? "-->"
                                 : text.starts_with("<?") ? "?>"
                                                          : std::string_view();
    if (end.empty()) return text;
    const std::size_t found = text.find(end);
    if (found == std::string_view::npos) return {};  // it is longer than what is looked at
    text.remove_prefix(found + end.size());
  }
}

// An element of this name, or what looks like its beginning.
bool is_element(std::string_view text, std::string_view name) {
  if (!text.starts_with('<') || !begins_with(text.substr(1), name)) return false;
  text.remove_prefix(1 + name.size());
  return text.empty() || kSpace.find(text.front()) != std::string_view::npos ||
         text.front() == '>' || text.front() == '/';
}

bool is_page(std::string_view text) {
  const std::string_view element = first_element(text);
  if (begins_with(element, "<!doctype html")) return true;
  constexpr auto kNames =
      std::to_array<std::string_view>({"html", "head", "body", "script", "meta", "title", "style",
                                       "link", "center", "h1", "noscript", "error"});
  return std::any_of(kNames.begin(), kNames.end(),
                     [element](std::string_view name) { return is_element(element, name); });
}

// A tag anywhere.
bool has_tag(std::string_view text) {
  for (std::size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at + 1)) {
    const char next = at + 1 < text.size() ? lower(text[at + 1]) : ' ';
    if ((next >= 'a' && next <= 'z') || next == '/' || next == '!') return true;
  }
  return false;
}

// The essence of a Content-Type, lower case.
std::string media_type(std::string_view content_type) {
  content_type = content_type.substr(0, content_type.find(';'));
  std::string type;
  for (const char c : content_type) {
    if (kSpace.find(c) == std::string_view::npos) type += lower(c);
  }
  return type;
}

std::string_view suffix_of(std::string_view path) {
  path = path.substr(path.find_last_of('/') + 1);  // npos + 1 is 0
  const std::size_t dot = path.find_last_of('.');
  return dot == std::string_view::npos || dot == 0 ? std::string_view() : path.substr(dot);
}

std::string_view without_query(std::string_view address) {
  return address.substr(0, address.find_first_of("?#"));
}

bool is_one_of(std::string_view suffix, std::span<const std::string_view> known) {
  return std::any_of(known.begin(), known.end(), [suffix](std::string_view one) {
    return suffix.size() == one.size() && begins_with(suffix, one);
  });
}

std::optional<Wanted> wanted_by(std::string_view suffix) {
  constexpr auto kPages = std::to_array<std::string_view>(
      {".html", ".htm", ".xhtml", ".md", ".markdown", ".txt", ".xml", ".svg"});
  // What is written in one of these formats is never text (pickles are looked at).
  constexpr auto kWeights = std::to_array<std::string_view>(
      {".pth",     ".pt",        ".pt2",     ".ptl",  ".th",     ".bin",         ".safetensors",
       ".ckpt",    ".onnx",      ".ort",     ".npz",  ".npy",    ".gguf",        ".ggml",
       ".h5",      ".hdf5",      ".keras",   ".pkl",  ".pickle", ".joblib",      ".msgpack",
       ".pb",      ".tflite",    ".mlmodel", ".nemo", ".mar",    ".pdparams",    ".pdopt",
       ".weights", ".onnx_data", ".engine",  ".trt",  ".jit",    ".mat",         ".caffemodel",
       ".tar",     ".tgz",       ".tbz",     ".tbz2", ".txz",    ".tzst",        ".zip",
       ".gz",      ".bz2",       ".xz",      ".zst",  ".lz4",    ".7z",          ".rar",
       ".whl",     ".parquet",   ".arrow",   ".npk",  ".flax",   ".torchscript", ".png",
       ".jpg",     ".jpeg",      ".mp4",     ".avi",  ".webm",   ".wav",         ".flac"});
  if (is_one_of(suffix, kPages)) return Wanted::kPage;
  if (is_one_of(suffix, kWeights)) return Wanted::kWeights;
  return std::nullopt;
}

// So much of the text as fits a line, blanks as one, without what would not be printed as it is.
std::string quoted(std::string_view text) {
  constexpr std::size_t kMost = 80;
  std::string out;
  std::size_t letters = 0;
  bool blank = false;
  while (!text.empty() && letters < kMost) {
    std::string_view rest = text;
    const std::optional<std::uint32_t> c = next_utf8(rest);
    const bool is_blank = c && *c < 0x80 && kSpace.find(static_cast<char>(*c)) != kSpace.npos;
    if (is_blank) {
      blank = !out.empty();
    } else {
      if (blank) out += ' ';
      blank = false;
      if (c && is_printable(static_cast<char32_t>(*c))) {
        append_utf8(out, *c);
      } else {
        out += '?';
      }
      ++letters;
    }
    text.remove_prefix(c ? text.size() - rest.size() : 1);
  }
  if (!text.empty()) out += "...";
  return out;
}

}  // namespace

std::string telling_suffix(std::string_view path, std::string_view address) {
  std::string_view suffix = suffix_of(path);
  if (!wanted_by(suffix)) suffix = suffix_of(without_query(address));
  std::string telling;
  if (wanted_by(suffix))
    std::transform(suffix.begin(), suffix.end(), std::back_inserter(telling),
                   [](char c) { return lower(c); });
  return telling;
}

Wanted wanted_as(std::string_view path, std::string_view address) {
  return wanted_by(telling_suffix(path, address)).value_or(Wanted::kAnything);
}

Impostor sniff(std::string_view beginning, std::string_view content_type) {
  if (beginning.empty()) return Impostor::kEmpty;
  const std::optional<std::string> decoded = as_text(beginning);
  if (!decoded) return Impostor::kNone;
  std::string_view text = *decoded;
  skip_space(text);
  if (is_pointer(text)) return Impostor::kLfsPointer;
  if (is_page(text)) return Impostor::kPage;
  if (is_text_pickle(*decoded)) return Impostor::kNone;
  const std::string type = media_type(content_type);
  const bool is_html = type == "text/html" || type == "application/xhtml+xml";
  if (is_html && has_tag(text)) return Impostor::kPage;
  if (text.starts_with('<')) return Impostor::kXml;
  if (text.starts_with('{') || text.starts_with('[') || type == "application/json") {
    return Impostor::kJson;
  }
  return Impostor::kText;
}

bool may_be(Impostor impostor, Wanted wanted) {
  switch (impostor) {
    case Impostor::kNone:
      return true;
    case Impostor::kLfsPointer:
      return false;  // whatever the name: vocabularies (.txt) lie in LFS as well
    case Impostor::kPage:
      return wanted == Wanted::kPage;
    case Impostor::kEmpty:
    case Impostor::kXml:
    case Impostor::kJson:
    case Impostor::kText:
      return wanted != Wanted::kWeights;
  }
  return true;
}

std::string describe(Impostor impostor, std::string_view beginning) {
  std::string what;
  switch (impostor) {
    case Impostor::kNone:
      return {};
    case Impostor::kEmpty:
      return "an empty file";
    case Impostor::kLfsPointer:
      return "a Git LFS pointer";
    case Impostor::kPage:
      what = "an HTML page";
      break;
    case Impostor::kXml:
      what = "an XML document";
      break;
    case Impostor::kJson:
      what = "JSON";
      break;
    case Impostor::kText:
      what = "plain text";
      break;
  }
  const std::string text = as_text(beginning).value_or(std::string());
  if (impostor == Impostor::kPage && is_element(first_element(text), "error")) {
    what = "the error of an object store";
  }
  const std::string words = quoted(text);
  return words.empty() ? what : what + ", which begins `" + words + "`";
}

std::string_view hint(Impostor impostor, std::string_view address) {
  switch (impostor) {
    case Impostor::kNone:
      return {};
    case Impostor::kEmpty:
      return "there is nothing at this address: see where the file has gone to";
    case Impostor::kLfsPointer:
      return "use the address that serves the file itself (`/resolve/` on the Hub, media on "
             "GitHub)";
    case Impostor::kPage:
      if (without_query(address).find("/blob/") != std::string_view::npos) {
        return "this is the address of the file's page; the file itself is at `/resolve/` (Hub) "
               "or `/raw/` (GitHub) in place of `/blob/`";
      }
      return "open the address in a browser: a login, a licence or a proxy of this site may answer "
             "in place of the server";
    case Impostor::kXml:
    case Impostor::kJson:
    case Impostor::kText:
      return "weights are never text: its words may say what the server wants (another address, a "
             "login, some patience); if this is the file all the same, pin it by `sha256`";
  }
  return {};
}

}  // namespace fvprefetch
