#include "repo_store.h"

#include "digest.h"
#include "url.h"

#include <nlohmann/json.hpp>

#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <stdexcept>

namespace fvprefetch::testhub {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr char kSettingsFile[] = ".testhub.json";
constexpr std::uint64_t kLfsAboveBytes = 10 << 20;
constexpr const char* kLfsPatterns[] = {"*.pth", "*.safetensors", "*.bin", "*.pt"};

bool matches(const std::string& pattern, const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return ::fnmatch(pattern.c_str(), path.c_str(), FNM_NOESCAPE) == 0 ||
         ::fnmatch(pattern.c_str(), name.c_str(), FNM_NOESCAPE) == 0;
}

bool is_lfs(const RepoSettings& settings, const std::string& path, std::uint64_t size) {
  const auto hit = [&](const std::string& pattern) { return matches(pattern, path); };
  if (settings.lfs) return std::any_of(settings.lfs->begin(), settings.lfs->end(), hit);
  return size > kLfsAboveBytes ||
         std::any_of(std::begin(kLfsPatterns), std::end(kLfsPatterns), hit);
}

bool is_commit_id(const std::string& text) {
  return text.size() == 40 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

RepoSettings parse_settings(const json& from) {
  RepoSettings settings;
  for (const auto& [key, value] : from.items()) {
    if (key == "lfs") {
      settings.lfs = value.get<std::vector<std::string>>();
    } else if (key == "gated") {
      settings.gated = value.get<bool>();
    } else if (key == "private") {
      settings.is_private = value.get<bool>();
    } else if (key == "disabled") {
      settings.disabled = value.get<bool>();
    } else if (key == "token") {
      settings.token = value.get<std::string>();
    } else if (key == "xet") {
      settings.xet = value.get<bool>();
    } else if (key == "branches") {
      settings.branches = value.get<std::map<std::string, std::string>>();
    } else if (key == "renamed_to") {
      settings.renamed_to = value.get<std::string>();
    } else {
      throw std::invalid_argument("unknown field \"" + key + "\"");
    }
  }
  return settings;
}

RepoSettings read_settings(const fs::path& file) {
  std::ifstream in(file);
  if (!in) return {};
  try {
    return parse_settings(json::parse(in));
  } catch (const std::exception& error) {
    throw std::runtime_error(file.string() + ": " + error.what());
  }
}

// An organisation's folder holds folders only; a repository holds at least one file.
bool is_repo_folder(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.is_regular_file(ignored)) return true;
  }
  return false;
}

std::optional<FileIdentity> identity_of(const fs::path& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  const auto ns = [](const timespec& time) {
    return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
  };
  return FileIdentity{info.st_dev, info.st_ino, static_cast<std::uint64_t>(info.st_size),
                      ns(info.st_mtim), ns(info.st_ctim)};
}

std::string commit_of(const std::map<std::string, RepoFile>& files) {
  Digest digest(Algorithm::kSha1);
  for (const auto& [path, file] : files) {
    digest.update(path + '\0' + std::to_string(file.size()) + '\0' + file.etag() + '\n');
  }
  return digest.finish();
}

}  // namespace

std::string plural_of(RepoType type) {
  switch (type) {
    case RepoType::kModel:
      return "models";
    case RepoType::kDataset:
      return "datasets";
    case RepoType::kSpace:
      return "spaces";
  }
  return "";
}

std::optional<Repo> RepoStore::find(RepoType type, const std::string& id) const {
  if (!is_safe_relative(id)) return std::nullopt;
  const fs::path folder = root_ / plural_of(type) / id;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) return std::nullopt;
  const bool has_organisation = id.find('/') != std::string::npos;
  if (!has_organisation && !is_repo_folder(folder)) return std::nullopt;
  return Repo{type, id, folder, read_settings(folder / kSettingsFile)};
}

bool RepoStore::is_current(const RepoFile& file) {
  return identity_of(file.disk) == file.identity;
}

RepoFile RepoStore::describe(const Repo& repo, const std::string& path, const fs::path& disk) {
  const auto identity = identity_of(disk);
  if (!identity) throw std::runtime_error(disk.string() + " went while it was read");
  const bool lfs = is_lfs(repo.settings, path, identity->size);
  RepoFile& known = hashed_[{disk.string(), lfs}];
  if (known.identity == *identity && !known.git_oid.empty()) {
    known.path = path;
    return known;
  }
  RepoFile file;
  file.path = path;
  file.disk = disk;
  file.identity = *identity;
  file.is_lfs = lfs;
  if (lfs) {
    file.sha256 = file_sha256(disk);
    const std::string pointer =
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + file.sha256 + "\nsize " +
        std::to_string(file.size()) + "\n";
    file.pointer_size = pointer.size();
    file.git_oid = git_blob_sha1(pointer);
    // The real one is a Merkle hash; what matters is that it looks like the digest and is not.
    file.xet_hash = sha256_hex("xet" + file.sha256);
  } else {
    file.git_oid = file_git_blob_sha1(disk, file.size());
  }
  known = file;
  return file;
}

std::shared_ptr<const Snapshot> RepoStore::scan(const Repo& repo, const std::string& branch) {
  const fs::path top = (repo.folder / repo.settings.branches.at(branch)).lexically_normal();
  std::set<fs::path> other_branches;
  for (const auto& [name, folder] : repo.settings.branches) {
    other_branches.insert((repo.folder / folder).lexically_normal() / "");
  }
  auto snapshot = std::make_shared<Snapshot>();
  if (!fs::is_directory(top)) return nullptr;
  fs::recursive_directory_iterator entry(top, fs::directory_options::follow_directory_symlink);
  for (; entry != fs::end(entry); ++entry) {
    if (entry->is_directory()) {
      if (other_branches.contains(entry->path() / "")) entry.disable_recursion_pending();
      continue;
    }
    if (!entry->is_regular_file() || entry->path().filename() == kSettingsFile) continue;
    const std::string path = entry->path().lexically_relative(top).generic_string();
    RepoFile file = describe(repo, path, entry->path());
    snapshot->modified_ns = std::max(snapshot->modified_ns, file.identity.modified_ns);
    snapshot->files.emplace(path, std::move(file));
  }
  snapshot->commit = is_commit_id(branch) ? branch : commit_of(snapshot->files);
  known_[repo.key()][snapshot->commit] = snapshot;
  return snapshot;
}

std::shared_ptr<const Snapshot> RepoStore::snapshot(const Repo& repo, const std::string& revision) {
  const std::lock_guard lock(mutex_);
  if (repo.settings.branches.contains(revision)) return scan(repo, revision);
  if (!is_commit_id(revision)) return nullptr;
  auto& known = known_[repo.key()];
  if (const auto found = known.find(revision); found != known.end()) return found->second;
  // After a restart of the hub nobody may have asked for a branch yet.
  for (const auto& [branch, folder] : repo.settings.branches) scan(repo, branch);
  const auto found = known.find(revision);
  return found == known.end() ? nullptr : found->second;
}

std::optional<RepoFile> RepoStore::find_lfs(const Repo& repo, const std::string& sha256) {
  const std::lock_guard lock(mutex_);
  const auto look = [&]() -> std::optional<RepoFile> {
    for (const auto& [commit, snapshot] : known_[repo.key()]) {
      for (const auto& [path, file] : snapshot->files) {
        if (file.is_lfs && file.sha256 == sha256 && is_current(file)) return file;
      }
    }
    return std::nullopt;
  };
  if (auto file = look()) return file;
  for (const auto& [branch, folder] : repo.settings.branches) scan(repo, branch);
  return look();
}

}  // namespace fvprefetch::testhub
