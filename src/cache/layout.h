// The names of everything that lies in a cache, and which names are refused. Pure: no I/O.
//
// Hub cache (huggingface_hub's layout, hf-contract section 2; ours marked *):
//   <root>/CACHEDIR.TAG
//   <root>/.locks/<folder>/<blob>.lock             flock, shared with Python's clients
//   <root>/.locks/<folder>/<blob>.holder           * who holds it, for messages
//   <root>/.locks/<folder>/<commit>.lock, .lease   * flock and lease of a snapshot
//   <root>/.locks/doctor.<8 hex>/                  * of a running `doctor`: tries its locks
//   <root>/.locks/<folder>/<8 hex>.lease-record    * of one process: what its leases are links to
//   <root>/<folder>/blobs/<blob>
//   <root>/<folder>/blobs/<blob>.<8 hex>.fvprefetch-part    * unfinished download
//   <root>/<folder>/refs/<revision>
//   <root>/<folder>/snapshots/<commit>/<path>      relative link to the blob
//   <root>/<folder>/trees/<commit>.json
//   <root>/<folder>/.no_exist/<commit>/<path>      empty: the commit has no such file
//   <root>/<folder>/.fvprefetch/receipts/<key>.json          * what was verified
//   <root>/<folder>/.fvprefetch/tmp/<8 hex>                  * links and small files on their way
//   <root>/<folder>/.fvprefetch/partials/<blob>.<8 hex>.json * what lies in an unfinished download
// URL files, below a root (the eval cache, or TORCH_HOME):
//   <root>/<dir>/<name>
//   <root>/<dir>/.<name>.<8 hex>.fvprefetch-part   *
//   <root>/<dir>/<name>/                           an entry that is unpacked
//   <root>/<dir>/.<name>.<8 hex>.fvprefetch-unpack/  * its new tree, or the old one on its way out;
//                                                  has the tag of the archive's download
//   <root>/.fvprefetch/locks/<key>.lock, .holder, .lease   *
//   <root>/.fvprefetch/locks/<8 hex>.lease-record  *
//   <root>/.fvprefetch/receipts/<key>.json         *
//   <root>/.fvprefetch/partials/<key>.<8 hex>.json *
//   <root>/.fvprefetch/tmp/<8 hex>                 * receipts on their way
//   <root>/.fvprefetch/doctor.<8 hex>/             * as in the Hub cache
//   <root>/.fvprefetch/steps/<step>.json           * how a run without MPI ended: for its other
//   ranks <root>/.fvprefetch/steps/<step>.lease          * of the rank that works for them
//   <root>/.fvprefetch/steps/<step>.<rank>.taken   * which such record that rank has returned
// What is just being made in a group's directory is .<8 hex>.fvprefetch-new for an instant, beside
// its name, in all of these.
// A journal and a holder record on their way are <name>.json.tmp and <name>.holder.<8 hex>; a lease
// that was taken from a dead holder is <name>.lease.<8 hex> until it is gone.
// where <key> is the SHA-256 of what it stands for: fixed length, no secret, no path tricks.
// Nothing of ours lies in the Hub cache's root, in snapshots/ or in refs/: scanners look there.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch::layout {

/// "models--org--name" for type "model"; the name the user gave, even when the Hub renamed it.
[[nodiscard]] std::string repo_folder(std::string_view repo_type, std::string_view repo_id);

/// Whether `path`, sent by a server, may be appended to a directory: relative, no empty, "." or
/// ".." segment, no backslash-separated "..", no control character, no segment over 255 bytes.
[[nodiscard]] bool safe_relative_path(std::string_view path);
/// 40 or 64 lower-case hex digits, else letters, digits, ".", "_", "-" (at most 200, not "."/"..").
[[nodiscard]] bool safe_blob_name(std::string_view blob);
/// A revision that may name a file below refs/.
[[nodiscard]] bool safe_revision(std::string_view revision);

/// Paths of one repo in a Hub cache. Arguments must be safe (the functions above).
class HubRepo {
 public:
  HubRepo(std::string root, std::string_view repo_type, std::string_view repo_id);
  /// The repo that a folder of the root belongs to; nullopt: to none.
  [[nodiscard]] static std::optional<HubRepo> in_folder(std::string root, std::string_view folder);

  [[nodiscard]] const std::string& root() const { return root_; }
  [[nodiscard]] std::string directory() const;
  [[nodiscard]] std::string blobs() const;
  [[nodiscard]] std::string blob(std::string_view blob) const;
  /// A new private name beside the blob; `tag` is 8 hex digits.
  [[nodiscard]] std::string partial(std::string_view blob, std::string_view tag) const;
  /// The journal of that partial.
  [[nodiscard]] std::string journal(std::string_view blob, std::string_view tag) const;
  [[nodiscard]] std::string journals() const;
  [[nodiscard]] std::string snapshot(std::string_view commit) const;
  [[nodiscard]] std::string pointer(std::string_view commit, std::string_view path) const;
  /// Text of the link at pointer(): "../../blobs/<blob>", one more "../" per folder of `path`.
  [[nodiscard]] static std::string pointer_target(std::string_view path, std::string_view blob);
  [[nodiscard]] std::string refs() const;
  [[nodiscard]] std::string ref(std::string_view revision) const;
  [[nodiscard]] std::string tree(std::string_view commit) const;
  [[nodiscard]] std::string no_exist(std::string_view commit) const;
  [[nodiscard]] std::string locks() const;
  [[nodiscard]] std::string lock(std::string_view blob) const;
  /// Of the snapshot as a whole; no other program knows it.
  [[nodiscard]] std::string snapshot_lock(std::string_view commit) const { return lock(commit); }
  /// `selection`: the canonical text of filename and patterns.
  [[nodiscard]] std::string receipt(std::string_view commit, std::string_view selection) const;
  [[nodiscard]] std::string state() const;  ///< .fvprefetch
  [[nodiscard]] std::string temporaries() const;
  [[nodiscard]] std::string temporary(std::string_view tag) const;

 private:
  std::string root_;
  std::string folder_;
};

/// Paths of one URL file below `root`; `relative` must be safe, or empty where only the folders
/// that all files of a root share are asked for.
class UrlFile {
 public:
  UrlFile(std::string root, std::string relative);

  [[nodiscard]] const std::string& root() const { return root_; }
  [[nodiscard]] std::string path() const;
  [[nodiscard]] std::string directory() const;
  [[nodiscard]] std::string partial(std::string_view tag) const;
  /// The directory beside path() that the archive of that partial is unpacked into.
  [[nodiscard]] std::string unpacking(std::string_view tag) const;
  /// The journal of that partial.
  [[nodiscard]] std::string journal(std::string_view tag) const;
  [[nodiscard]] std::string journals() const;
  /// What its lock, receipt and journals are named by.
  [[nodiscard]] const std::string& key() const { return key_; }
  [[nodiscard]] std::string locks() const;
  [[nodiscard]] std::string lock() const;
  [[nodiscard]] std::string receipt() const;
  [[nodiscard]] std::string state() const;
  [[nodiscard]] std::string temporaries() const;
  [[nodiscard]] std::string temporary(std::string_view tag) const;

 private:
  std::string root_;
  std::string relative_;
  std::string key_;
};

/// "<lock without .lock>.holder".
[[nodiscard]] std::string holder_record(std::string_view lock);
/// "<lock without .lock>.lease".
[[nodiscard]] std::string lease_beside(std::string_view lock);
/// What the leases of one process in `directory` are links to.
[[nodiscard]] std::string lease_record(std::string_view directory, std::string_view tag);
/// The record inside a lease that is a directory.
[[nodiscard]] std::string record_in_lease(std::string_view lease);
/// Where a lease goes that is taken from its holder.
[[nodiscard]] std::string tombstone(std::string_view lease, std::string_view tag);
/// FastVideo's lock for `key` in its temporary directory (eval-contract section 3). nullopt where
/// its name would be too long for a file: FastVideo itself fails there.
[[nodiscard]] std::optional<std::string> fastvideo_lock(std::string_view temporary_directory,
                                                        std::string_view key);
/// The lock in `directory` of a blob or of UrlFile::key().
[[nodiscard]] std::string lock_beside(std::string_view directory, std::string_view stem);

/// Where the processes of one step meet when they have no MPI, below the root of an eval cache.
/// `step` must be safe (safe_blob_name).
class StepFiles {
 public:
  StepFiles(std::string_view root, std::string step);

  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] std::string record() const;
  [[nodiscard]] std::string lock() const;  ///< is never made; the lease lies beside it
  [[nodiscard]] std::string taken(int rank) const;
  /// A manifest that one process has read for all.
  [[nodiscard]] std::string manifest() const;
  /// That rank has no MPI, and why.
  [[nodiscard]] std::string without_mpi(int rank) const;
  /// Names in directory() of the ranks that have one of these.
  [[nodiscard]] bool is_taken(std::string_view file_name) const;
  [[nodiscard]] bool is_without_mpi(std::string_view file_name) const;

 private:
  [[nodiscard]] bool is_of_rank(std::string_view file_name, std::string_view suffix) const;

  std::string directory_;
  std::string step_;
};
[[nodiscard]] std::string steps(std::string_view root);
/// Whether `file_name` is one that StepFiles gives, but for the lock.
[[nodiscard]] bool is_step_file(std::string_view file_name);

/// The directory inside `directory` that `doctor` has to itself.
[[nodiscard]] std::string doctor_directory(std::string_view directory, std::string_view tag);
/// Whether `file_name` is one that doctor_directory() gives.
[[nodiscard]] bool is_doctor_directory(std::string_view file_name);
/// Where the locks of the Hub cache `root` lie.
[[nodiscard]] std::string hub_locks(std::string_view root);

/// The tag of `file_name` when it is the journal of a partial of `stem` (the blob; of a URL file
/// its key); else "".
[[nodiscard]] std::string_view journal_tag(std::string_view file_name, std::string_view stem);

// Names found in a cache, taken apart. nullopt (false): not a name that we would give. The parts
// are views into `file_name`.

/// Of a partial: what it is one of (a blob; a URL file's name, or the hash that stands for a long
/// one), and its tag.
struct TaggedName {
  std::string_view stem;
  std::string_view tag;
};
[[nodiscard]] std::optional<TaggedName> hub_partial(std::string_view file_name);
[[nodiscard]] std::optional<TaggedName> url_partial(std::string_view file_name);
/// The same of UrlFile::unpacking().
[[nodiscard]] std::optional<TaggedName> unpacking_name(std::string_view file_name);

/// The tag of a partial of either kind; "" when it is none.
[[nodiscard]] std::string_view partial_tag(std::string_view file_name);

/// The name of a journal, without its folder.
[[nodiscard]] std::string journal_file(std::string_view key, std::string_view tag);
struct JournalName {
  std::string_view key;  ///< the blob, or UrlFile::key()
  std::string_view tag;
  bool temporary = false;  ///< on its way to that name
};
[[nodiscard]] std::optional<JournalName> journal_name(std::string_view file_name);

struct HolderName {
  std::string_view stem;   ///< the lock's name is "<stem>.lock"
  bool temporary = false;  ///< on its way to that name
};
[[nodiscard]] std::optional<HolderName> holder_name(std::string_view file_name);

/// A lease, or what is left of one.
struct LeaseName {
  enum class Kind { kLease, kTombstone, kRecord };
  Kind kind = Kind::kLease;
  std::string_view stem;  ///< the lock's name is "<stem>.lock"; of a record: its tag
};
[[nodiscard]] std::optional<LeaseName> lease_name(std::string_view file_name);

/// Whether `file_name` is one that temporary() gives.
[[nodiscard]] bool is_temporary(std::string_view file_name);
/// Whether `file_name` is one that base/posix gives to what is being made.
[[nodiscard]] bool is_unfinished(std::string_view file_name);
/// Whether a file of this name is ours alone, or a directory: no archive may bring one.
[[nodiscard]] bool is_private(std::string_view file_name);
/// Whether a partial's stem may be the hash of a name that is too long.
[[nodiscard]] bool may_be_hash(std::string_view stem);

/// Whether `file_name`, found beside `target_name`, is an unfinished download of it: ours, or
/// huggingface_hub's "<blob>.incomplete" and "<blob>.<8 hex>.incomplete".
[[nodiscard]] bool is_partial_of(std::string_view file_name, std::string_view target_name);

}  // namespace fvprefetch::layout
