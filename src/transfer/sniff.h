// Recognises by its first bytes what servers send in place of a file, with a 200 and no further
// word: a page of HTML (login, licence, captive portal) or a Git LFS pointer. Pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace fvprefetch {

enum class Impostor { kNone, kHtmlPage, kLfsPointer };

/// How much of the beginning is looked at.
inline constexpr std::size_t kSniffBytes = 512;

/// What a body that begins like this is.
[[nodiscard]] Impostor sniff(std::string_view beginning);

/// Whether a file of this name may well begin like that (a page of HTML under the name index.html).
[[nodiscard]] bool may_be(Impostor impostor, std::string_view path);

/// "an HTML page came in place of the file"; empty for kNone.
[[nodiscard]] std::string_view describe(Impostor impostor);

/// What to do about it; empty for kNone.
[[nodiscard]] std::string_view hint(Impostor impostor);

}  // namespace fvprefetch
