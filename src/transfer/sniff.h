// Recognises by its first bytes what servers and other tools leave in place of a file, with a 200
// and no further word: a page (login, licence, captive portal), an error as XML, JSON or plain
// words, a Git LFS pointer, nothing at all. Pure functions.
//
// Weights are binary, so a body that is text all through its beginning is none, whatever it says;
// and what begins as a page or a pointer is one, whatever comes behind it. Where a digest is known
// it decides, and nobody asks here.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fvprefetch {

enum class Impostor {
  kNone,
  kEmpty,
  kLfsPointer,
  kPage,  ///< HTML, or the error document of an object store
  kXml,
  kJson,
  kText,
  kPacked  ///< the gzip of a page, a pointer, XML or JSON
};

/// How much of the beginning is looked at.
inline constexpr std::size_t kSniffBytes = 1024;

/// What a file is asked for as.
enum class Wanted {
  kAnything,    ///< its name does not tell; no page, though
  kPage,        ///< text that may well begin like a page (index.html, README.md, notes.txt)
  kPackedText,  ///< text that is compressed (vocab.json.gz)
  kWeights      ///< weights, an archive, or whatever else is never text
};
/// By the suffix of the file's name; where that says nothing, by that of its address (a URL, which
/// may be empty).
[[nodiscard]] Wanted wanted_as(std::string_view path, std::string_view address);
/// The suffix by which it was told, in lower case (".pth"); empty where none tells.
[[nodiscard]] std::string telling_suffix(std::string_view path, std::string_view address);

/// What a body that begins like this is. `beginning`: the first kSniffBytes, or all that there is.
/// `content_type`: as the server sent it, or empty. It tells which text it is, and of bytes without
/// control characters that they are text; not of others: many servers call everything text/html
/// that they do not know.
[[nodiscard]] Impostor sniff(std::string_view beginning, std::string_view content_type = {});

/// Whether a file that is asked for as `wanted` may well be that.
[[nodiscard]] bool may_be(Impostor impostor, Wanted wanted);

/// "an HTML page, which begins `<html><head>`": what it is, with so much of its text as fits a
/// line, printable. Empty for kNone.
[[nodiscard]] std::string describe(Impostor impostor, std::string_view beginning);

/// What to do about one that came from `address` (a URL); empty for kNone.
[[nodiscard]] std::string_view hint(Impostor impostor, std::string_view address);

}  // namespace fvprefetch
