#include "prefetch/lookup.h"

#include <algorithm>

#include "base/digest.h"
#include "base/try.h"
#include "cache/hf_store.h"
#include "cache/url_store.h"

namespace fvprefetch {

namespace {

/// A receipt names blobs; the blob's name is its digest.
FileSpec from_receipt(const ReceiptFile& file) {
  FileSpec spec;
  spec.path = file.path;
  spec.size = file.size;
  spec.blob = file.blob;
  if (is_hex(file.blob) && file.blob.size() == 64) {
    spec.digest = Digest{Digest::Kind::kSha256, file.blob};
  } else if (is_hex(file.blob) && file.blob.size() == 40) {
    spec.digest = Digest{Digest::Kind::kGitSha1, file.blob};
  }
  return spec;
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
Status check_pinned_content(const HubSource& source, const HubStore& store,
                            const std::string& commit, const FileSpec& file) {
  if (source.sha256.empty() || (file.digest && file.digest->kind == Digest::Kind::kSha256)) {
    return {};
  }
  FVP_TRY(const std::string actual,
          hash_file(store.paths().pointer(commit, file.path), Digest::Kind::kSha256));
  if (actual == source.sha256) return {};
  return fail(ErrorCode::kIntegrity, source.repo.id + "/" + file.path + " has sha256 " + actual +
                                         ", the manifest expects " + source.sha256);
}

Result<Survey> look_hub(const HubSource& source, const Session& session,
                        const std::optional<std::string>& asked_commit,
                        const std::optional<std::vector<RepoFile>>& asked_tree) {
  const HubStore store(session.hub_cache(), type_name(source.repo.type), source.repo.id);
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
      read_receipt(store.paths().receipt(survey.commit, selection_of(source)));
  if (!pinned) {
    survey.resolved_at = asked_commit ? rfc3339_now()
                         : receipt && !receipt->resolved_at.empty()
                             ? receipt->resolved_at
                             : store.ref_time(source.revision);
  }

  std::optional<std::vector<RepoFile>> tree = asked_tree;
  if (!tree && receipt) {
    survey.verified_by = "receipt";
    for (const ReceiptFile& file : receipt->files) survey.files.push_back(from_receipt(file));
  } else {
    if (!tree) tree = store.read_tree(survey.commit);
    if (!tree) {
      survey.need = Survey::Need::kTree;
      return survey;
    }
    survey.verified_by = "tree";
    FVP_TRY(const std::vector<RepoFile> selected, select(source, *tree));
    for (const RepoFile& file : selected) survey.files.push_back(hub::to_file_spec(file));
  }
  survey.tree = asked_tree;
  FVP_CHECK_OK(check_pins(source, survey.files));

  for (std::size_t i = 0; i < survey.files.size(); ++i) {
    if (!store.has_file(survey.commit, survey.files[i])) survey.missing.push_back(i);
  }
  survey.need = survey.missing.empty() ? Survey::Need::kNothing : Survey::Need::kFiles;
  if (survey.missing.empty()) {
    survey.wants_receipt = !receipt.has_value();
    if (!receipt && survey.files.size() == 1) {
      FVP_CHECK_OK(check_pinned_content(source, store, survey.commit, survey.files.front()));
    }
  }
  return survey;
}

Result<Survey> look_url(const UrlSource& source, const Session& session, Hashing hashing) {
  Survey survey;
  survey.path = source.path();
  survey.files.push_back(source.file);
  FVP_TRY(const UrlVerdict verdict,
          judge_url_file(source, session.options().refresh && !session.offline(), hashing));
  survey.verified_by = verdict.verified_by;
  survey.wants_receipt = verdict.wants_receipt;
  if (!verdict.why.empty()) survey.warnings.push_back(verdict.why);
  if (verdict.good) {
    FVP_TRY(const auto info, posix::stat(survey.path));
    if (info) survey.files.front().size = info->size;
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

std::string selection_of(const HubSource& source) {
  // Control characters are refused in patterns and names, so they can part them.
  std::string text = "filename\n" + source.filename;
  for (const std::string& pattern : source.include) text += "\ninclude\t" + pattern;
  for (const std::string& pattern : source.exclude) text += "\nexclude\t" + pattern;
  if (!source.sha256.empty()) text += "\nsha256\t" + source.sha256;
  return text;
}

std::string source_key(const UrlSource& source) {
  return sha256_hex(source.file.urls.front());
}

Result<UrlVerdict> judge_url_file(const UrlSource& source, bool refresh, Hashing hashing) {
  const UrlStore store(source.root, source.relative);
  UrlVerdict verdict;
  FVP_TRY(const auto info, store.lookup());
  if (!info) return verdict;
  verdict.present = true;

  const std::optional<Receipt> receipt = read_receipt(store.paths().receipt());
  const bool receipt_fits = receipt && receipt->files.size() == 1 &&
                            receipt->files.front().size == info->size &&
                            receipt->files.front().mtime_ns == info->mtime_ns;
  if (receipt_fits && receipt->source_key != source_key(source)) {
    verdict.why = "the file at " + store.paths().path() + " came from another source (" +
                  receipt->source + ")";
    if (refresh) {
      verdict.why += "; fetched again";
      return verdict;
    }
    verdict.why += "; --refresh replaces it";
  }
  if (source.file.size && *source.file.size != info->size) {
    verdict.why = "the file at " + store.paths().path() + " has " + std::to_string(info->size) +
                  " bytes, expected " + std::to_string(*source.file.size) + "; fetched again";
    return verdict;
  }
  // A digest told by a name is checked when the file is fetched; one that the manifest pins,
  // always.
  const bool pinned = source.digest_rule == "manifest" && source.file.digest;
  if (receipt_fits && (!pinned || receipt->files.front().sha256 == source.file.digest->hex)) {
    verdict.good = true;
    verdict.verified_by = "receipt";
    verdict.sha256 = receipt->files.front().sha256;
    return verdict;
  }
  if (!pinned || hashing == Hashing::kForbidden) {
    verdict.good = true;
    verdict.verified_by = source.file.size ? "size" : "present";
    return verdict;
  }
  FVP_TRY(verdict.sha256, hash_file(store.paths().path(), Digest::Kind::kSha256));
  if (!agrees(*source.file.digest, verdict.sha256)) {
    verdict.why = "the file at " + store.paths().path() + " has sha256 " + verdict.sha256 +
                  ", expected " + source.file.digest->hex + "; fetched again";
    return verdict;
  }
  verdict.good = true;
  verdict.verified_by = "digest";
  verdict.wants_receipt = true;
  return verdict;
}

Result<Survey> look(const Source& source, const Session& session, Hashing hashing,
                    const std::optional<std::string>& commit,
                    const std::optional<std::vector<RepoFile>>& tree) {
  if (const auto* path = std::get_if<PathSource>(&source)) return look_path(*path);
  if (const auto* url = std::get_if<UrlSource>(&source)) return look_url(*url, session, hashing);
  return look_hub(std::get<HubSource>(source), session, commit, tree);
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

Result<Survey> look_offline(const HubSource& source, const Survey& known) {
  const std::string what = source.repo.id + (source.filename.empty() ? "" : "/" + source.filename) +
                           " at revision " + source.revision;
  if (known.need == Survey::Need::kRevision) {
    return fail(ErrorCode::kOfflineMissing, what + " (the cache does not know the revision)");
  }
  Survey survey = known;
  survey.need = Survey::Need::kNothing;
  survey.verified_by = "unverified";
  FVP_TRY(const auto info, posix::stat(survey.path));
  if (!source.filename.empty()) {
    if (!info || !info->regular) return fail(ErrorCode::kOfflineMissing, what);
    FileSpec file;
    file.path = source.filename;
    file.size = info->size;
    survey.files.push_back(std::move(file));
    return survey;
  }
  FVP_TRY(const std::vector<std::string> names, posix::list(survey.path));
  if (!info || !info->directory || names.empty()) return fail(ErrorCode::kOfflineMissing, what);
  return survey;
}

}  // namespace fvprefetch
