// Is it there? look() reads the caches and nothing else: no request, no lock, no write, so that a
// warm run costs none of these. ask_hub() is for what they do not tell.
#pragma once

#include <map>
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
  /// The ref has white space in it, with which no other client finds the commit.
  bool ref_inexact = false;
  /// The whole listing of the commit, when it was asked for in this run.
  std::optional<std::vector<RepoFile>> tree;
  /// Taken for complete although the manifest pins a digest that was not checked: hashing was
  /// forbidden.
  bool unchecked = false;
  /// The URL file that was looked at, whether it is the expected one or not.
  std::optional<posix::FileInfo> judged;
  std::string sha256;  ///< of `judged`, when it was hashed
  /// Hub: every file that is there was hashed by us, now or when its receipt was written.
  bool all_hashed = false;
  /// What is wrong with missing files that lie there all the same, as what is said of the file ("is
  /// empty"): by index into `files`.
  std::map<std::size_t, std::string> faults;
  std::vector<std::string> warnings;

  [[nodiscard]] std::uint64_t bytes_total() const;
  /// The caches do not tell which files there are.
  [[nodiscard]] bool unlisted() const { return need == Need::kRevision || need == Need::kTree; }
};

/// Whether a present file may be hashed to find out if it is the one that the manifest pins.
enum class Hashing { kAllowed, kForbidden };

/// The one text that stands for the choice of files of a Hub entry, and for what the manifest pins
/// of them (receipts are keyed by it).
[[nodiscard]] std::string selection_of(const HubSource& source);
/// SHA-256 of a URL source as given: tells sources apart without keeping their secrets.
[[nodiscard]] std::string source_key(const UrlSource& source);
/// Where a file came from whose receipt has another source_key, as the end of a sentence.
[[nodiscard]] std::string other_source(const Receipt& receipt, const UrlSource& source);

/// What the Hub was asked in this run; without it refs, receipts and trees/<commit>.json have to
/// do. An entry with `files` needs none of these: its manifest is the list.
struct Told {
  std::optional<std::string> commit;          ///< to look at, whatever the ref says by now
  bool revision = false;                      ///< it was the Hub that named the commit
  std::optional<std::vector<RepoFile>> tree;  ///< of `commit`
  bool cached_ref = false;  ///< the commit that the cache has for a branch will do, refresh or not
};

/// The receipt of a URL file, when it is about `file`, which was found there. Without a sha256 it
/// tells only that the file was looked into before.
[[nodiscard]] std::optional<Receipt> url_receipt(const UrlStore& store,
                                                 const posix::FileInfo& file);

/// The commit of a Hub entry and the files that it has there, as far as the caches tell: by the
/// receipt, else by trees/<commit>.json. Does not look whether the files are there: `need` is
/// kRevision, kTree or, with `files` known, kNothing.
[[nodiscard]] Result<Survey> list_hub(const HubSource& source, const Session& session,
                                      const Told& told = {});

/// What can be said of the files where nothing lists them: those of snapshots/<commit> that
/// `source` asks for, each with the size it has there (none: its link leads to no file) and the
/// digest that the name of its blob tells. kNotFound when none matches.
[[nodiscard]] Result<std::vector<FileSpec>> files_in_snapshot(const HubSource& source,
                                                              const Session& session,
                                                              const std::string& commit);

/// What the caches tell of `source`.
[[nodiscard]] Result<Survey> look(const Source& source, const Session& session, Hashing hashing,
                                  const Told& told = {});

/// Asks the Hub for what look() found missing (`known.need` is kRevision or kTree): one request for
/// the revision, then, unless the cache has the tree, the tree. Each is asked once per run. Where
/// the Hub does not answer and the cache is complete, that is taken, with a warning, exactly where
/// the real client does so.
[[nodiscard]] Result<Survey> ask_hub(const Source& source, const Survey& known, Session& session,
                                     Hashing hashing);

/// Whether the URL file that is at `path` now is the one that `source` expects. Used by look() and
/// again under the lock.
struct UrlVerdict {
  std::optional<posix::FileInfo> info;  ///< the file that was judged; nullopt: nothing is there
  bool good = false;
  std::string verified_by;
  std::string why;     ///< what is wrong with it, as what is said of the file
  std::string sha256;  ///< of its bytes, when they were hashed
  bool wants_receipt = false;
  bool unchecked = false;  ///< as in Survey
};
/// What can be seen to be wrong with the file at `path`, as by glance(), were it that of `source`;
/// nullopt when it is gone.
[[nodiscard]] std::optional<std::string> url_fault(const UrlSource& source,
                                                   const std::string& path);

/// How closely it is looked at.
struct UrlLook {
  bool refresh = false;  ///< what nothing vouches for is not taken
  bool hash = false;     ///< where a digest is known, the file's is made (verify_foreign)
  Hashing hashing = Hashing::kAllowed;
};
[[nodiscard]] UrlLook url_look(const Session& session, Hashing hashing);
[[nodiscard]] Result<UrlVerdict> judge_url_file(const UrlSource& source, const UrlLook& how,
                                                const StopCheck& must_stop);

/// Whether the Hub file at `path`, which no link to its blob vouches for, has the digest that it
/// must have.
[[nodiscard]] Result<bool> has_digest(const FileSpec& file, const std::string& path,
                                      const StopCheck& must_stop);

/// Whether the Hub file at `path` is the one that the manifest pins by `sha256`, which matters
/// where git's digest names it (no LFS file); an empty `sha256` pins nothing.
enum class Pin {
  kAgrees,
  kOther,  ///< the file is what the Hub says, and not what the manifest says
  kBroken  ///< the file is not even what its name in the cache says
};
[[nodiscard]] Result<Pin> check_pin(const std::string& sha256, const FileSpec& file,
                                    const std::string& path, const StopCheck& must_stop);
/// Of a right file that is a pointer.
[[nodiscard]] std::string warning_of_pointer(const std::string& path);
/// The error of kOther.
[[nodiscard]] Error pin_error(const std::string& sha256, const FileSpec& file);

/// Offline, a Hub entry without receipt or tree: what can be said from the snapshot folder alone.
/// A hit marked "unverified" when something matches the entry and no link of it leads nowhere, else
/// kOfflineMissing.
[[nodiscard]] Result<Survey> look_offline(const HubSource& source, const Session& session,
                                          const Survey& known, Hashing hashing);

}  // namespace fvprefetch
