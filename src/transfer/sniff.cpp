#include "transfer/sniff.h"

#include <algorithm>
#include <array>

namespace fvprefetch {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// `prefix` and `suffix` are lower case.
bool begins_with(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(),
                    [](char want, char have) { return want == lower(have); });
}

bool ends_with(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() &&
         begins_with(text.substr(text.size() - suffix.size()), suffix);
}

}  // namespace

Impostor sniff(std::string_view beginning) {
  if (beginning.starts_with("version https://git-lfs.github.com/spec/v1")) {
    return Impostor::kLfsPointer;
  }
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (beginning.starts_with(kByteOrderMark)) beginning.remove_prefix(kByteOrderMark.size());
  const std::size_t text = beginning.find_first_not_of(" \t\r\n\f");
  beginning.remove_prefix(std::min(text, beginning.size()));
  const bool html = begins_with(beginning, "<!doctype html") || begins_with(beginning, "<html");
  return html ? Impostor::kHtmlPage : Impostor::kNone;
}

bool may_be(Impostor impostor, std::string_view path) {
  // A pointer is never what is wanted, whatever the name: vocabularies (.txt) lie in LFS as well.
  if (impostor != Impostor::kHtmlPage) return impostor == Impostor::kNone;
  constexpr std::array<std::string_view, 6> kText = {".html", ".htm",      ".xhtml",
                                                     ".md",   ".markdown", ".txt"};
  return std::any_of(kText.begin(), kText.end(),
                     [path](std::string_view suffix) { return ends_with(path, suffix); });
}

std::string_view describe(Impostor impostor) {
  switch (impostor) {
    case Impostor::kNone:
      return {};
    case Impostor::kHtmlPage:
      return "an HTML page came in place of the file";
    case Impostor::kLfsPointer:
      return "a Git LFS pointer came in place of the file";
  }
  return {};
}

std::string_view hint(Impostor impostor) {
  switch (impostor) {
    case Impostor::kNone:
      return {};
    case Impostor::kHtmlPage:
      return "open the address in a browser: a login, a licence or a proxy of this site may answer "
             "in place of the server";
    case Impostor::kLfsPointer:
      return "use the address that serves the file itself (`/resolve/` on the Hub, media on "
             "GitHub)";
  }
  return {};
}

}  // namespace fvprefetch
