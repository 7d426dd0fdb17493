// What makes an entry of a manifest wrong, whoever made it: the parser (which adds line and column)
// and callers of the library share these rules. Only what can be told from the entry alone; that a
// source is a path or a Hub repo is decided in resolve(). Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fvprefetch/manifest.h"

namespace fvprefetch {

/// One mistake in an entry.
struct EntryProblem {
  std::string field;    ///< JSON pointer below the entry: "/sha256", "/mirrors/1"; "" for itself
  std::string message;  ///< "expected 64 hex digits, got 12"
};

/// Whether every entry needs a name (manifest), or only those whose name becomes a file.
enum class NameRule { kAlways, kWhenUsed };

[[nodiscard]] std::vector<EntryProblem> check_entry(const Entry& entry, NameRule rule);

/// Python's source.startswith(("http://", "https://")): the test of ensure_checkpoint, so "HTTP://"
/// is not one.
[[nodiscard]] bool is_url(std::string_view source);

/// A digest as digests are compared: lower case.
[[nodiscard]] std::string lower_hex(std::string_view hex);

}  // namespace fvprefetch
