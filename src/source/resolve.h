// From a manifest entry to what it asks for: the order of decisions of ensure_checkpoint, the
// place of a URL entry, its expected digest, and the choice of files of a snapshot. No I/O but the
// one look whether a source is an existing path.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/environment.h"
#include "fvprefetch/error.h"
#include "fvprefetch/manifest.h"
#include "fvprefetch/plan.h"
#include "source/hub.h"

namespace fvprefetch {

/// A source that exists on disk already.
struct PathSource {
  std::string path;
  std::string sha256;  ///< as the manifest has it; may be empty
  std::optional<std::uint64_t> size;
};
struct UrlSource {
  std::string root;         ///< the eval cache, or TORCH_HOME
  std::string relative;     ///< below root, no ".."; of an archive: the directory
  FileSpec file;            ///< urls: source, then mirrors
  std::string digest_rule;  ///< "manifest", "clip address", "name suffix" or "none"
  /// The file is an archive that is unpacked without so many leading folders; nullopt: the file is
  /// what is wanted.
  std::optional<std::uint64_t> strip_components;
  bool name_is_guessed = false;  ///< as Entry has it
  [[nodiscard]] bool is_archive() const { return strip_components.has_value(); }
  [[nodiscard]] std::string path() const { return root + "/" + relative; }
};
struct HubSource {
  hub::Repo repo;
  std::string revision;  ///< "main" when the manifest has none
  std::string filename;  ///< empty: snapshot
  std::vector<std::string> include;
  std::vector<std::string> exclude;
  std::string sha256;  ///< of `filename`, from the manifest; may be empty
  std::optional<std::uint64_t> size;
  /// The manifest's list of the commit's files, sorted by path; empty: none, the Hub is asked.
  std::vector<RepoFile> files;
};

/// What an entry is. A variant in the order of the contract's decisions.
using Source = std::variant<PathSource, UrlSource, HubSource>;

/// Decides what `entry` is. kNotFound for an absolute or ./ path that is not there and for a
/// source that is neither path, URL nor repo id; kUsage for a bad name, destination or repo id.
[[nodiscard]] Result<Source> resolve(const Entry& entry, const EnvironmentLookup& env,
                                     const std::string& eval_cache);

/// By which key FastVideo's ensure_checkpoint locks the same source (eval-contract section 3);
/// nullopt where it would not, or must not be told: a query or a user in an address is a secret,
/// and the name of the lock is public.
[[nodiscard]] std::optional<std::string> fastvideo_key(const Source& source);

[[nodiscard]] EntryKind kind_of(const Source& source);

/// What to do when a page came from `url`, which looks like the address of one: where the file
/// itself is, or how the repository is named; "": nothing is known of it.
[[nodiscard]] std::string page_hint(const std::string& url, const EnvironmentLookup& env);

/// An entry's `source` for people: of a URL what is no secret, anything else as it is.
[[nodiscard]] std::string without_secrets(const std::string& source);

/// kUsage when two URL entries of different sources have one destination, or two entries one name.
[[nodiscard]] Status check_destinations(const std::vector<Entry>& entries,
                                        const std::vector<Source>& sources);

/// Python's fnmatch.fnmatchcase, as huggingface_hub uses it.
[[nodiscard]] bool fnmatch(std::string_view pattern, std::string_view text);

/// The files of `tree` that `source` asks for. kNotFound when `filename` is not among them, or when
/// patterns match nothing.
[[nodiscard]] Result<std::vector<RepoFile>> select(const HubSource& source,
                                                   const std::vector<RepoFile>& tree);

}  // namespace fvprefetch
