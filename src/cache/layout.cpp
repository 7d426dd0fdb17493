#include "cache/layout.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "base/digest.h"
#include "base/posix.h"
#include "base/relative_path.h"

namespace fvprefetch::layout {
namespace {

constexpr std::string_view kPartialSuffix = ".fvprefetch-part";
constexpr std::string_view kUnpackSuffix = ".fvprefetch-unpack";
constexpr std::string_view kStateFolder = ".fvprefetch";
constexpr std::string_view kPythonSuffix = ".incomplete";
constexpr std::string_view kJournalSuffix = ".json";
constexpr std::string_view kHolderSuffix = ".holder";
constexpr std::string_view kLockSuffix = ".lock";
constexpr std::string_view kLeaseSuffix = ".lease";
constexpr std::string_view kLeaseRecordSuffix = ".lease-record";
constexpr std::string_view kRecordSuffix = ".json";
constexpr std::string_view kTakenSuffix = ".taken";
constexpr std::string_view kManifestSuffix = ".manifest";
constexpr std::string_view kWithoutMpiSuffix = ".without-mpi";
constexpr std::size_t kTagDigits = 8;
constexpr std::size_t kLongestSegment = 255;

std::string join(std::initializer_list<std::string_view> parts) {
  std::string path;
  for (const std::string_view part : parts) {
    if (!path.empty()) path += '/';
    path += part;
  }
  return path;
}

bool is_tag(std::string_view text) {
  return text.size() == kTagDigits && is_hex(text);
}

std::string_view file_name(std::string_view path) {
  return path.substr(path.find_last_of('/') + 1);  // npos + 1 is 0
}

// What a URL file's partials are called before ".<tag>". A name that leaves no room for what we
// add to it is stood for by its hash.
std::string url_partial_stem(std::string_view name, std::string_view suffix = kPartialSuffix) {
  const std::size_t added = 1 + 1 + kTagDigits + suffix.size();
  return "." + (name.size() + added <= kLongestSegment ? std::string(name) : sha256_hex(name));
}

// Whether `name` is "<stem>.<tag><suffix>".
bool is_tagged(std::string_view name, std::string_view stem, std::string_view suffix) {
  if (!name.starts_with(stem) || !name.ends_with(suffix)) return false;
  if (name.size() != stem.size() + 1 + kTagDigits + suffix.size()) return false;
  return name[stem.size()] == '.' && is_tag(name.substr(stem.size() + 1, kTagDigits));
}

// "<stem>.<tag>" without `suffix`.
std::optional<TaggedName> split_tagged(std::string_view name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  name.remove_suffix(suffix.size());
  if (name.size() < 1 + 1 + kTagDigits) return std::nullopt;
  const std::size_t dot = name.size() - kTagDigits - 1;
  if (name[dot] != '.' || !is_tag(name.substr(dot + 1))) return std::nullopt;
  return TaggedName{name.substr(0, dot), name.substr(dot + 1)};
}

// ".<stem>.<tag><suffix>", the stem one safe segment.
std::optional<TaggedName> hidden_tagged(std::string_view name, std::string_view suffix) {
  if (!name.starts_with('.')) return std::nullopt;
  const auto parts = split_tagged(name.substr(1), suffix);
  const bool ours =
      parts && parts->stem.find('/') == std::string_view::npos && safe_relative_path(parts->stem);
  return ours ? parts : std::nullopt;
}

}  // namespace

std::string repo_folder(std::string_view repo_type, std::string_view repo_id) {
  std::string folder = std::string(repo_type) + "s--";
  for (const char c : repo_id) {
    if (c == '/') {
      folder += "--";
    } else {
      folder += c;
    }
  }
  return folder;
}

bool safe_relative_path(std::string_view path) {
  return relative_path_fault(path).empty();
}

bool safe_blob_name(std::string_view blob) {
  constexpr std::size_t kLongest = 200;  // leaves room for our suffixes
  if (blob.empty() || blob.size() > kLongest || blob == "." || blob == "..") return false;
  return std::all_of(blob.begin(), blob.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '_' || c == '-';
  });
}

bool safe_revision(std::string_view revision) {
  return safe_relative_path(revision);
}

HubRepo::HubRepo(std::string root, std::string_view repo_type, std::string_view repo_id)
    : root_(std::move(root)), folder_(repo_folder(repo_type, repo_id)) {}

std::optional<HubRepo> HubRepo::in_folder(std::string root, std::string_view folder) {
  for (const std::string_view type : {"model", "dataset", "space"}) {
    const std::string prefix = repo_folder(type, "");
    if (!folder.starts_with(prefix) || folder.size() == prefix.size()) continue;
    // As an id it is another one than the repo's, whose slash is gone; the folder is the same.
    return HubRepo(std::move(root), type, folder.substr(prefix.size()));
  }
  return std::nullopt;
}

std::string HubRepo::directory() const {
  return join({root_, folder_});
}
std::string HubRepo::blobs() const {
  return join({root_, folder_, "blobs"});
}
std::string HubRepo::blob(std::string_view blob) const {
  return join({root_, folder_, "blobs", blob});
}
std::string HubRepo::partial(std::string_view blob, std::string_view tag) const {
  return this->blob(blob).append(".").append(tag).append(kPartialSuffix);
}
std::string HubRepo::journal(std::string_view blob, std::string_view tag) const {
  return join({journals(), journal_file(blob, tag)});
}
std::string HubRepo::journals() const {
  return join({state(), "partials"});
}
std::string HubRepo::snapshot(std::string_view commit) const {
  return join({root_, folder_, "snapshots", commit});
}
std::string HubRepo::pointer(std::string_view commit, std::string_view path) const {
  return join({root_, folder_, "snapshots", commit, path});
}
std::string HubRepo::pointer_target(std::string_view path, std::string_view blob) {
  std::string target = "../../";
  for (const char c : path) {
    if (c == '/') target += "../";
  }
  return target.append("blobs/").append(blob);
}
std::string HubRepo::refs() const {
  return join({root_, folder_, "refs"});
}
std::string HubRepo::ref(std::string_view revision) const {
  return join({root_, folder_, "refs", revision});
}
std::string HubRepo::tree(std::string_view commit) const {
  return join({root_, folder_, "trees", commit}) + ".json";
}
std::string HubRepo::no_exist(std::string_view commit) const {
  return join({root_, folder_, ".no_exist", commit});
}
std::string HubRepo::locks() const {
  return join({root_, ".locks", folder_});
}
std::string HubRepo::lock(std::string_view blob) const {
  return join({root_, ".locks", folder_, blob}).append(kLockSuffix);
}
std::string HubRepo::receipt(std::string_view commit, std::string_view selection) const {
  const std::string key = std::string(commit).append("\n").append(selection);
  return join({state(), "receipts", sha256_hex(key)}) + ".json";
}
std::string HubRepo::state() const {
  return join({root_, folder_, kStateFolder});
}
std::string HubRepo::temporaries() const {
  return join({state(), "tmp"});
}
std::string HubRepo::temporary(std::string_view tag) const {
  return join({temporaries(), tag});
}

UrlFile::UrlFile(std::string root, std::string relative)
    : root_(std::move(root)), relative_(std::move(relative)), key_(sha256_hex(relative_)) {}

std::string UrlFile::path() const {
  return join({root_, relative_});
}
std::string UrlFile::directory() const {
  const std::string all = path();
  return all.substr(0, all.find_last_of('/'));
}
std::string UrlFile::partial(std::string_view tag) const {
  std::string name = url_partial_stem(file_name(relative_));
  return join({directory(), name.append(".").append(tag).append(kPartialSuffix)});
}
std::string UrlFile::unpacking(std::string_view tag) const {
  std::string name = url_partial_stem(file_name(relative_), kUnpackSuffix);
  return join({directory(), name.append(".").append(tag).append(kUnpackSuffix)});
}
std::string UrlFile::journal(std::string_view tag) const {
  return join({journals(), journal_file(key_, tag)});
}
std::string UrlFile::journals() const {
  return join({state(), "partials"});
}
std::string UrlFile::locks() const {
  return join({state(), "locks"});
}
std::string UrlFile::lock() const {
  return join({locks(), key_}).append(kLockSuffix);
}
std::string UrlFile::receipt() const {
  return join({state(), "receipts", key_}) + ".json";
}
std::string UrlFile::state() const {
  return join({root_, kStateFolder});
}
std::string UrlFile::temporaries() const {
  return join({state(), "tmp"});
}
std::string UrlFile::temporary(std::string_view tag) const {
  return join({temporaries(), tag});
}

std::string holder_record(std::string_view lock) {
  if (lock.ends_with(kLockSuffix)) lock.remove_suffix(kLockSuffix.size());
  return std::string(lock).append(kHolderSuffix);
}

std::string lease_beside(std::string_view lock) {
  if (lock.ends_with(kLockSuffix)) lock.remove_suffix(kLockSuffix.size());
  return std::string(lock).append(kLeaseSuffix);
}

std::string lease_record(std::string_view directory, std::string_view tag) {
  return join({directory, tag}).append(kLeaseRecordSuffix);
}

std::string record_in_lease(std::string_view lease) {
  return join({lease, "record"});
}

std::string tombstone(std::string_view lease, std::string_view tag) {
  return std::string(lease).append(".").append(tag);
}

std::optional<std::string> fastvideo_lock(std::string_view temporary_directory,
                                          std::string_view key) {
  std::string flat(key);
  std::replace(flat.begin(), flat.end(), '/', '-');
  const std::string name = sha256_hex(flat).append(flat).append(kLockSuffix);
  if (name.size() > kLongestSegment) return std::nullopt;
  return join({temporary_directory, name});
}

std::string lock_beside(std::string_view directory, std::string_view stem) {
  return join({directory, stem}).append(kLockSuffix);
}

StepFiles::StepFiles(std::string_view root, std::string step)
    : directory_(steps(root)), step_(std::move(step)) {}

std::string StepFiles::record() const {
  return join({directory_, step_}).append(kRecordSuffix);
}
std::string StepFiles::lock() const {
  return lock_beside(directory_, step_);
}
std::string StepFiles::taken(int rank) const {
  return join({directory_, step_}).append(".").append(std::to_string(rank)).append(kTakenSuffix);
}

std::string StepFiles::manifest() const {
  return join({directory_, step_}).append(kManifestSuffix);
}
std::string StepFiles::without_mpi(int rank) const {
  return join({directory_, step_})
      .append(".")
      .append(std::to_string(rank))
      .append(kWithoutMpiSuffix);
}
bool StepFiles::is_taken(std::string_view file_name) const {
  return is_of_rank(file_name, kTakenSuffix);
}
bool StepFiles::is_without_mpi(std::string_view file_name) const {
  return is_of_rank(file_name, kWithoutMpiSuffix);
}
bool StepFiles::is_of_rank(std::string_view file_name, std::string_view suffix) const {
  return file_name.starts_with(step_ + ".") && file_name.ends_with(suffix);
}

std::string steps(std::string_view root) {
  return join({root, ".fvprefetch", "steps"});
}

bool is_step_file(std::string_view file_name) {
  for (const std::string_view suffix :
       {kRecordSuffix, kTakenSuffix, kManifestSuffix, kWithoutMpiSuffix}) {
    if (!file_name.ends_with(suffix)) continue;
    file_name.remove_suffix(suffix.size());
    return safe_blob_name(file_name);
  }
  return false;
}

std::string doctor_directory(std::string_view directory, std::string_view tag) {
  return join({directory, "doctor."}).append(tag);
}

bool is_doctor_directory(std::string_view file_name) {
  constexpr std::string_view kStem = "doctor.";
  return file_name.starts_with(kStem) && is_temporary(file_name.substr(kStem.size()));
}

std::string hub_locks(std::string_view root) {
  return join({root, ".locks"});
}

std::string_view journal_tag(std::string_view file_name, std::string_view stem) {
  if (!is_tagged(file_name, stem, kJournalSuffix)) return {};
  file_name.remove_suffix(kJournalSuffix.size());
  return file_name.substr(file_name.size() - kTagDigits);
}

std::optional<TaggedName> hub_partial(std::string_view file_name) {
  const auto name = split_tagged(file_name, kPartialSuffix);
  return name && safe_blob_name(name->stem) ? name : std::nullopt;
}

std::optional<TaggedName> url_partial(std::string_view file_name) {
  return hidden_tagged(file_name, kPartialSuffix);
}

std::optional<TaggedName> unpacking_name(std::string_view file_name) {
  return hidden_tagged(file_name, kUnpackSuffix);
}

std::string_view partial_tag(std::string_view file_name) {
  if (const auto of_blob = hub_partial(file_name)) return of_blob->tag;
  const auto of_url = url_partial(file_name);
  return of_url ? of_url->tag : std::string_view();
}

std::string journal_file(std::string_view key, std::string_view tag) {
  return std::string(key).append(".").append(tag).append(kJournalSuffix);
}

std::optional<JournalName> journal_name(std::string_view file_name) {
  constexpr std::string_view kTemporary = ".tmp";
  const bool temporary = file_name.ends_with(kTemporary);
  if (temporary) file_name.remove_suffix(kTemporary.size());
  const auto name = split_tagged(file_name, kJournalSuffix);
  if (!name || !safe_blob_name(name->stem)) return std::nullopt;
  return JournalName{name->stem, name->tag, temporary};
}

std::optional<HolderName> holder_name(std::string_view file_name) {
  bool temporary = false;
  if (const auto tagged = split_tagged(file_name, ""); tagged) {
    temporary = tagged->stem.ends_with(kHolderSuffix);
    if (temporary) file_name = tagged->stem;
  }
  if (!file_name.ends_with(kHolderSuffix)) return std::nullopt;
  file_name.remove_suffix(kHolderSuffix.size());
  if (!safe_blob_name(file_name)) return std::nullopt;
  return HolderName{file_name, temporary};
}

std::optional<LeaseName> lease_name(std::string_view file_name) {
  LeaseName name{LeaseName::Kind::kLease, file_name};
  if (file_name.ends_with(kLeaseRecordSuffix)) {
    name.kind = LeaseName::Kind::kRecord;
    name.stem.remove_suffix(kLeaseRecordSuffix.size());
    return is_tag(name.stem) ? std::optional(name) : std::nullopt;
  }
  if (const auto tagged = split_tagged(file_name, ""); tagged) {
    name.kind = LeaseName::Kind::kTombstone;
    name.stem = tagged->stem;
  }
  if (!name.stem.ends_with(kLeaseSuffix)) return std::nullopt;
  name.stem.remove_suffix(kLeaseSuffix.size());
  return safe_blob_name(name.stem) ? std::optional(name) : std::nullopt;
}

bool is_temporary(std::string_view file_name) {
  return is_tag(file_name);
}

bool is_unfinished(std::string_view file_name) {
  return is_tagged(file_name, "", posix::kUnfinishedSuffix);
}

bool is_private(std::string_view file_name) {
  return file_name == kStateFolder || file_name.ends_with(kPartialSuffix) ||
         file_name.ends_with(kUnpackSuffix) || is_unfinished(file_name);
}

bool may_be_hash(std::string_view stem) {
  constexpr std::size_t kDigits = 64;
  return stem.size() == kDigits && is_hex(stem);
}

bool is_partial_of(std::string_view file_name, std::string_view target_name) {
  return is_tagged(file_name, target_name, kPartialSuffix) ||
         is_tagged(file_name, url_partial_stem(target_name), kPartialSuffix) ||
         is_tagged(file_name, target_name, kPythonSuffix) ||
         file_name == std::string(target_name).append(kPythonSuffix);
}

}  // namespace fvprefetch::layout
