#include "source/json_tree.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <utility>

namespace fvprefetch {
namespace {

constexpr std::size_t kDeepest = 64;

/// Walks over the text and tells a counter how far the parser has come.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(std::string_view text, std::size_t offset, std::size_t& taken)
      : text_(text), offset_(offset), taken_(&taken) {}

  reference operator*() const { return text_[offset_]; }
  CountingIterator& operator++() {
    *taken_ = ++offset_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return offset_ == other.offset_; }
  bool operator!=(const CountingIterator& other) const { return offset_ != other.offset_; }

 private:
  std::string_view text_;
  std::size_t offset_;
  std::size_t* taken_;
};

// The parser's words, for people. Texts of nlohmann_json 3.11; one that is not known is passed on.

std::string_view found_words(std::string_view found) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kWords{{
      {"string literal", "a string"},
      {"number literal", "a number"},
      {"true literal", "true"},
      {"false literal", "false"},
      {"null literal", "null"},
      {"end of input", "the end of the file"},
  }};
  for (const auto& [theirs, ours] : kWords) {
    if (found == theirs) return ours;
  }
  return found;
}

std::string_view expected_words(std::string_view expected, std::string_view context) {
  if (context == "object key") return "a field name in double quotes";
  if (context == "object separator") return "':' after the field name";
  if (context == "array") return "',' or ']'";
  if (context == "object") return "',' or '}'";
  if (expected == "end of input") return "nothing more after the end of the manifest";
  if (context == "value") return "a value";
  return expected;
}

std::string lexer_words(std::string_view detail, std::string_view expected,
                        std::string_view context, char at) {
  if (detail == "invalid literal" || detail.starts_with("invalid comment")) {
    if (at == '\'') return "strings need double quotes, got a single quote";
    if (at == '/' || at == '#') return "JSON has no comments";
    std::string message = "expected ";
    message += expected_words(expected, context);
    if (context == "value" && expected.empty()) {
      message += ": a string in double quotes, a number, true, false, null, [ or {";
    }
    return message;
  }
  if (detail == "invalid string: missing closing quote") {
    return "the string that the file ends in has no closing quote";
  }
  if (detail.starts_with("invalid string: control character U+000A") ||
      detail.starts_with("invalid string: control character U+000D")) {
    return "the string is not closed on its line";
  }
  if (detail == "invalid string: ill-formed UTF-8 byte") return "invalid UTF-8";
  return std::string(detail);
}

/// Builds the tree from the parser's events.
class TreeBuilder {
 public:
  TreeBuilder(std::string_view text, const std::size_t& taken) : text_(text), taken_(taken) {}

  bool null() { return add(make(JsonNode::Kind::kNull)); }
  bool boolean(bool value) {
    JsonNode node = make(JsonNode::Kind::kBoolean);
    node.boolean = value;
    return add(std::move(node));
  }
  bool number_integer(nlohmann::json::number_integer_t /*value*/) {
    return add(make(JsonNode::Kind::kNegative));  // the parser calls this below zero only
  }
  bool number_unsigned(nlohmann::json::number_unsigned_t value) {
    JsonNode node = make(JsonNode::Kind::kUnsigned);
    node.number = value;
    return add(std::move(node));
  }
  bool number_float(nlohmann::json::number_float_t /*value*/, const std::string& written) {
    JsonNode node = make(JsonNode::Kind::kFloat);
    node.text = written;
    return add(std::move(node));
  }
  bool string(std::string& value) {
    JsonNode node = make(JsonNode::Kind::kString);
    node.text = std::move(value);
    return add(std::move(node));
  }
  bool binary(nlohmann::json::binary_t& /*value*/) { return false; }  // not in JSON text
  bool start_object(std::size_t /*count*/) { return open(JsonNode::Kind::kObject); }
  bool start_array(std::size_t /*count*/) { return open(JsonNode::Kind::kArray); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& value) {
    key_offset_ = token_start();
    key_ = std::move(value);
    end_of_token_ = taken_;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*last_token*/,
                   const nlohmann::json::exception& exception) {
    // `position` counts the bytes up to and with the offending one (and one more at the end).
    const std::size_t last = std::min(position > 0 ? position - 1 : 0, text_.size());
    std::string_view what = exception.what();
    constexpr std::string_view kMarker = "syntax error while parsing ";
    const std::size_t marker = what.find(kMarker);
    const std::size_t dash =
        marker == std::string_view::npos ? marker : what.find(" - ", marker + kMarker.size());
    if (dash == std::string_view::npos) {  // "number overflow parsing '1e999'"
      error_ = {std::min(token_start(), last), "the number is too large"};
      return false;
    }
    const std::string_view context =
        what.substr(marker + kMarker.size(), dash - marker - kMarker.size());
    std::string_view detail = what.substr(dash + 3);

    constexpr std::string_view kUnexpected = "unexpected ";
    if (detail.starts_with(kUnexpected)) {
      detail.remove_prefix(kUnexpected.size());
      constexpr std::string_view kExpected = "; expected ";
      const std::size_t split = detail.find(kExpected);
      const std::string_view found = detail.substr(0, split);
      const std::string_view expected =
          split == std::string_view::npos ? "" : detail.substr(split + kExpected.size());
      const std::size_t at = found == "end of input" ? text_.size() : std::min(token_start(), last);
      std::string message = "expected ";
      message += expected_words(expected, context);
      message += ", got ";
      message += found_words(found);
      if ((found == "']'" || found == "'}'") && previous_character(at) == ',') {
        message += "; JSON allows no comma before it";
      }
      error_ = {at, std::move(message)};
      return false;
    }

    // "invalid literal; last read: 'x'[; expected end of input]"; what was read may be anything.
    constexpr std::string_view kExpected = "'; expected ";
    const std::size_t split = detail.rfind(kExpected);
    const std::string_view expected =
        split == std::string_view::npos ? "" : detail.substr(split + kExpected.size());
    detail = detail.substr(0, detail.find("; last read: "));
    // A bad word or number is shown at its start, a bad string at the byte that is wrong in it.
    const bool whole_token = detail.find("string") == std::string_view::npos;
    const std::size_t at = whole_token ? std::min(token_start(), last) : last;
    error_ = {at, lexer_words(detail, expected, context, at < text_.size() ? text_[at] : '\0')};
    return false;
  }

  [[nodiscard]] JsonNode take_root() { return std::move(root_); }
  [[nodiscard]] JsonSyntaxError take_error() { return std::move(error_); }

 private:
  /// Between two events the text has white space and separators only (the parser saw to it), and
  /// after a number at most one byte more was taken, which is one of these too or ends a container.
  [[nodiscard]] std::size_t token_start() const {
    return std::min(text_.find_first_not_of(" \t\r\n,:", end_of_token_), text_.size());
  }

  [[nodiscard]] char previous_character(std::size_t offset) const {
    const std::size_t found = text_.substr(0, offset).find_last_not_of(" \t\r\n");
    return found == std::string_view::npos ? '\0' : text_[found];
  }

  JsonNode make(JsonNode::Kind kind) {
    JsonNode node;
    node.kind = kind;
    node.offset = token_start();
    node.key = std::exchange(key_, {});
    node.key_offset = key_offset_;
    end_of_token_ = taken_;
    return node;
  }

  bool add(JsonNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
    } else {
      open_.back().children.push_back(std::move(node));
    }
    return true;
  }

  bool open(JsonNode::Kind kind) {
    if (open_.size() == kDeepest) {
      error_ = {token_start(), "nested too deeply"};
      return false;
    }
    open_.push_back(make(kind));
    return true;
  }

  bool close() {
    end_of_token_ = taken_;
    JsonNode node = std::move(open_.back());
    open_.pop_back();
    return add(std::move(node));
  }

  std::string_view text_;
  const std::size_t& taken_;
  std::size_t end_of_token_ = 0;
  std::string key_;
  std::size_t key_offset_ = 0;
  std::vector<JsonNode> open_;
  JsonNode root_;
  JsonSyntaxError error_;
};

}  // namespace

const JsonNode* JsonNode::find(std::string_view name) const {
  const auto found = std::find_if(children.begin(), children.end(),
                                  [name](const JsonNode& child) { return child.key == name; });
  return found == children.end() ? nullptr : &*found;
}

std::string_view name(JsonNode::Kind kind) {
  switch (kind) {
    case JsonNode::Kind::kNull:
      return "null";
    case JsonNode::Kind::kBoolean:
      return "a boolean";
    case JsonNode::Kind::kUnsigned:
    case JsonNode::Kind::kNegative:
    case JsonNode::Kind::kFloat:
      return "a number";
    case JsonNode::Kind::kString:
      return "a string";
    case JsonNode::Kind::kArray:
      return "an array";
    case JsonNode::Kind::kObject:
      return "an object";
  }
  return "something else";
}

std::variant<JsonNode, JsonSyntaxError> parse_json_tree(std::string_view text) {
  std::size_t taken = 0;
  TreeBuilder builder(text, taken);
  const bool parsed = nlohmann::json::sax_parse(
      CountingIterator(text, 0, taken), CountingIterator(text, text.size(), taken), &builder);
  if (!parsed) return builder.take_error();
  return builder.take_root();
}

TextPosition position_of(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  TextPosition position;
  position.line += static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n'));
  const std::size_t newline = before.rfind('\n');
  const std::string_view line =
      newline == std::string_view::npos ? before : before.substr(newline + 1);
  for (const char c : line) {
    if ((static_cast<unsigned char>(c) & 0xC0U) != 0x80U) ++position.column;
  }
  return position;
}

}  // namespace fvprefetch
