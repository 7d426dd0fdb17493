#include "transfer/sniff.h"

#include <zlib.h>

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
  constexpr std::string_view kInText = "\t\n\v\f\r\x1b";  // ESC: ISO-2022
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
  constexpr std::size_t kLeast = 4;
  constexpr std::size_t kUnits = 8;
  const std::size_t length = std::min(bytes.size(), kUnits * wide.width);
  if (length < kLeast * wide.width || length % wide.width != 0) return false;
  for (std::size_t i = 0; i < length; ++i) {
    const bool is_letter = i % wide.width == (wide.little ? 0 : wide.width - 1);
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (is_letter ? byte == 0 || byte >= 0x80 || is_control(byte) : byte != 0) return false;
  }
  return true;
}

std::string_view without_mark(std::string_view bytes) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (bytes.starts_with(kByteOrderMark)) bytes.remove_prefix(kByteOrderMark.size());
  return bytes;
}

// Without what stands behind a text in room that was made for more, or from another system. Numbers
// may begin with a few letters, too, and go on with zeros.
std::string_view without_padding(std::string_view bytes) {
  constexpr std::string_view kPadding("\0\1\4\x1a", 4);
  constexpr std::size_t kFew = 8;
  const std::size_t length = bytes.find_last_not_of(kPadding) + 1;  // npos + 1 is 0
  const bool is_padded = length >= (bytes.size() - length > kFew ? kFew : 2);
  return is_padded ? bytes.substr(0, length) : bytes;
}

// As which a charset of one byte for each letter, Latin-1 to KOI8-R, has a letter or a quote.
bool is_8_bit_letter(unsigned char byte) {
  return byte < 0x80 || byte >= 0xA0 || (byte >= 0x82 && byte <= 0x85) ||
         (byte >= 0x91 && byte <= 0x97) || byte == 0x80 || byte == 0x99;
}

// Of bytes without control characters, of which weights have one in nine: are they words? A few
// could be without by chance, or by the numbers that they are; words have blanks between them.
bool is_in_a_charset(std::string_view bytes) {
  constexpr std::size_t kLeast = 8;
  constexpr std::size_t kEnough = 256;
  constexpr std::size_t kLongestWord = 20;
  constexpr char kPickle = '\x80';  // as which every pickle since protocol 2 begins
  if (bytes.starts_with(kPickle)) return false;
  const auto blanks = static_cast<std::size_t>(std::count_if(
      bytes.begin(), bytes.end(), [](char c) { return kSpace.find(c) != kSpace.npos; }));
  if (bytes.size() < kLeast || blanks * kLongestWord < bytes.size()) return false;
  return bytes.size() >= kEnough || std::all_of(bytes.begin(), bytes.end(), is_8_bit_letter);
}

// The text without byte order mark, as UTF-8 where it was wider; nullopt for what is not text. Text
// in another charset of bytes (Latin-1, Shift-JIS) stays as it is. `called_text`: by its server.
std::optional<std::string> as_text(std::string_view bytes, bool called_text) {
  for (const Wide& wide : kWides) {
    if (!bytes.starts_with(wide.mark)) continue;
    auto text = narrowed(bytes.substr(wide.mark.size()), wide.width, wide.little);
    if (text && (!text->empty() || bytes.size() == wide.mark.size())) return text;
  }
  for (const Wide& wide : kWides) {
    if (begins_wide(bytes, wide)) return narrowed(bytes, wide.width, wide.little);
  }
  bytes = without_padding(without_mark(bytes));
  // One or two backspaces and, of ISO-2022-KR, shifts are in some texts.
  constexpr std::size_t kMostBackspaces = 2;
  const auto backspaces = static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\b'));
  std::string_view may_have = called_text ? "\b\x0e\x0f" : "\b";
  if (backspaces > kMostBackspaces) may_have.remove_prefix(1);
  if (std::any_of(bytes.begin(), bytes.end(), [may_have](char c) {
        return is_control(static_cast<unsigned char>(c)) && may_have.find(c) == may_have.npos;
      })) {
    return std::nullopt;
  }
  const bool is_text = called_text || is_utf8(bytes) || is_in_a_charset(bytes);
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
  return begins_with(text, "version https://git-lfs.") ||
         begins_with(text, "version https://hawser.");
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

template <std::size_t size>
bool is_element_of(std::string_view text, const std::array<std::string_view, size>& names) {
  return std::any_of(names.begin(), names.end(),
                     [text](std::string_view name) { return is_element(text, name); });
}

bool is_page(std::string_view text) {
  constexpr auto kNames =
      std::to_array<std::string_view>({"html", "head", "body", "script", "meta", "title", "style",
                                       "link", "center", "h1", "noscript", "error"});
  const std::string_view element = first_element(text);
  return begins_with(element, "<!doctype html") || is_element_of(element, kNames);
}

// A tag of HTML anywhere; files of words have other things in angle brackets (<unk>).
bool has_tag(std::string_view text) {
  constexpr auto kNames = std::to_array<std::string_view>(
      {"html",  "head", "body", "script", "meta",  "title", "style", "link",   "center", "noscript",
       "h1",    "h2",   "h3",   "p",      "div",   "span",  "pre",   "br",     "hr",     "a",
       "b",     "i",    "tt",   "img",    "svg",   "form",  "input", "button", "iframe", "frameset",
       "table", "tr",   "td",   "ul",     "ol",    "li",    "nav",   "main",   "header", "section",
       "font",  "em",   "code", "strong", "label", "area",  "object"});
  for (std::size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at + 1)) {
    const std::string_view here = text.substr(at);
    if (here.starts_with("<!--") || begins_with(here, "<!doctype")) return true;
    if (is_element_of(here, kNames)) return true;
  }
  return false;
}

// What no file of weights begins with, whatever comes behind it.
bool begins_as_xml(std::string_view text) {
  constexpr auto kNames = std::to_array<std::string_view>(
      {"h2", "h3", "p", "div", "span", "pre", "br", "svg", "form", "iframe", "table"});
  return begins_with(text, "<?xml") || begins_with(text, "<!doctype") || text.starts_with("<!--") ||
         is_element_of(text, kNames);
}
bool begins_as_json_error(std::string_view text) {
  constexpr auto kNames = std::to_array<std::string_view>(
      {"error", "errors", "message", "detail", "code", "status", "success"});
  if (!text.starts_with('{')) return false;
  text.remove_prefix(1);
  skip_space(text);
  if (!text.starts_with('"')) return false;
  text = text.substr(1, text.find('"', 1) - 1);
  return std::any_of(kNames.begin(), kNames.end(), [text](std::string_view name) {
    return text.size() == name.size() && begins_with(text, name);
  });
}

// --- what is compressed --------------------------------------------------------------------------

bool is_gzip(std::string_view bytes) {
  return bytes.starts_with("\x1f\x8b\x08");
}

// The beginning of what is in it; empty where that cannot be read.
std::string unpacked(std::string_view bytes) {
  constexpr int kGzip = 15 + 16;
  std::array<char, kSniffBytes> out{};
  z_stream stream{};
  if (::inflateInit2(&stream, kGzip) != Z_OK) return {};
  // zlib takes pointers to what it does not write.
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  ::inflate(&stream, Z_SYNC_FLUSH);  // it may end in the middle
  ::inflateEnd(&stream);
  return {out.data(), out.size() - stream.avail_out};
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

bool is_text_type(std::string_view type) {
  return type.starts_with("text/") || type == "application/json" || type == "application/xml" ||
         type.ends_with("+json") || type.ends_with("+xml");
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
  constexpr auto kPages =
      std::to_array<std::string_view>({".html", ".htm", ".xhtml", ".md", ".markdown", ".txt",
                                       ".xml", ".svg", ".vue", ".svelte", ".php", ".tpl", ".jsp"});
  // What is written in one of these formats is never text (pickles are looked at).
  constexpr auto kWeights = std::to_array<std::string_view>(
      {".pth",     ".pt",        ".pt2",       ".ptl",         ".pte",        ".th",
       ".bin",     ".t7",        ".ftz",       ".safetensors", ".sft",        ".distcp",
       ".lora",    ".ckpt",      ".onnx",      ".ort",         ".npz",        ".npy",
       ".gguf",    ".ggml",      ".llamafile", ".h5",          ".hdf5",       ".keras",
       ".pkl",     ".pickle",    ".joblib",    ".msgpack",     ".mpk",        ".pb",
       ".tflite",  ".task",      ".litertlm",  ".tfrecord",    ".mlmodel",    ".nemo",
       ".mar",     ".params",    ".pdparams",  ".pdopt",       ".pdiparams",  ".pdmodel",
       ".weights", ".onnx_data", ".engine",    ".trt",         ".plan",       ".mnn",
       ".rknn",    ".om",        ".jit",       ".mat",         ".caffemodel", ".tar",
       ".tgz",     ".tbz",       ".tbz2",      ".txz",         ".tzst",       ".zip",
       ".gz",      ".bz2",       ".xz",        ".lzma",        ".z",          ".zst",
       ".lz4",     ".7z",        ".rar",       ".whl",         ".parquet",    ".arrow",
       ".feather", ".npk",       ".flax",      ".torchscript", ".png",        ".jpg",
       ".jpeg",    ".gif",       ".webp",      ".mp4",         ".avi",        ".webm",
       ".mkv",     ".mov",       ".wav",       ".mp3",         ".ogg",        ".flac"});
  if (is_one_of(suffix, kPages)) return Wanted::kPage;
  if (is_one_of(suffix, kWeights) || begins_with(suffix, ".data-0")) return Wanted::kWeights;
  return std::nullopt;
}

// By the name, of which the suffix tells most.
std::optional<Wanted> wanted_of(std::string_view name) {
  constexpr auto kText = std::to_array<std::string_view>(
      {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".yaml", ".yml", ".vec", ".vocab", ".bpe"});
  constexpr auto kGzip = std::to_array<std::string_view>({".gz"});
  constexpr auto kIndex = std::to_array<std::string_view>({".index"});  // of TensorFlow
  constexpr auto kCheckpoint = std::to_array<std::string_view>({".ckpt"});
  const std::string_view suffix = suffix_of(name);
  const std::string_view inner = suffix_of(name.substr(0, name.size() - suffix.size()));
  if (is_one_of(suffix, kIndex) && is_one_of(inner, kCheckpoint)) return Wanted::kWeights;
  if (is_one_of(suffix, kGzip) && (is_one_of(inner, kText) || wanted_by(inner) == Wanted::kPage)) {
    return Wanted::kPackedText;
  }
  return wanted_by(suffix);
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
  const std::string_view name = wanted_of(path) ? path : without_query(address);
  const std::string_view suffix = wanted_of(name) ? suffix_of(name) : std::string_view();
  std::string telling;
  std::transform(suffix.begin(), suffix.end(), std::back_inserter(telling),
                 [](char c) { return lower(c); });
  return telling;
}

Wanted wanted_as(std::string_view path, std::string_view address) {
  const auto wanted = wanted_of(path);
  return wanted ? *wanted : wanted_of(without_query(address)).value_or(Wanted::kAnything);
}

Impostor sniff(std::string_view beginning, std::string_view content_type) {
  if (beginning.empty()) return Impostor::kEmpty;
  if (is_gzip(beginning)) {
    const std::string inside = unpacked(beginning);
    const Impostor packed = is_gzip(inside) ? Impostor::kNone : sniff(inside);
    const bool any = packed != Impostor::kNone && packed != Impostor::kEmpty;
    return any && packed != Impostor::kText ? Impostor::kPacked : Impostor::kNone;
  }
  const std::string type = media_type(content_type);
  const std::optional<std::string> decoded = as_text(beginning, is_text_type(type));
  std::string_view text = decoded ? *decoded : without_mark(beginning);
  skip_space(text);
  if (is_pointer(text)) return Impostor::kLfsPointer;
  if (is_page(text)) return Impostor::kPage;
  if (begins_as_json_error(text)) return Impostor::kJson;
  if (!decoded) return begins_as_xml(text) ? Impostor::kXml : Impostor::kNone;
  if (is_text_pickle(*decoded)) return Impostor::kNone;
  if (text.starts_with('{') || text.starts_with('[')) return Impostor::kJson;
  const bool is_html = type == "text/html" || type == "application/xhtml+xml";
  if (is_html && has_tag(text)) return Impostor::kPage;
  if (text.starts_with('<')) return Impostor::kXml;
  return type == "application/json" ? Impostor::kJson : Impostor::kText;
}

bool may_be(Impostor impostor, Wanted wanted) {
  switch (impostor) {
    case Impostor::kNone:
      return true;
    case Impostor::kLfsPointer:
      return false;  // whatever the name: vocabularies (.txt) lie in LFS as well
    case Impostor::kPage:
      return wanted == Wanted::kPage;
    case Impostor::kPacked:
      return wanted == Wanted::kPackedText;
    case Impostor::kEmpty:
    case Impostor::kXml:
    case Impostor::kJson:
    case Impostor::kText:
      return wanted != Wanted::kWeights && wanted != Wanted::kPackedText;
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
    case Impostor::kPacked: {
      const std::string inside = unpacked(beginning);
      return "the gzip of " + describe(sniff(inside), inside);
    }
  }
  const std::string_view plain = beginning.substr(0, beginning.find('\0'));
  const std::string text = as_text(beginning, false).value_or(std::string(without_mark(plain)));
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
    case Impostor::kPacked:
      return "weights are never text: its words may say what the server wants (another address, a "
             "login, some patience); if this is the file all the same, pin it by `sha256`";
  }
  return {};
}

}  // namespace fvprefetch
