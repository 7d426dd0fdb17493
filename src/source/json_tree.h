// JSON text as a tree whose nodes know where they stand, for messages with line and column.
//
// nlohmann_json is the parser; it tells no positions, so its events are paired with a count of the
// bytes that it has taken. Pure; any thread. Offsets are bytes from the start of the text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace fvprefetch {

struct JsonNode {
  enum class Kind {
    kNull,
    kBoolean,
    kUnsigned,  ///< a whole number from 0 to 2^64-1
    kNegative,  ///< a whole number below 0
    kFloat,     ///< any other number; `text` has it as written
    kString,
    kArray,
    kObject
  };
  Kind kind = Kind::kNull;
  bool boolean = false;
  std::uint64_t number = 0;
  std::string text;
  std::vector<JsonNode> children;  ///< of an array or object, in order of the text
  std::string key;                 ///< of a member of an object
  std::size_t key_offset = 0;
  std::size_t offset = 0;

  /// The first member of that name, or null.
  [[nodiscard]] const JsonNode* find(std::string_view name) const;
};

/// "a string", "an object": for "expected x, got y".
[[nodiscard]] std::string_view name(JsonNode::Kind kind);

/// The first syntax error of a text.
struct JsonSyntaxError {
  std::size_t offset = 0;
  std::string message;
};

/// Duplicate keys are kept, for the caller to judge. Nesting over 64 levels is an error: nothing
/// that we read has it, and trees are freed by recursion.
[[nodiscard]] std::variant<JsonNode, JsonSyntaxError> parse_json_tree(std::string_view text);

/// One-based; a column is a character, not a byte.
struct TextPosition {
  std::size_t line = 1;
  std::size_t column = 1;
};
[[nodiscard]] TextPosition position_of(std::string_view text, std::size_t offset);

}  // namespace fvprefetch
