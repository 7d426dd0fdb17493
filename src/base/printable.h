// The one decision which characters a terminal shows and does nothing else with. What others wrote
// (a server's header, the name of an archive's member, the words of a lock's holder) reaches people
// through here. Pure; any thread.
#pragma once

#include <string>
#include <string_view>

namespace fvprefetch {

/// False for what moves the cursor, reorders or hides text, or is no character: control characters
/// (C0, DEL, C1), line and paragraph separators, marks, embeddings, overrides and isolates of
/// direction, invisible ones (but the joiners that scripts and emoji need), surrogates and
/// noncharacters.
[[nodiscard]] bool is_printable(char32_t character);

/// Whether all of `text` is UTF-8 and printable.
[[nodiscard]] bool is_printable(std::string_view text);

/// `text` on one line: each character that is not printable, and each byte that is not UTF-8,
/// stands there as "\n", "\t" or its bytes in hex ("\x1b", "\xc2\x9b").
[[nodiscard]] std::string escaped(std::string_view text);

/// The same, but line feeds and tabs stay.
[[nodiscard]] std::string escaped_lines(std::string_view text);

/// A JSON document with such characters in its strings as \uXXXX: it says what it said before.
[[nodiscard]] std::string escaped_json(std::string_view document);

}  // namespace fvprefetch
