#include "fvprefetch/manifest.h"

#include "base/try.h"
#include "source/entry_rules.h"
#include "source/json_tree.h"
#include "source/manifest_input.h"
#include "source/wording.h"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>

#ifndef FVPREFETCH_VERSION
#error "the build tells the program's version"
#endif

namespace fvprefetch {
namespace {

constexpr std::uint64_t kFormatVersion = 1;
constexpr std::size_t kMostProblems = 100;  // in one message; more helps nobody

// The field names stand here, in manifest_text.cpp and in the schema; tests hold them together.
constexpr std::array<std::string_view, 3> kManifestFields{"$schema", "version", "entries"};
constexpr std::array<std::string_view, 16> kEntryFields{
    "name",    "source", "filename",         "revision", "repo_type", "include",
    "exclude", "files",  "locked_from",      "sha256",   "size",      "mirrors",
    "dest",    "unpack", "strip_components", "optional"};
constexpr std::array<std::string_view, 4> kFileFields{"path", "size", "sha256", "git_sha1"};

template <std::size_t N>
bool contains(const std::array<std::string_view, N>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

/// A key as a segment of a JSON pointer (RFC 6901), fit to print.
std::string pointer_segment(std::string_view key) {
  std::string segment;
  for (const char c : printable(key)) {
    if (c == '~') {
      segment += "~0";
    } else if (c == '/') {
      segment += "~1";
    } else {
      segment += c;
    }
  }
  return segment;
}

/// JSON pointers below an entry to what could not be taken; its problem has been told.
using Unread = std::set<std::string, std::less<>>;

/// Whether `field`, or what it is a part of, is in `places`.
bool is_within(std::string_view field, const Unread& places) {
  while (!field.empty()) {
    if (places.contains(field)) return true;
    field = field.substr(0, field.rfind('/'));
  }
  return false;
}

/// Reads one tree, and collects what is wrong with it.
class Reader {
 public:
  Reader(std::string_view text, std::string origin) : text_(text) {
    manifest_.origin = std::move(origin);
  }

  Result<Manifest> read() {
    if (text_.starts_with("\xFF\xFE") || text_.starts_with("\xFE\xFF")) {
      return fail(ErrorCode::kUsage, manifest_.origin + ":1:1: expected UTF-8, got UTF-16",
                  "save the manifest as UTF-8");
    }
    if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);  // BOM of some editors
    if (text_.size() > kLargestManifest) {
      return fail(ErrorCode::kUsage, manifest_.origin + ": a manifest has at most 64 MiB");
    }
    if (text_.find_first_not_of(" \t\r\n") == std::string_view::npos) {
      problem(0, "", "expected a manifest, got an empty file");
      return finish();
    }
    const auto parsed = parse_json_tree(text_);
    if (const auto* error = std::get_if<JsonSyntaxError>(&parsed)) {
      problem(error->offset, "", error->message);
    } else {
      read_root(std::get<JsonNode>(parsed));
    }
    return finish();
  }

 private:
  struct Problem {
    std::size_t offset;
    std::string pointer;
    std::string message;
    std::optional<std::size_t> first = {};  ///< where it was before; its line goes behind `message`
    std::string_view tail = {};             ///< behind the line
  };

  void problem(std::size_t offset, std::string pointer, std::string message) {
    problems_.push_back({offset, std::move(pointer), std::move(message), {}, {}});
  }

  Result<Manifest> finish() {
    if (problems_.empty()) return std::move(manifest_);
    std::stable_sort(problems_.begin(), problems_.end(),
                     [](const Problem& a, const Problem& b) { return a.offset < b.offset; });
    std::string message;
    for (std::size_t i = 0; i < std::min(problems_.size(), kMostProblems); ++i) {
      const auto& [offset, pointer, words, first, tail] = problems_[i];
      const TextPosition at = position_of(text_, offset);
      if (i > 0) message += '\n';
      message += manifest_.origin + ":" + std::to_string(at.line) + ":" +
                 std::to_string(at.column) + ": " + pointer + (pointer.empty() ? "" : ": ") + words;
      // Only now: to count the lines before each of thousands would take minutes.
      if (first) message += std::to_string(position_of(text_, *first).line).append(tail);
    }
    if (problems_.size() > kMostProblems) {
      message += "\n... and " + std::to_string(problems_.size() - kMostProblems) + " more";
    }
    Error error;
    error.code = ErrorCode::kUsage;
    error.message = std::move(message);
    error.hint = "`fvprefetch schema` prints the format";
    error.subject = manifest_.origin;
    return fail(std::move(error));
  }

  void read_root(const JsonNode& root) {
    if (root.kind == JsonNode::Kind::kArray) {
      read_entries(root, "");
      return;
    }
    if (root.kind != JsonNode::Kind::kObject) {
      problem(root.offset, "",
              "expected a manifest (an object with `version` and `entries`, or an array of "
              "entries), got " +
                  std::string(name(root.kind)));
      return;
    }
    if (!read_version(root)) return;
    check_keys(root, "");
    for (const JsonNode& child : root.children) {
      if (!contains(kManifestFields, child.key)) unknown_field(child, "", kManifestFields);
    }
    if (const JsonNode* entries = root.find("entries"); entries == nullptr) {
      problem(root.offset, "", "`entries` is missing");
    } else if (entries->kind != JsonNode::Kind::kArray) {
      wrong_kind(*entries, "/entries", "an array of entries");
    } else {
      read_entries(*entries, "/entries");
    }
  }

  /// False when nothing else of the file can be judged.
  bool read_version(const JsonNode& root) {
    const JsonNode* version = root.find("version");
    if (version == nullptr) {
      problem(root.offset, "", "`version` is missing; this program reads version 1");
    } else if (version->kind == JsonNode::Kind::kUnsigned && version->number > kFormatVersion) {
      problem(version->offset, "/version",
              "version " + std::to_string(version->number) +
                  " of the format needs a newer fvprefetch; this is " FVPREFETCH_VERSION
                  ", which reads version 1");
      return false;
    } else if (version->kind != JsonNode::Kind::kUnsigned) {
      wrong_kind(*version, "/version", "the number 1");
    } else if (version->number != kFormatVersion) {
      problem(version->offset, "/version", "expected 1, got " + std::to_string(version->number));
    }
    return true;
  }

  void read_entries(const JsonNode& list, const std::string& pointer) {
    if (list.children.empty()) {
      problem(list.offset, pointer, "expected at least one entry, got none");
    }
    std::map<std::string_view, std::size_t> first_of_name;
    for (std::size_t i = 0; i < list.children.size(); ++i) {
      const JsonNode& node = list.children[i];
      const std::string here = pointer + "/" + std::to_string(i);
      if (node.kind != JsonNode::Kind::kObject) {
        wrong_kind(node, here, "an entry (an object)");
        continue;
      }
      read_entry(node, here);
      const JsonNode* name = node.find("name");
      if (name == nullptr || name->kind != JsonNode::Kind::kString) continue;
      const auto [first, is_new] = first_of_name.emplace(name->text, i);
      if (is_new) continue;
      problems_.push_back({name->offset, here + "/name",
                           "\"" + printable(name->text) + "\" is the name of " + pointer + "/" +
                               std::to_string(first->second) + " (line ",
                           list.children[first->second].offset, ") already"});
    }
  }

  void read_entry(const JsonNode& node, const std::string& here) {
    check_keys(node, here);
    Entry entry;
    Unread unread;  // the rules would only repeat it
    for (const JsonNode& field : node.children) {
      if (!contains(kEntryFields, field.key)) {
        unknown_field(field, here, kEntryFields);
      } else if (field.key == "files") {
        read_files(field, here, entry.files, unread);
      } else if (!read_field(field, here + "/" + field.key, entry)) {
        unread.insert("/" + field.key);
      }
    }
    for (const std::string_view required : {"name", "source"}) {
      if (node.find(required) != nullptr) continue;
      problem(node.offset, here, "`" + std::string(required) + "` is missing");
      unread.insert("/" + std::string(required));
    }
    for (EntryProblem& found : check_entry(entry, NameRule::kAlways)) {
      if (is_within(found.field, unread)) continue;
      // Without a source nobody knows which fields belong.
      if (unread.contains("/source") && is_within(found.field, {"/mirrors", "/dest"})) continue;
      problem(offset_of(node, found.field), here + found.field, std::move(found.message));
    }
    entry.sha256 = lower_hex(entry.sha256);
    for (PinnedFile& file : entry.files) {
      file.sha256 = lower_hex(file.sha256);
      file.git_sha1 = lower_hex(file.git_sha1);
    }
    manifest_.entries.push_back(std::move(entry));
  }

  /// Whether the field's value has been taken into `entry`; else its problem has been told.
  bool read_field(const JsonNode& field, const std::string& here, Entry& entry) {
    const std::string& key = field.key;
    if (key == "name") return read_text(field, here, entry.name);
    if (key == "source") return read_text(field, here, entry.source);
    if (key == "filename") {
      // ensure_checkpoint's filename=None, and "" for none, as its callers have them.
      if (field.kind == JsonNode::Kind::kNull) return true;
      if (field.kind == JsonNode::Kind::kString && field.text.empty()) return true;
      return read_text(field, here, entry.filename);
    }
    if (key == "revision") return read_text(field, here, entry.revision);
    if (key == "repo_type") return read_text(field, here, entry.repo_type);
    if (key == "include") return read_texts(field, here, "at least one pattern", entry.include);
    if (key == "exclude") return read_texts(field, here, "", entry.exclude);
    if (key == "locked_from") return read_text(field, here, entry.locked_from);
    if (key == "sha256") return read_text(field, here, entry.sha256);
    if (key == "size") return read_size(field, here, entry.size);
    if (key == "mirrors") return read_texts(field, here, "", entry.mirrors);
    if (key == "dest") return read_text(field, here, entry.dest);
    if (key == "unpack") return read_flag(field, here, entry.unpack);
    if (key == "strip_components") return read_count(field, here, entry.strip_components);
    return read_flag(field, here, entry.optional);
  }

  bool read_flag(const JsonNode& node, const std::string& here, bool& flag) {
    if (node.kind != JsonNode::Kind::kBoolean) return wrong_kind(node, here, "true or false");
    flag = node.boolean;
    return true;
  }

  bool read_count(const JsonNode& node, const std::string& here, std::uint64_t& count) {
    constexpr std::uint64_t kMost = 100;  // more than a name has segments, in practice
    if (node.kind == JsonNode::Kind::kUnsigned && node.number <= kMost) {
      count = node.number;
      return true;
    }
    if (node.kind == JsonNode::Kind::kUnsigned) {
      problem(node.offset, here, "expected 0 to 100, got " + std::to_string(node.number));
      return false;
    }
    if (node.kind == JsonNode::Kind::kNegative) {
      problem(node.offset, here, "expected 0 to 100, got a negative number");
      return false;
    }
    return wrong_kind(node, here, "a whole number from 0 to 100");
  }

  /// `files`, below the entry at `here`. Each is read for itself, so that a mistake in one hides
  /// none in another: what could not be taken is added to `unread`.
  void read_files(const JsonNode& list, const std::string& here, std::vector<PinnedFile>& files,
                  Unread& unread) {
    const std::string field = "/files";
    if (list.kind != JsonNode::Kind::kArray) {
      wrong_kind(list, here + field, "an array of files");
      unread.insert(field);
      return;
    }
    if (list.children.empty()) {
      problem(list.offset, here + field, "expected at least one file, got none");
      unread.insert(field);
    }
    for (std::size_t i = 0; i < list.children.size(); ++i) {
      files.emplace_back();
      read_file(list.children[i], here, field + "/" + std::to_string(i), files.back(), unread);
    }
  }

  void read_file(const JsonNode& node, const std::string& entry, const std::string& field,
                 PinnedFile& file, Unread& unread) {
    const std::string here = entry + field;
    if (node.kind != JsonNode::Kind::kObject) {
      wrong_kind(node, here, "a file (an object)");
      unread.insert(field);
      return;
    }
    check_keys(node, here);
    std::optional<std::uint64_t> size;
    for (const JsonNode& child : node.children) {
      const std::string at = here + "/" + child.key;
      bool taken = true;
      if (child.key == "path") {
        taken = read_text(child, at, file.path);
      } else if (child.key == "size") {
        taken = read_size(child, at, size);
      } else if (child.key == "sha256") {
        taken = read_text(child, at, file.sha256);
      } else if (child.key == "git_sha1") {
        taken = read_text(child, at, file.git_sha1);
      } else {
        unknown_field(child, here, kFileFields);
      }
      if (!taken) unread.insert(field + "/" + child.key);
    }
    file.size = size.value_or(0);
    for (const std::string_view required : {"path", "size"}) {
      if (node.find(required) != nullptr) continue;
      problem(node.offset, here, "`" + std::string(required) + "` is missing");
      unread.insert(field + "/" + std::string(required));
    }
    const bool has_digest = node.find("sha256") != nullptr || node.find("git_sha1") != nullptr;
    if (!has_digest) {
      problem(node.offset, here, "`sha256` (of an LFS file) or `git_sha1` is missing");
    }
    // The rules want one digest: said already, or there and not readable.
    if (file.sha256.empty() && file.git_sha1.empty()) unread.insert(field + "/sha256");
  }

  bool read_text(const JsonNode& node, const std::string& here, std::string& text) {
    if (node.kind != JsonNode::Kind::kString) return wrong_kind(node, here, "a string");
    if (node.text.empty()) {
      problem(node.offset, here, "must not be empty");
      return false;
    }
    text = node.text;
    return true;
  }

  bool read_texts(const JsonNode& node, const std::string& here, std::string_view at_least,
                  std::vector<std::string>& texts) {
    if (node.kind != JsonNode::Kind::kArray) return wrong_kind(node, here, "an array of strings");
    if (node.children.empty() && !at_least.empty()) {
      problem(node.offset, here, "expected " + std::string(at_least) + ", got none");
      return false;
    }
    bool all = true;
    for (std::size_t i = 0; i < node.children.size(); ++i) {
      std::string text;
      all = read_text(node.children[i], here + "/" + std::to_string(i), text) && all;
      texts.push_back(std::move(text));
    }
    return all;
  }

  bool read_size(const JsonNode& node, const std::string& here,
                 std::optional<std::uint64_t>& size) {
    constexpr std::string_view kExpected = "a whole number of bytes";
    if (node.kind == JsonNode::Kind::kUnsigned) {
      size = node.number;
      return true;
    }
    if (node.kind == JsonNode::Kind::kNegative) {
      problem(node.offset, here, "expected a number of bytes, got a negative one");
    } else if (node.kind == JsonNode::Kind::kFloat) {
      problem(
          node.offset, here,
          "expected " + std::string(kExpected) + ", at most 2^63-1, got " + printable(node.text));
    } else {
      wrong_kind(node, here, kExpected);
    }
    return false;
  }

  /// False, for `return wrong_kind(...)`.
  bool wrong_kind(const JsonNode& node, const std::string& here, std::string_view expected) {
    problem(node.offset, here,
            "expected " + std::string(expected) + ", got " + std::string(name(node.kind)));
    return false;
  }

  void check_keys(const JsonNode& object, const std::string& here) {
    std::map<std::string_view, std::size_t> first;
    for (const JsonNode& child : object.children) {
      const auto [seen, is_new] = first.emplace(child.key, child.key_offset);
      if (is_new) continue;
      problems_.push_back({child.key_offset,
                           here + "/" + pointer_segment(child.key),
                           "is there twice; first on line ",
                           seen->second,
                           {}});
    }
  }

  template <std::size_t N>
  void unknown_field(const JsonNode& field, const std::string& here,
                     const std::array<std::string_view, N>& known) {
    std::string message = "unknown field";
    if (const std::string_view meant = nearest(field.key, known); !meant.empty()) {
      message += "; did you mean `" + std::string(meant) + "`?";
    } else {
      message += "; known are ";
      for (std::size_t i = 0; i < N; ++i) message += (i == 0 ? "" : ", ") + std::string(known[i]);
    }
    problem(field.key_offset, here + "/" + pointer_segment(field.key), std::move(message));
  }

  /// Where the value of "/mirrors/1" or "/files/0/path" begins below `entry`; of what is not there,
  /// where the last begins of which it would be a part.
  static std::size_t offset_of(const JsonNode& entry, std::string_view field) {
    const JsonNode* node = &entry;
    while (!field.empty()) {
      field.remove_prefix(1);
      const std::string segment(field.substr(0, field.find('/')));
      field.remove_prefix(segment.size());
      const JsonNode* child = nullptr;
      if (node->kind == JsonNode::Kind::kObject) {
        child = node->find(segment);
      } else if (const std::size_t index = std::stoul(segment); index < node->children.size()) {
        child = &node->children[index];
      }
      if (child == nullptr) break;
      node = child;
    }
    return node->offset;
  }

  std::string_view text_;
  Manifest manifest_;
  std::vector<Problem> problems_;
};

}  // namespace

Result<Manifest> parse_manifest(std::string_view text, std::string origin) {
  return guard([&] { return Reader(text, std::move(origin)).read(); });
}

Result<Manifest> load_manifest(const std::string& path) {
  return guard([&]() -> Result<Manifest> {
    FVP_TRY(const std::string text, read_manifest_text(path));
    return parse_manifest(text, manifest_origin(path));
  });
}

Status validate(const Entry& entry) {
  return guard([&]() -> Status {
    const std::vector<EntryProblem> problems = check_entry(entry, NameRule::kWhenUsed);
    if (problems.empty()) return {};
    std::string message;
    for (const EntryProblem& found : problems) {
      if (!message.empty()) message += '\n';
      message += "`" + found.field.substr(1) + "`: " + found.message;
    }
    return fail(ErrorCode::kUsage, std::move(message));
  });
}

}  // namespace fvprefetch
