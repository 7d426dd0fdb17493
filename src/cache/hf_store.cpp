#include "cache/hf_store.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "base/digest.h"
#include "base/try.h"
#include "cache/partials.h"

namespace fvprefetch {
namespace {

// huggingface_hub writes and compares the keys in this order.
using Json = nlohmann::ordered_json;

constexpr int kTreeVersion = 1;
constexpr std::uint64_t kLargestRef = 1024;  // 40 digits, and some white space that is forgiven

constexpr std::string_view kCacheDirTag =
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file is a cache directory tag created by fvprefetch.\n"
    "# For information about cache directory tags, see:\n"
    "#\thttps://bford.info/cachedir/\n";

bool is_hex_of(std::string_view text, std::size_t digits) {
  return text.size() == digits && is_hex(text);
}
bool is_commit(std::string_view text) {
  return is_hex_of(text, 40);
}
bool is_sha256(std::string_view text) {
  return is_hex_of(text, 64);
}

bool is_file_of(const std::string& path, const std::optional<std::uint64_t>& size) {
  const auto info = posix::stat(path);
  return info && *info && (*info)->regular && (!size || (*info)->size == *size);
}

Status refuse_unsafe(bool safe, std::string_view what, const std::string& name) {
  if (safe) return {};
  return fail(
      ErrorCode::kIntegrity,
      std::string(what) + " `" + name + "` cannot be a name in the cache: it could lead out of it");
}

// mkdir -p of `base`/`relative`, for `base` that is there or may be made. Below it no directory may
// be a symbolic link: in a shared cache somebody could have planted one, and our writes would go
// where it leads. (Between the look and the write it is a race, which only a member of the group
// that may write here can win; those may replace the files themselves as well.)
Status make_plain_directories(const std::string& base, std::string_view relative) {
  std::string directory = base;
  if (relative.empty()) return posix::make_directories(directory);
  while (!relative.empty()) {
    const std::size_t end = std::min(relative.find('/'), relative.size());
    directory.append("/").append(relative.substr(0, end));
    relative.remove_prefix(std::min(end + 1, relative.size()));
    FVP_TRY(const auto there, posix::lstat(directory));
    if (there && there->directory) continue;
    if (there) {
      return fail(ErrorCode::kPermission,
                  "cannot write through " + directory + ": it is " +
                      (there->link ? "a symbolic link" : "no directory") +
                      ", where a directory is expected",
                  "remove it; it was not made by fvprefetch or huggingface_hub");
    }
    FVP_CHECK_OK(posix::make_directories(directory));
  }
  return {};
}

// A snapshot's links are relative, and lead to blobs/ from where its folder really lies. Where that
// is elsewhere they would lead nowhere, for every reader.
Status check_links_lead(const std::string& snapshots, const std::string& blobs) {
  if (!posix::is_link(snapshots)) return {};
  FVP_TRY(const auto right, posix::stat(blobs));
  const auto reached = posix::stat(snapshots + "/../blobs");
  const bool leads = right && reached && *reached && (*reached)->inode == right->inode &&
                     (*reached)->device == right->device;
  if (leads) return {};
  return fail(ErrorCode::kPermission,
              "the links of a snapshot would lead nowhere: " + snapshots +
                  " is itself a link, to " + posix::real_path(snapshots) + ", beside which " +
                  blobs + " does not lie",
              "make the whole cache, or the repository's folder, a link instead");
}

std::string_view folder_of(std::string_view path) {
  const std::size_t slash = path.find_last_of('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

// For file systems without symbolic links: the pointer is a file of its own.
Status publish_copy(const std::string& from, const std::string& temp, const std::string& to) {
  FVP_TRY(const posix::Fd source, posix::open_read(from));
  FVP_TRY(posix::Fd target, posix::create_private(temp));
  constexpr std::size_t kPiece = 4U << 20U;
  std::vector<std::byte> piece(kPiece);
  const auto copy = [&]() -> Status {
    for (std::uint64_t offset = 0;;) {
      FVP_TRY(const std::size_t length, posix::read_at(source, offset, piece, from));
      if (length == 0) return {};
      FVP_CHECK_OK(posix::write_at(target, offset, std::span(piece).first(length), temp));
      offset += length;
    }
  };
  Status status = copy();
  if (status) {
    if (const auto published = posix::publish(std::move(target), temp, to); !published) {
      status = fail(published.error());
    }
  }
  if (!status) (void)posix::remove_file(temp);  // the error that matters is the first one
  return status;
}

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::optional<std::uint64_t> size_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<std::uint64_t>();
}

// One file of a tree document; nullopt for what is not well-formed, which nobody may act on.
std::optional<RepoFile> file_from(const std::string& path, const Json& object) {
  if (!object.is_object() || !layout::safe_relative_path(path)) return std::nullopt;
  RepoFile file;
  file.path = path;
  file.git_oid = text_of(object, "blob_id");
  file.lfs_sha256 = text_of(object, "lfs_sha256");
  file.xet_hash = text_of(object, "xet_hash");
  const auto size = size_of(object, "size");
  if (!size || !layout::safe_blob_name(file.git_oid)) return std::nullopt;
  file.size = *size;
  if (!file.lfs_sha256.empty()) {
    if (!is_sha256(file.lfs_sha256)) return std::nullopt;
    file.lfs_size = size_of(object, "lfs_size").value_or(file.size);
  }
  // huggingface_hub ignores the whole document then, so it is written anew.
  if (!file.xet_hash.empty() && !is_sha256(file.xet_hash)) return std::nullopt;
  return file;
}

}  // namespace

HubStore::HubStore(std::string cache, std::string_view repo_type, std::string_view repo_id,
                   Links links)
    : paths_(std::move(cache), repo_type, repo_id), links_(links) {}

Result<std::optional<HubStore::Ref>> HubStore::read_ref(const std::string& revision) const {
  if (!layout::safe_revision(revision)) return std::nullopt;
  const std::string path = paths_.ref(revision);
  // A link to a file is followed: read-only caches are farms of links to another.
  const auto info = posix::stat(path);
  if (!info && !posix::is_link(path)) return fail(info.error());
  if (!info || !*info || !(*info)->regular || (*info)->size > kLargestRef) return std::nullopt;
  FVP_TRY(const auto text, posix::read_small(path, kLargestRef));
  if (!text) return std::nullopt;
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const std::size_t first = text->find_first_not_of(kSpace);
  if (first == std::string::npos) return std::nullopt;  // Python truncates it before it writes
  std::string commit = text->substr(first, text->find_last_not_of(kSpace) - first + 1);
  if (!is_commit(commit)) return std::nullopt;
  const bool exact = commit.size() == text->size();
  return Ref{std::move(commit), exact};
}

std::string HubStore::ref_time(const std::string& revision) const {
  if (!layout::safe_revision(revision)) return {};
  const auto info = posix::stat(paths_.ref(revision));
  if (!info || !*info) return {};
  return rfc3339((*info)->mtime_ns / 1'000'000'000);
}

std::optional<std::vector<RepoFile>> HubStore::read_tree(const std::string& commit) const {
  if (!is_commit(commit)) return std::nullopt;
  const auto text = posix::read_small(paths_.tree(commit));
  if (!text || !*text) return std::nullopt;
  const Json document = Json::parse(**text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return std::nullopt;
  const auto version = document.find("format_version");
  const auto files = document.find("files");
  if (version == document.end() || *version != kTreeVersion) return std::nullopt;
  if (files == document.end() || !files->is_object()) return std::nullopt;
  std::vector<RepoFile> tree;
  for (const auto& [path, object] : files->items()) {
    auto file = file_from(path, object);
    if (!file) return std::nullopt;
    tree.push_back(*std::move(file));
  }
  std::sort(tree.begin(), tree.end(),
            [](const RepoFile& a, const RepoFile& b) { return a.path < b.path; });
  return tree;
}

bool HubStore::has_file(const std::string& commit, const FileSpec& file) const {
  return is_commit(commit) && layout::safe_relative_path(file.path) &&
         is_file_of(paths_.pointer(commit, file.path), file.size);
}

bool HubStore::links_to_blob(const std::string& commit, const FileSpec& file) const {
  return is_commit(commit) && accepts(file) &&
         posix::read_link(paths_.pointer(commit, file.path)) ==
             layout::HubRepo::pointer_target(file.path, file.blob);
}

Result<std::vector<HubStore::SnapshotFile>> HubStore::list_snapshot(
    const std::string& commit) const {
  constexpr std::size_t kMostNames = 100'000;
  std::vector<SnapshotFile> files;
  if (!is_commit(commit)) return files;
  std::vector<std::string> folders{""};
  for (std::size_t names = 0; !folders.empty();) {
    const std::string folder = std::move(folders.back());
    folders.pop_back();
    const std::string directory = paths_.snapshot(commit) + (folder.empty() ? "" : "/") + folder;
    FVP_TRY(const std::vector<std::string> found, posix::list(directory));
    for (const std::string& name : found) {
      if (++names > kMostNames) {
        return fail(ErrorCode::kInternal,
                    directory + " has too many files to look through without a list of them");
      }
      SnapshotFile file;
      file.path = folder.empty() ? name : folder + "/" + name;
      const std::string path = paths_.pointer(commit, file.path);
      const auto info = posix::stat(path);  // an error (a link to itself): nothing to be had
      const bool there = info && info->has_value();
      if (there && (*info)->directory) {
        if (!posix::is_link(path)) folders.push_back(std::move(file.path));
        continue;
      }
      file.present = there && (*info)->regular;
      file.size = file.present ? (*info)->size : 0;
      files.push_back(std::move(file));
    }
  }
  std::sort(files.begin(), files.end(),
            [](const SnapshotFile& a, const SnapshotFile& b) { return a.path < b.path; });
  return files;
}

bool HubStore::has_blob(const FileSpec& file) const {
  return layout::safe_blob_name(file.blob) && is_file_of(paths_.blob(file.blob), file.size);
}

std::vector<std::string> HubStore::unfinished(const std::string& blob, JournalNames& names) const {
  return journal_tags(paths_.journals(), blob, names);
}

std::uint64_t HubStore::partial_bytes(const std::string& blob) const {
  return largest_partial(paths_.blobs(), blob);
}

Status HubStore::accepts(const FileSpec& file) {
  FVP_CHECK_OK(refuse_unsafe(layout::safe_relative_path(file.path), "file", file.path));
  return refuse_unsafe(layout::safe_blob_name(file.blob), "blob", file.blob);
}

Status HubStore::prepare(const std::string& commit) const {
  FVP_CHECK_OK(refuse_unsafe(is_commit(commit), "commit", commit));
  // refs/ even when no ref is written: the JavaScript client's scanner fails without it.
  for (const std::string& directory :
       {paths_.blobs(), paths_.refs(), paths_.locks(), paths_.temporaries()}) {
    FVP_CHECK_OK(posix::make_directories_below(paths_.root(), directory));
  }
  // Best effort: without it an unfinished download cannot be gone on with, that is all.
  (void)posix::make_directories(paths_.journals());
  const std::string snapshots = posix::parent(paths_.snapshot(commit));
  FVP_CHECK_OK(posix::make_directories_below(paths_.root(), snapshots));
  if (links_ == Links::kSymbolic) FVP_CHECK_OK(check_links_lead(snapshots, paths_.blobs()));
  FVP_CHECK_OK(make_plain_directories(snapshots, commit));

  // Backup programs then skip the cache. Whoever comes first makes it; nothing depends on it.
  const std::string tag = paths_.root() + "/CACHEDIR.TAG";
  if (const auto there = posix::lstat(tag); there && !*there) {
    (void)posix::replace_text(paths_.temporary(posix::random_tag()), tag, kCacheDirTag);
  }
  return {};
}

Result<posix::FileInfo> HubStore::publish_blob(posix::Fd fd, const std::string& partial,
                                               const std::string& blob) const {
  FVP_CHECK_OK(refuse_unsafe(layout::safe_blob_name(blob), "blob", blob));
  auto published = posix::publish(std::move(fd), partial, paths_.blob(blob));
  if (!published) (void)posix::remove_file(partial);  // the error that matters is the first one
  return published;
}

Status HubStore::publish_pointer(const std::string& commit, const FileSpec& file, Blob use) const {
  FVP_CHECK_OK(refuse_unsafe(is_commit(commit), "commit", commit));
  FVP_CHECK_OK(accepts(file));
  const std::string blob = paths_.blob(file.blob);
  const std::string pointer = paths_.pointer(commit, file.path);
  const std::string target = layout::HubRepo::pointer_target(file.path, file.blob);
  if (!posix::exists(blob)) {  // scanners call a repo with a dangling link corrupted
    return fail(ErrorCode::kInternal,
                "cannot link " + pointer + ": its blob " + blob + " is not there");
  }
  const std::string snapshots = posix::parent(paths_.snapshot(commit));
  std::string folder = commit;
  if (const auto inner = folder_of(file.path); !inner.empty()) folder.append("/").append(inner);
  FVP_CHECK_OK(make_plain_directories(snapshots, folder));
  // Only a server that lied could have left one, and readers believe it before they look here.
  (void)posix::remove_file(paths_.no_exist(commit) + "/" + file.path);
  // Most are new. Where something is there, it is left, and the name is never absent.
  if (links_ == Links::kSymbolic && posix::make_link(pointer, target)) return {};
  if (posix::read_link(pointer) == target) return {};

  FVP_CHECK_OK(posix::make_directories(paths_.temporaries()));
  if (links_ == Links::kSymbolic) {
    Status linked = posix::publish_link(paths_.temporary(posix::random_tag()), pointer, target);
    if (linked || linked.error().code == ErrorCode::kNoSpace) return linked;
    // Refused: EPERM, EACCES, EOPNOTSUPP, ENOSYS and others, each by some file system. A file is
    // dearer, and every reader takes it; where nothing at all can be written, it says so itself.
  }
  if (use == Blob::kMoves) return posix::move(blob, pointer);
  return publish_copy(blob, paths_.temporary(posix::random_tag()), pointer);
}

Status HubStore::write_absent(const std::string& commit, const std::string& path) const {
  FVP_CHECK_OK(refuse_unsafe(is_commit(commit), "commit", commit));
  FVP_CHECK_OK(refuse_unsafe(layout::safe_relative_path(path), "file", path));
  // snapshots/ and refs/ too: scanners fail without them.
  for (const std::string& directory : {paths_.blobs(), paths_.refs(), paths_.temporaries(),
                                       posix::parent(paths_.snapshot(commit))}) {
    FVP_CHECK_OK(posix::make_directories_below(paths_.root(), directory));
  }
  const std::string base = posix::parent(paths_.no_exist(commit));
  std::string folder = commit;
  if (const auto inner = folder_of(path); !inner.empty()) folder.append("/").append(inner);
  FVP_CHECK_OK(make_plain_directories(base, folder));
  const std::string note = paths_.no_exist(commit) + "/" + path;
  if (posix::exists(note)) return {};
  return posix::replace_text(paths_.temporary(posix::random_tag()), note, "");
}

Status HubStore::write_ref(const std::string& revision, const std::string& commit) const {
  FVP_CHECK_OK(refuse_unsafe(is_commit(commit), "commit", commit));
  FVP_CHECK_OK(refuse_unsafe(layout::safe_revision(revision), "revision", revision));
  const std::string path = paths_.ref(revision);
  // Compared with the raw text: Python's readers do not forgive the newline that we forgive.
  const auto now = posix::read_private(path, kLargestRef);
  if (now && *now && **now == commit) return {};
  // A ref without its snapshot folder is what scanners call corrupted.
  FVP_CHECK_OK(make_plain_directories(posix::parent(paths_.snapshot(commit)), commit));
  FVP_CHECK_OK(make_plain_directories(paths_.refs(), folder_of(revision)));
  // Written outside refs/: scanners take every file there for a ref.
  const std::string temp = paths_.temporary(posix::random_tag());
  FVP_CHECK_OK(posix::make_directories(paths_.temporaries()));
  return posix::publish_text(temp, path, commit);
}

Status HubStore::write_tree(const std::string& commit, const std::vector<RepoFile>& files) const {
  FVP_CHECK_OK(refuse_unsafe(is_commit(commit), "commit", commit));
  std::vector<const RepoFile*> sorted;
  for (const RepoFile& file : files) sorted.push_back(&file);
  std::sort(sorted.begin(), sorted.end(),
            [](const RepoFile* a, const RepoFile* b) { return a->path < b->path; });

  Json document = {{"format_version", kTreeVersion}, {"files", Json::object()}};
  for (const RepoFile* file : sorted) {
    Json object = {{"size", file->size}, {"blob_id", file->git_oid}};
    if (!file->lfs_sha256.empty()) {
      object["lfs_sha256"] = file->lfs_sha256;
      object["lfs_size"] = file->lfs_size;
    }
    // Gated repositories mask it with asterisks, and then Python would ignore the whole document.
    if (is_sha256(file->xet_hash)) object["xet_hash"] = file->xet_hash;
    document["files"][file->path] = std::move(object);
  }
  const std::string path = paths_.tree(commit);
  const std::string temp = paths_.temporary(posix::random_tag());
  FVP_CHECK_OK(posix::make_directories_below(paths_.root(), posix::parent(path)));
  FVP_CHECK_OK(posix::make_directories_below(paths_.root(), paths_.temporaries()));
  // json.dump(indent=1) of Python: ASCII only. Paths came out of a JSON parser, so they are UTF-8.
  return posix::publish_text(temp, path,
                             document.dump(1, ' ', true, Json::error_handler_t::replace));
}

}  // namespace fvprefetch
