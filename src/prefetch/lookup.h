// Is it there? look() reads the caches and nothing else: no request, no lock, no write, so that a
// warm run costs none of these. ask_hub() is for what they do not tell.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/posix.h"
#include "cache/receipt.h"
#include "cache/url_store.h"
#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"
#include "prefetch/session.h"
#include "source/resolve.h"

namespace fvprefetch {

/// What is known of one entry.
struct Survey {
  /// What has to happen next, in this order.
  enum class Need {
    kNothing,   ///< complete
    kRevision,  ///< ask the Hub which commit
    kTree,      ///< ask the Hub which files
    kFiles      ///< fetch `missing`
  };
  Need need = Need::kNothing;
  std::string path;         ///< what the entry resolves to; empty until the commit is known
  std::string commit;       ///< Hub
  std::string resolved_at;  ///< Hub: when a branch was looked up
  std::string verified_by;  ///< as in the report
  std::vector<FileSpec> files;
  std::vector<std::size_t> missing;  ///< indices into `files`
  /// Complete, but nothing on disk says so yet: a receipt saves the next run the trouble.
  bool wants_receipt = false;
  /// The Hub was asked for the commit or its files in this run: refs and receipt may be behind.
  bool asked = false;
  /// The whole listing of the commit, when it was asked for in this run.
  std::optional<std::vector<RepoFile>> tree;
  /// Taken for complete although the manifest pins a digest that was not checked: hashing was
  /// forbidden.
  bool unchecked = false;
  /// The URL file that was looked at, whether it is the expected one or not.
  std::optional<posix::FileInfo> judged;
  std::vector<std::string> warnings;

  [[nodiscard]] std::uint64_t bytes_total() const;
};

/// Whether a present file may be hashed to find out if it is the one that the manifest pins.
enum class Hashing { kAllowed, kForbidden };

/// The one text that stands for the choice of files of a Hub entry, and for what the manifest pins
/// of them (receipts are keyed by it).
[[nodiscard]] std::string selection_of(const HubSource& source);
/// SHA-256 of a URL source as given: tells sources apart without keeping their secrets.
[[nodiscard]] std::string source_key(const UrlSource& source);

/// The receipt of a URL file, when it is about `file`, which was found there.
[[nodiscard]] std::optional<Receipt> url_receipt(const UrlStore& store,
                                                 const posix::FileInfo& file);

/// The commit of a Hub entry and the files that it has there, as far as the caches tell (`commit`
/// and `tree` as for look()): by the receipt, else by trees/<commit>.json. Does not look whether
/// the files are there: `need` is kRevision, kTree or, with `files` known, kNothing.
[[nodiscard]] Result<Survey> list_hub(
    const HubSource& source, const Session& session,
    const std::optional<std::string>& commit = std::nullopt,
    const std::optional<std::vector<RepoFile>>& tree = std::nullopt);

/// What can be said of the files where nothing lists them: those of snapshots/<commit> that
/// `source` asks for, each with the size it has there (none: its link leads to no file) and the
/// digest that the name of its blob tells. kNotFound when none matches.
[[nodiscard]] Result<std::vector<FileSpec>> files_in_snapshot(const HubSource& source,
                                                              const Session& session,
                                                              const std::string& commit);

/// What the caches tell of `source`. For a Hub entry, `commit` and `tree` are what the Hub was
/// asked in this run; without them refs, receipts and trees/<commit>.json have to do. An entry with
/// `files` needs none of these: its manifest is the list.
[[nodiscard]] Result<Survey> look(const Source& source, const Session& session, Hashing hashing,
                                  const std::optional<std::string>& commit = std::nullopt,
                                  const std::optional<std::vector<RepoFile>>& tree = std::nullopt);

/// Asks the Hub for what look() found missing (`known.need` is kRevision or kTree): one request for
/// the revision, then, unless the cache has the tree, the tree. Each is asked once per run.
[[nodiscard]] Result<Survey> ask_hub(const Source& source, const Survey& known, Session& session,
                                     Hashing hashing);

/// Whether the URL file that is at `path` now is the one that `source` expects. `why` says what is
/// wrong with it. Used by look() and again under the lock.
struct UrlVerdict {
  std::optional<posix::FileInfo> info;  ///< the file that was judged; nullopt: nothing is there
  bool good = false;
  std::string verified_by;
  std::string why;
  bool wants_receipt = false;
  bool unchecked = false;  ///< as in Survey
};
[[nodiscard]] Result<UrlVerdict> judge_url_file(const UrlSource& source, bool refresh,
                                                Hashing hashing, const StopCheck& must_stop);

/// The Hub file at `path`, which no link to its blob vouches for, has the digest that it must have:
/// kIntegrity when it has another.
[[nodiscard]] Status check_digest(const FileSpec& file, const std::string& path,
                                  const StopCheck& must_stop);

/// A sha256 that the manifest pins for a Hub file that git's digest names (no LFS file) and that
/// lies at `path`: kIntegrity when it is another.
[[nodiscard]] Status check_pinned_sha256(const std::string& sha256, const FileSpec& file,
                                         const std::string& path, const StopCheck& must_stop);

/// Offline, a Hub entry without receipt or tree: what can be said from the snapshot folder alone.
/// A hit marked "unverified" when something matches the entry and no link of it leads nowhere, else
/// kOfflineMissing.
[[nodiscard]] Result<Survey> look_offline(const HubSource& source, const Session& session,
                                          const Survey& known, Hashing hashing);

}  // namespace fvprefetch
