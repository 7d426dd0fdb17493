// The words that source, cache and transfer share: what a file is, and what an entry comes to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch {

/// What ensure_checkpoint found a source to be.
enum class EntryKind {
  kPath,
  kUrl,
  kArchive,  ///< a URL whose file is unpacked; the entry's path is the directory
  kHubFile,
  kHubSnapshot
};

/// "path", "url", "archive", "hub_file", "hub_snapshot".
[[nodiscard]] std::string_view name(EntryKind kind);

/// What the bytes of a file must hash to.
struct Digest {
  enum class Kind {
    kSha256,  ///< `hex` may be a prefix of at least 8 digits (torch.hub's file names)
    kGitSha1  ///< SHA-1 over "blob <size>\0" and the bytes (git's object id)
  };
  Kind kind = Kind::kSha256;
  std::string hex;

  bool operator==(const Digest&) const = default;
};

/// "sha256", "git-sha1".
[[nodiscard]] std::string_view name(Digest::Kind kind);

/// One file to have on disk.
struct FileSpec {
  /// Path inside the entry: the path in the repo, or the file name of a URL entry.
  std::string path;
  /// Addresses of the same bytes, tried in order. May hold secrets: print them redacted only.
  std::vector<std::string> urls;
  std::optional<std::uint64_t> size;  ///< bytes
  std::optional<Digest> digest;
  /// Hub: name of the blob in the cache (the ETag: sha256 of an LFS file, else git's object id).
  std::string blob;

  bool operator==(const FileSpec&) const = default;
};

/// One file of a Hub repo at a commit, as the Hub's tree tells it and trees/<commit>.json keeps it.
struct RepoFile {
  std::string path;
  std::uint64_t size = 0;      ///< bytes of the file itself, also for LFS
  std::string git_oid;         ///< git's object id of the file, or of its LFS pointer
  std::string lfs_sha256;      ///< LFS only
  std::uint64_t lfs_size = 0;  ///< LFS only
  std::string xet_hash;        ///< 64 hex digits or empty

  bool operator==(const RepoFile&) const = default;
};

/// What `fvprefetch plan` says of one file.
struct PlannedFile {
  std::string path;
  std::string url;                    ///< redacted
  std::optional<std::uint64_t> size;  ///< unknown when the server does not tell
  bool present = false;
  /// "manifest", "hub", "clip address", "name suffix", "none"; "receipt": of an unpacked file.
  std::string digest_rule;
};

/// What `fvprefetch plan` and `status` say of one entry.
struct PlannedEntry {
  std::string name;
  EntryKind kind = EntryKind::kPath;
  std::string source;  ///< redacted
  std::string path;    ///< what the entry resolves to, once it is there
  std::string commit;  ///< Hub only
  std::vector<PlannedFile> files;
  /// "complete", "partial", "missing", "being_fetched" or "failed".
  std::string state;
  std::string holder;               ///< who is fetching it: host, pid, job, since when
  std::uint64_t bytes_partial = 0;  ///< bytes of unfinished downloads beside the target
  std::optional<Error> error;
};

struct Plan {
  std::vector<PlannedEntry> entries;
  std::optional<Error> error;  ///< first failed required entry
};

}  // namespace fvprefetch
