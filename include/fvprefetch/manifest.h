// A manifest: the list of checkpoints of a job, as src/source/manifest.schema.json describes it.
//
// Parsing reports every mistake of a file at once, each with line, column and JSON pointer. It
// touches neither network nor cache, and may be called on any rank and any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch {

/// One file of a Hub repo, pinned: which bytes a path has at the commit of its entry. Exactly one
/// of the digests is set; the Hub names the file's blob by it.
struct PinnedFile {
  std::string path;        ///< in the repo
  std::uint64_t size = 0;  ///< bytes
  std::string sha256;      ///< of an LFS file: 64 lower-case hex digits
  std::string git_sha1;    ///< of any other: git's object id, 40 lower-case hex digits

  bool operator==(const PinnedFile&) const = default;
};

/// One checkpoint. Fields that the manifest does not set are empty.
struct Entry {
  /// Key of the entry in every output; the file name under `models/` for a URL without `dest`.
  std::string name;
  /// What ensure_checkpoint takes: an existing path, an http(s) URL or a Hub repo id.
  std::string source;
  /// Nobody chose `name`: it is the last part of the source. A file of that name which came from
  /// another source is refused then (kUsage) and not taken. Not in a manifest, where names are
  /// told.
  bool name_is_guessed = false;

  // Hub only.
  std::string filename;              ///< one file of the repo; empty means the whole snapshot
  std::string revision;              ///< branch, tag or 40-hex commit; empty means main
  std::string repo_type;             ///< "model", "dataset", "space"; empty means model
  std::vector<std::string> include;  ///< fnmatch patterns as huggingface_hub has them
  std::vector<std::string> exclude;  ///< same, applied after `include`
  /// The repo's files as lock() pinned them: with them the Hub is not asked what it has. Needs a
  /// commit as `revision`; `filename`, `include` and `exclude` choose among them.
  std::vector<PinnedFile> files;
  std::string locked_from;  ///< the branch or tag that `revision` was before; for readers only

  // Checked before anything is published.
  std::string sha256;                 ///< 64 lower-case hex digits
  std::optional<std::uint64_t> size;  ///< bytes

  // URL only.
  std::vector<std::string> mirrors;  ///< further URLs of the same bytes, tried in order
  std::string dest;                  ///< place below the eval cache; empty means models/<name>
  /// The file is a zip or tar(.gz, .xz, .zst): `dest` becomes a directory of what is in it.
  /// `sha256` and `size` are the archive's.
  bool unpack = false;
  std::uint64_t strip_components = 0;  ///< leading folders left out of its names, as tar does

  /// A failure is reported but does not fail the job (exit code 3).
  bool optional = false;

  bool operator==(const Entry&) const = default;
};

struct Manifest {
  /// Where it came from, for messages: a path, "<stdin>" or "<text>".
  std::string origin;
  std::vector<Entry> entries;
};

/// Parses version 1 of the format, or a bare array of entries. kUsage names every mistake found,
/// one per line as `origin:line:column: /json/pointer: what is wrong`.
[[nodiscard]] Result<Manifest> parse_manifest(std::string_view text, std::string origin = "<text>");

/// Reads `path`, or standard input for "-", and parses it. kNotFound when there is no such file,
/// kUsage as parse_manifest. Blocks on the file.
[[nodiscard]] Result<Manifest> load_manifest(const std::string& path);

/// The text of a manifest, as parse_manifest reads it: version 1, the same bytes for the same
/// entries. Fields that are not set are left out.
[[nodiscard]] std::string manifest_text(const Manifest& manifest);

/// The JSON Schema (draft 2020-12) of a manifest, as `fvprefetch schema` prints it.
[[nodiscard]] std::string_view manifest_schema();

/// Checks an entry that was not read from a file (ensure_checkpoint's arguments) by the same rules.
[[nodiscard]] Status validate(const Entry& entry);

}  // namespace fvprefetch
