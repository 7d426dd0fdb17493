// What repositories a folder holds, at which commit, and with which digests.
//
// Layout under the root:
//   models/<org>/<name>/...   datasets/...   spaces/...   the files of repository <org>/<name>
//   models/<name>/...         a repository without organisation: a folder that holds files itself
//   <repository>/.testhub.json  settings, never served; see RepoSettings
// A commit is the SHA-1 over the sorted (path, size, digest) of its files: the same bytes give the
// same commit on every machine, a changed byte gives another. A commit that was once seen stays
// answerable as long as its files are unchanged on disk. Thread-safe; hashing a file the first time
// holds up other requests about repositories.
#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace fvprefetch::testhub {

enum class RepoType { kModel, kDataset, kSpace };

/// "models", "datasets", "spaces": folder, part of API addresses.
std::string plural_of(RepoType type);

/// .testhub.json, every field optional.
struct RepoSettings {
  // "lfs": patterns on path or file name; without it these and files over 10 MiB.
  std::optional<std::vector<std::string>> lfs;
  bool gated = false;
  bool is_private = false;  // "private"
  bool disabled = false;
  std::string token;  // the one token that gated and private repositories accept
  bool xet = true;    // false: LFS files as before Xet, without its headers
  // "branches": name -> folder in the repository ("." = itself, without the folders of the other
  // branches). A name of 40 hex digits is a commit: that id instead of the computed one.
  std::map<std::string, std::string> branches = {{"main", "."}};
  std::string renamed_to;
};

struct Repo {
  RepoType type = RepoType::kModel;
  std::string id;
  std::filesystem::path folder;
  RepoSettings settings;

  std::string key() const { return plural_of(type) + "/" + id; }
};

/// What tells that a file is still the one that was hashed.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t modified_ns = 0;
  std::int64_t changed_ns = 0;
  auto operator<=>(const FileIdentity&) const = default;
};

struct RepoFile {
  std::string path;
  std::filesystem::path disk;
  FileIdentity identity;
  bool is_lfs = false;
  std::string git_oid;  // of the bytes, or of the pointer text for LFS
  std::string sha256;   // LFS only
  std::string xet_hash;
  std::uint64_t pointer_size = 0;

  std::uint64_t size() const { return identity.size; }
  /// What the Hub calls the etag of the content: sha256 for LFS, git SHA-1 otherwise.
  const std::string& etag() const { return is_lfs ? sha256 : git_oid; }
};

struct Snapshot {
  std::string commit;
  std::map<std::string, RepoFile> files;  // by path
  std::int64_t modified_ns = 0;           // newest file
};

class RepoStore {
 public:
  explicit RepoStore(std::filesystem::path root) : root_(std::move(root)) {}

  /// Nothing when there is no such folder. Throws when .testhub.json is not understood.
  std::optional<Repo> find(RepoType type, const std::string& id) const;

  /// Branch or commit; null when the repository has neither.
  std::shared_ptr<const Snapshot> snapshot(const Repo& repo, const std::string& revision);

  /// False when the file changed or went since the snapshot was taken.
  static bool is_current(const RepoFile& file);

  /// The LFS file with these bytes in any snapshot of the repository.
  std::optional<RepoFile> find_lfs(const Repo& repo, const std::string& sha256);

 private:
  std::shared_ptr<const Snapshot> scan(const Repo& repo, const std::string& branch);
  RepoFile describe(const Repo& repo, const std::string& path, const std::filesystem::path& disk);

  const std::filesystem::path root_;
  std::mutex mutex_;                                         // guards both below
  std::map<std::pair<std::string, bool>, RepoFile> hashed_;  // by disk path and LFS or not
  std::map<std::string, std::map<std::string, std::shared_ptr<const Snapshot>>> known_;
};

}  // namespace fvprefetch::testhub
