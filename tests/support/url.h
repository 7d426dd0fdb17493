// Percent-encoding and request targets, just enough for the hub's own routes.
// Pure functions; no state, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fvprefetch::testhub {

/// Decodes %XX; a broken escape stays as it is. "+" is not a space: paths have none of that.
std::string percent_decode(std::string_view text);

/// Python's urllib.parse.quote: keeps A-Z a-z 0-9 _.-~ and the characters of `also_keep`.
std::string percent_encode(std::string_view text, std::string_view also_keep);

/// Splits at every `separator`; an empty text gives one empty part.
std::vector<std::string> split(std::string_view text, char separator);

std::string join(const std::vector<std::string>& parts, std::size_t first, char separator);

/// True when the decoded path can be joined to a folder without leaving it: relative, no empty,
/// "." or ".." segment, no NUL.
bool is_safe_relative(std::string_view path);

/// Value of the first `name=` in a query, decoded; empty when absent.
std::string query_value(std::string_view query, std::string_view name);

}  // namespace fvprefetch::testhub
