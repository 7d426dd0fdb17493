// One repo in a Hub cache: what is there, and how a verified file becomes visible. Byte-compatible
// with huggingface_hub in both directions. Never opens a socket and takes no lock: the caller holds
// the blob's lock while it publishes.
//
// Order of writes (hf-contract section 16): directories -> blob by rename -> link by rename -> ref,
// only when it changes and after its snapshot folder exists. A reader at any instant finds a
// complete state. Existing blobs may be links into the shared blob store: they are followed, never
// opened for writing, and replaced by rename over the name only.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/posix.h"
#include "cache/layout.h"
#include "cache/partials.h"
#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"

namespace fvprefetch {

/// How a snapshot's files lead to blobs.
enum class Links {
  kSymbolic,  ///< by links, or by files of their own where the file system refuses links
  kNone       ///< by files of their own (HF_HUB_DISABLE_SYMLINKS)
};

class HubStore {
 public:
  /// `cache` is the Hub cache's root; nothing is created.
  HubStore(std::string cache, std::string_view repo_type, std::string_view repo_id,
           Links links = Links::kSymbolic);

  [[nodiscard]] const layout::HubRepo& paths() const { return paths_; }
  /// Snapshots are made of links, where the file system takes them.
  [[nodiscard]] bool has_links() const { return links_ == Links::kSymbolic; }

  // Reading. None of it writes or locks.

  /// The commit that refs/<revision> holds; surrounding white space is forgiven, anything but 40
  /// hex digits is as if absent.
  struct Ref {
    std::string commit;
    bool exact = true;  ///< false: white space was forgiven, which no other reader does
  };
  [[nodiscard]] Result<std::optional<Ref>> read_ref(const std::string& revision) const;
  /// When that ref was last written, RFC 3339 UTC; "" when it is not there.
  [[nodiscard]] std::string ref_time(const std::string& revision) const;
  /// trees/<commit>.json, when it is there, readable and of format_version 1.
  [[nodiscard]] std::optional<std::vector<RepoFile>> read_tree(const std::string& commit) const;
  /// The pointer exists, leads to a regular file, and has the expected size (when one is known).
  [[nodiscard]] bool has_file(const std::string& commit, const FileSpec& file) const;
  /// The pointer is a link to the file's blob, as publish_pointer() makes it. A blob's name is its
  /// digest, and nothing is given that name unchecked.
  [[nodiscard]] bool links_to_blob(const std::string& commit, const FileSpec& file) const;
  /// The files of snapshots/<commit> as they lie there, sorted: what can be said of a snapshot that
  /// nothing else tells of. Links that lead nowhere come with present = false. At most 100,000
  /// names (else kInternal); folders that are links are not entered.
  struct SnapshotFile {
    std::string path;
    bool present = false;
    std::uint64_t size = 0;
  };
  [[nodiscard]] Result<std::vector<SnapshotFile>> list_snapshot(const std::string& commit) const;
  /// The blob exists with the expected size.
  [[nodiscard]] bool has_blob(const FileSpec& file) const;
  /// Bytes of unfinished downloads of the blob, ours and Python's: the largest one.
  [[nodiscard]] std::uint64_t partial_bytes(const std::string& blob) const;
  /// Tags of our own unfinished downloads of the blob (paths().partial(), paths().journal()).
  [[nodiscard]] std::vector<std::string> unfinished(const std::string& blob,
                                                    JournalNames& names) const;

  // Writing.

  /// kIntegrity when the file's path or blob, as a server or a record told them, cannot be names in
  /// the cache. To be asked before any other path is made of them.
  [[nodiscard]] static Status accepts(const FileSpec& file);
  /// blobs/, refs/, snapshots/<commit>/, .locks/<folder>/ and CACHEDIR.TAG.
  [[nodiscard]] Status prepare(const std::string& commit) const;
  /// Renames a verified private file over blobs/<blob>. `partial` as paths().partial() named it.
  [[nodiscard]] Result<posix::FileInfo> publish_blob(posix::Fd fd, const std::string& partial,
                                                     const std::string& blob) const;
  /// What may become of a blob where the pointer cannot be a link to it.
  enum class Blob {
    kStays,  ///< the pointer is a copy
    kMoves   ///< the blob is of no other use and becomes the pointer, as huggingface_hub has it
  };
  /// Makes the snapshot's link to the blob. A right link that is there already is left.
  [[nodiscard]] Status publish_pointer(const std::string& commit, const FileSpec& file,
                                       Blob blob) const;
  /// Notes that the commit has no file `path`: readers that look for optional files then ask
  /// nobody.
  [[nodiscard]] Status write_absent(const std::string& commit, const std::string& path) const;
  /// Writes refs/<revision> (40 hex digits, no newline) when it differs.
  [[nodiscard]] Status write_ref(const std::string& revision, const std::string& commit) const;
  /// Writes trees/<commit>.json (mode 0644, huggingface_hub's format); `files` must be complete.
  [[nodiscard]] Status write_tree(const std::string& commit,
                                  const std::vector<RepoFile>& files) const;

 private:
  layout::HubRepo paths_;
  Links links_;
};

}  // namespace fvprefetch
