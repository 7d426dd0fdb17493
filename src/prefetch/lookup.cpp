#include "prefetch/lookup.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "base/try.h"
#include "cache/hf_store.h"

namespace fvprefetch {

namespace {

/// A blob's name is its digest: the sha256 of an LFS file, else git's object id. nullopt for other
/// names, which some servers give.
std::optional<Digest> digest_of_blob(const std::string& blob) {
  if (!is_hex(blob)) return std::nullopt;
  if (blob.size() == 64) return Digest{Digest::Kind::kSha256, blob};
  if (blob.size() == 40) return Digest{Digest::Kind::kGitSha1, blob};
  return std::nullopt;
}

FileSpec from_receipt(const ReceiptFile& file) {
  FileSpec spec;
  spec.path = file.path;
  spec.size = file.size;
  spec.blob = file.blob;
  spec.digest = digest_of_blob(file.blob);
  return spec;
}

HubStore store_of(const HubSource& source, const Session& session) {
  return {session.hub_cache(), type_name(source.repo.type), source.repo.id};
}

/// What the manifest pins is compared on its own: select() says less about it.
HubSource without_pins(HubSource source) {
  source.size.reset();
  source.sha256.clear();
  return source;
}

/// The manifest pins a Hub file: what the Hub lists must be that file, or the entry cannot be had.
Status check_pins(const HubSource& source, const std::vector<FileSpec>& files) {
  if (source.filename.empty() || files.size() != 1) return {};
  const FileSpec& file = files.front();
  if (source.size && file.size && *source.size != *file.size) {
    return fail(ErrorCode::kIntegrity,
                source.repo.id + "/" + file.path + " has " + std::to_string(*file.size) +
                    " bytes on the Hub, the manifest expects " + std::to_string(*source.size),
                "pin the revision that the manifest was made for, or correct the manifest");
  }
  if (!source.sha256.empty() && file.digest && file.digest->kind == Digest::Kind::kSha256 &&
      file.digest->hex != source.sha256) {
    return fail(ErrorCode::kIntegrity,
                source.repo.id + "/" + file.path + " has sha256 " + file.digest->hex +
                    " on the Hub, the manifest expects " + source.sha256,
                "pin the revision that the manifest was made for, or correct the manifest");
  }
  return {};
}

/// A small Hub file is named by git's digest: a sha256 that the manifest pins is checked on its
/// own.
bool needs_own_check(const std::string& sha256, const FileSpec& file) {
  return !sha256.empty() && !(file.digest && file.digest->kind == Digest::Kind::kSha256);
}

StopCheck stop_of(const Session& session) {
  return [&session] { return session.must_stop(); };
}

/// What a Hub receipt tells; nullopt for one that names no blobs, which says nothing of this cache.
std::optional<Receipt> hub_receipt(const std::string& path) {
  std::optional<Receipt> receipt = read_receipt(path);
  const auto names_a_blob = [](const ReceiptFile& file) { return !file.blob.empty(); };
  const bool good = receipt && !receipt->files.empty() &&
                    std::all_of(receipt->files.begin(), receipt->files.end(), names_a_blob);
  return good ? receipt : std::nullopt;
}

}  // namespace

Result<Survey> list_hub(const HubSource& source, const Session& session,
                        const std::optional<std::string>& asked_commit,
                        const std::optional<std::vector<RepoFile>>& asked_tree) {
  const HubStore store = store_of(source, session);
  const bool pinned = hub::is_commit(source.revision);
  Survey survey;
  survey.asked = asked_commit.has_value() || asked_tree.has_value();
  if (asked_commit) {
    survey.commit = *asked_commit;
  } else if (pinned) {
    survey.commit = source.revision;
  } else if (!session.options().refresh || session.offline()) {
    FVP_TRY(const std::optional<std::string> ref, store.read_ref(source.revision));
    survey.commit = ref.value_or("");
  }
  if (survey.commit.empty()) {
    survey.need = Survey::Need::kRevision;
    return survey;
  }
  survey.path = source.filename.empty() ? store.paths().snapshot(survey.commit)
                                        : store.paths().pointer(survey.commit, source.filename);

  const std::optional<Receipt> receipt =
      hub_receipt(store.paths().receipt(survey.commit, selection_of(source)));
  if (!pinned) {
    survey.resolved_at = asked_commit ? rfc3339_now()
                         : receipt && !receipt->resolved_at.empty()
                             ? receipt->resolved_at
                             : store.ref_time(source.revision);
  }

  std::optional<std::vector<RepoFile>> tree = asked_tree;
  if (!source.files.empty()) {
    // The receipt is keyed by this very list, so it says of it that it was checked, and no more.
    survey.verified_by = receipt ? "receipt" : "manifest";
    FVP_TRY(const std::vector<RepoFile> selected, select(source, source.files));
    for (const RepoFile& file : selected) survey.files.push_back(hub::to_file_spec(file));
  } else if (!tree && receipt) {
    survey.verified_by = "receipt";
    for (const ReceiptFile& file : receipt->files) survey.files.push_back(from_receipt(file));
  } else {
    if (!tree) tree = store.read_tree(survey.commit);
    if (!tree) {
      survey.need = Survey::Need::kTree;
      return survey;
    }
    survey.verified_by = "tree";
    FVP_TRY(const std::vector<RepoFile> selected, select(without_pins(source), *tree));
    for (const RepoFile& file : selected) survey.files.push_back(hub::to_file_spec(file));
  }
  survey.tree = asked_tree;
  return survey;
}

namespace {

Result<Survey> look_hub(const HubSource& source, const Session& session, Hashing hashing,
                        const std::optional<std::string>& asked_commit,
                        const std::optional<std::vector<RepoFile>>& asked_tree) {
  FVP_TRY(Survey survey, list_hub(source, session, asked_commit, asked_tree));
  if (survey.need != Survey::Need::kNothing) return survey;
  FVP_CHECK_OK(check_pins(source, survey.files));

  const HubStore store = store_of(source, session);
  const bool receipt = survey.verified_by == "receipt";
  for (std::size_t i = 0; i < survey.files.size(); ++i) {
    const FileSpec& file = survey.files[i];
    const std::string path = store.paths().pointer(survey.commit, file.path);
    if (!store.has_file(survey.commit, file) || session.rejects(path)) {
      survey.missing.push_back(i);
    } else if (!source.files.empty() && !receipt && !store.links_to_blob(survey.commit, file)) {
      if (hashing == Hashing::kForbidden) {
        survey.unchecked = true;
        continue;
      }
      // A copy, or a blob that another client gave another name.
      FVP_CHECK_OK(check_digest(file, path, stop_of(session)));
    }
  }
  survey.need = survey.missing.empty() ? Survey::Need::kNothing : Survey::Need::kFiles;
  if (survey.missing.empty()) {
    survey.wants_receipt = !receipt;
    if (!receipt && needs_own_check(source.sha256, survey.files.front())) {
      if (hashing == Hashing::kForbidden) {
        survey.unchecked = true;
      } else {
        FVP_CHECK_OK(check_pinned_sha256(
            source.sha256, survey.files.front(),
            store.paths().pointer(survey.commit, survey.files.front().path), stop_of(session)));
      }
    }
  }
  return survey;
}

Result<Survey> look_url(const UrlSource& source, const Session& session, Hashing hashing) {
  Survey survey;
  survey.path = source.path();
  survey.files.push_back(source.file);
  if (session.rejects(survey.path)) {
    FVP_TRY(survey.judged, posix::stat(survey.path));
    survey.missing.push_back(0);
    survey.need = Survey::Need::kFiles;
    return survey;
  }
  FVP_TRY(const UrlVerdict verdict,
          judge_url_file(source, session.options().refresh && !session.offline(), hashing,
                         stop_of(session)));
  survey.verified_by = verdict.verified_by;
  survey.wants_receipt = verdict.wants_receipt;
  if (!verdict.why.empty()) survey.warnings.push_back(verdict.why);
  survey.unchecked = verdict.unchecked;
  survey.judged = verdict.info;
  if (verdict.good) {
    survey.files.front().size = verdict.info->size;
  } else {
    survey.missing.push_back(0);
    survey.need = Survey::Need::kFiles;
  }
  return survey;
}

Result<Survey> look_path(const PathSource& source) {
  Survey survey;
  survey.path = source.path;
  survey.verified_by = "present";
  FVP_TRY(const auto info, posix::stat(source.path));
  if (info && info->regular) {
    FileSpec file;
    file.path = source.path;
    file.size = info->size;
    survey.files.push_back(std::move(file));
  }
  return survey;
}

}  // namespace

std::uint64_t Survey::bytes_total() const {
  std::uint64_t bytes = 0;
  for (const FileSpec& file : files) bytes += file.size.value_or(0);
  return bytes;
}

Result<std::vector<FileSpec>> files_in_snapshot(const HubSource& source, const Session& session,
                                                const std::string& commit) {
  const HubStore store = store_of(source, session);
  FVP_TRY(const auto found, store.list_snapshot(commit));
  std::vector<RepoFile> tree;
  std::set<std::string_view> dangling;
  for (const HubStore::SnapshotFile& file : found) {
    RepoFile listed;
    listed.path = file.path;
    listed.size = file.size;
    tree.push_back(std::move(listed));
    if (!file.present) dangling.insert(file.path);
  }
  FVP_TRY(const std::vector<RepoFile> selected, select(without_pins(source), tree));
  std::vector<FileSpec> files;
  for (const RepoFile& file : selected) {
    FileSpec spec;
    spec.path = file.path;
    if (!dangling.contains(file.path)) spec.size = file.size;
    const std::string target =
        posix::read_link(store.paths().pointer(commit, file.path)).value_or("");
    spec.digest = digest_of_blob(target.substr(target.rfind('/') + 1));  // npos + 1 is 0
    if (spec.digest) spec.blob = spec.digest->hex;
    files.push_back(std::move(spec));
  }
  return files;
}

std::string selection_of(const HubSource& source) {
  // Control characters are refused in patterns and names, so they can part them.
  std::string text = "filename\n" + source.filename;
  for (const std::string& pattern : source.include) text += "\ninclude\t" + pattern;
  for (const std::string& pattern : source.exclude) text += "\nexclude\t" + pattern;
  if (!source.sha256.empty()) text += "\nsha256\t" + source.sha256;
  for (const RepoFile& file : source.files) {
    const FileSpec spec = hub::to_file_spec(file);
    text += "\nfile\t" + spec.path + "\t" + std::to_string(*spec.size) + "\t" + spec.blob;
  }
  return text;
}

std::string source_key(const UrlSource& source) {
  return sha256_hex(source.file.urls.front());
}

std::optional<Receipt> url_receipt(const UrlStore& store, const posix::FileInfo& file) {
  std::optional<Receipt> receipt = read_receipt(store.paths().receipt());
  const bool fits = receipt && receipt->files.size() == 1 &&
                    receipt->files.front().size == file.size &&
                    receipt->files.front().mtime_ns == file.mtime_ns;
  return fits ? receipt : std::nullopt;
}

namespace {

/// One judgement of the file that is there now. nullopt: it was replaced meanwhile.
Result<std::optional<UrlVerdict>> judge_once(const UrlSource& source, const UrlStore& store,
                                             bool refresh, Hashing hashing,
                                             const StopCheck& must_stop) {
  UrlVerdict verdict;
  FVP_TRY(verdict.info, store.lookup());
  if (!verdict.info) return verdict;
  const posix::FileInfo& info = *verdict.info;

  const std::optional<Receipt> receipt = url_receipt(store, info);
  if (receipt && receipt->source_key != source_key(source)) {
    verdict.why = "the file at " + store.paths().path() + " came from another source (" +
                  receipt->source + ")";
    if (refresh) {
      verdict.why += "; fetched again";
      return verdict;
    }
    verdict.why += "; --refresh replaces it";
  }
  if (source.file.size && *source.file.size != info.size) {
    verdict.why = "the file at " + store.paths().path() + " has " + std::to_string(info.size) +
                  " bytes, expected " + std::to_string(*source.file.size) + "; fetched again";
    return verdict;
  }
  // A digest told by a name is checked when the file is fetched; one that the manifest pins,
  // always.
  const bool pinned = source.digest_rule == "manifest" && source.file.digest;
  if (receipt && (!pinned || receipt->files.front().sha256 == source.file.digest->hex)) {
    verdict.good = true;
    verdict.verified_by = "receipt";
    return verdict;
  }
  if (!pinned || hashing == Hashing::kForbidden) {
    verdict.good = true;
    verdict.verified_by = source.file.size ? "size" : "present";
    verdict.unchecked = pinned;
    return verdict;
  }
  FVP_TRY(const HashedFile hashed,
          hash_file(store.paths().path(), Digest::Kind::kSha256, must_stop));
  FVP_TRY(const auto now, store.lookup());
  if (!now || now->inode != hashed.info.inode || now->mtime_ns != hashed.info.mtime_ns) {
    return std::nullopt;
  }
  verdict.info = hashed.info;
  if (!agrees(*source.file.digest, hashed.hex)) {
    verdict.why = "the file at " + store.paths().path() + " has sha256 " + hashed.hex +
                  ", expected " + source.file.digest->hex + "; fetched again";
    return verdict;
  }
  verdict.good = true;
  verdict.verified_by = "digest";
  verdict.wants_receipt = true;
  return verdict;
}

}  // namespace

Result<UrlVerdict> judge_url_file(const UrlSource& source, bool refresh, Hashing hashing,
                                  const StopCheck& must_stop) {
  const UrlStore store(source.root, source.relative);
  constexpr int kTries = 3;
  for (int i = 0; i < kTries; ++i) {
    FVP_TRY(const auto verdict, judge_once(source, store, refresh, hashing, must_stop));
    if (verdict) return *verdict;
  }
  return fail(ErrorCode::kInternal, store.paths().path() + " is replaced again and again",
              "find out which program does that");
}

// A path of a commit has one content for ever: where it is another, the cache or what is known of
// the commit is wrong, and fetching it once more would not tell which.
Status check_digest(const FileSpec& file, const std::string& path, const StopCheck& must_stop) {
  if (!file.digest) return {};
  FVP_TRY(const HashedFile actual, hash_file(path, file.digest->kind, must_stop));
  if (agrees(*file.digest, actual.hex)) return {};
  const std::string word = file.digest->kind == Digest::Kind::kSha256 ? "sha256 " : "git_sha1 ";
  return fail(ErrorCode::kIntegrity,
              path + " has " + word + actual.hex + ", expected " + file.digest->hex,
              "remove the file, or lock the manifest again: one of the two is wrong");
}

Status check_pinned_sha256(const std::string& sha256, const FileSpec& file, const std::string& path,
                           const StopCheck& must_stop) {
  if (!needs_own_check(sha256, file)) return {};
  FVP_TRY(const HashedFile actual, hash_file(path, Digest::Kind::kSha256, must_stop));
  if (actual.hex == sha256) return {};
  return fail(ErrorCode::kIntegrity,
              file.path + " has sha256 " + actual.hex + ", the manifest expects " + sha256,
              "pin the revision that the manifest was made for, or correct the manifest");
}

Result<Survey> look(const Source& source, const Session& session, Hashing hashing,
                    const std::optional<std::string>& commit,
                    const std::optional<std::vector<RepoFile>>& tree) {
  if (const auto* path = std::get_if<PathSource>(&source)) return look_path(*path);
  if (const auto* url = std::get_if<UrlSource>(&source)) return look_url(*url, session, hashing);
  return look_hub(std::get<HubSource>(source), session, hashing, commit, tree);
}

Result<Survey> ask_hub(const Source& source, const Survey& known, Session& session,
                       Hashing hashing) {
  const auto& hub = std::get<HubSource>(source);
  std::optional<std::string> commit;
  if (known.need == Survey::Need::kRevision) {
    FVP_TRY(commit, session.commit_of(hub.repo, hub.revision));
    FVP_TRY(Survey survey, look(source, session, hashing, commit));
    if (survey.need != Survey::Need::kTree) return survey;
  }
  const std::string& at = commit ? *commit : known.commit;
  FVP_TRY(const std::vector<RepoFile> tree, session.tree_of(hub.repo, at));
  return look(source, session, hashing, commit, tree);
}

Result<Survey> look_offline(const HubSource& source, const Session& session, const Survey& known,
                            Hashing hashing) {
  const std::string what = source.repo.id + (source.filename.empty() ? "" : "/" + source.filename) +
                           " at revision " + source.revision;
  if (known.need == Survey::Need::kRevision) {
    return fail(ErrorCode::kOfflineMissing, what + " (the cache does not know the revision)");
  }
  const HubStore store = store_of(source, session);
  const Result<std::vector<FileSpec>> found = files_in_snapshot(source, session, known.commit);
  if (!found) {
    if (found.error().code != ErrorCode::kNotFound) return tl::unexpected(found.error());
    return fail(ErrorCode::kOfflineMissing, what);
  }
  Survey survey = known;
  survey.need = Survey::Need::kNothing;
  survey.verified_by = "unverified";
  for (const FileSpec& file : *found) {
    if (!file.size) {
      return fail(ErrorCode::kOfflineMissing,
                  what + " (the link " + file.path + " leads to no file)");
    }
    if (source.size && *source.size != *file.size) {
      return fail(ErrorCode::kOfflineMissing,
                  what + " (the cache has one of " + std::to_string(*file.size) +
                      " bytes, the manifest expects " + std::to_string(*source.size) + ")");
    }
    FileSpec spec;  // without the digest that its blob's name tells: it was not compared
    spec.path = file.path;
    spec.size = file.size;
    if (!source.sha256.empty() && hashing == Hashing::kAllowed) {
      FVP_CHECK_OK(check_pinned_sha256(
          source.sha256, spec, store.paths().pointer(known.commit, file.path), stop_of(session)));
    }
    survey.files.push_back(std::move(spec));
  }
  survey.unchecked = !source.sha256.empty() && hashing == Hashing::kForbidden;
  return survey;
}

}  // namespace fvprefetch
