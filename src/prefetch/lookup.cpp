#include "prefetch/lookup.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "base/try.h"
#include "cache/hf_store.h"
#include "prefetch/archive.h"

namespace fvprefetch {

namespace {

constexpr const char* kPinHint =
    "pin the revision that the manifest was made for, or correct the manifest";

/// Of a file that stat() tells of: a network file system may do so for seconds after another node
/// has removed it. Who opens it learns the truth.
bool was_removed(const std::string& path) {
  const auto fd = posix::open_read(path);
  return !fd && fd.error().code == ErrorCode::kNotFound;
}

/// Whether a file of a snapshot is there, and for this user: what he may not open is an error,
/// which his job would meet otherwise. `vouched`: a receipt that was opened tells of it.
Result<bool> is_there(const HubStore& store, const std::string& commit, const FileSpec& file,
                      bool vouched) {
  const std::string path = store.paths().pointer(commit, file.path);
  const bool there = store.has_file(commit, file);
  // Of another size or gone, it is fetched again; not when a closed folder hides it.
  if (there || !posix::stat(path)) FVP_CHECK_OK(posix::check_readable(path));
  // Who removes a cache removes the receipt, too.
  return there && (vouched || !was_removed(path));
}

/// A file as select() wants it, of which only this is known.
RepoFile listed(const std::string& path, std::uint64_t size) {
  RepoFile file;
  file.path = path;
  file.size = size;
  return file;
}

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
                kPinHint);
  }
  if (!source.sha256.empty() && file.digest && file.digest->kind == Digest::Kind::kSha256 &&
      file.digest->hex != source.sha256) {
    return fail(ErrorCode::kIntegrity,
                source.repo.id + "/" + file.path + " has sha256 " + file.digest->hex +
                    " on the Hub, the manifest expects " + source.sha256,
                kPinHint);
  }
  return {};
}

/// A small Hub file is named by git's digest: a sha256 that the manifest pins is checked on its
/// own.
bool needs_own_check(const std::string& sha256, const FileSpec& file) {
  return !sha256.empty() && !(file.digest && file.digest->kind == Digest::Kind::kSha256);
}

/// What a Hub receipt tells; nullopt for one that cannot be this entry's (whoever may write to a
/// shared cache may have put it there), or that names no blobs.
std::optional<Receipt> hub_receipt(const std::string& path, const HubSource& source,
                                   const std::string& commit) {
  std::optional<Receipt> receipt = read_receipt(path);
  if (!receipt || receipt->commit != commit || receipt->files.empty()) return std::nullopt;
  std::vector<RepoFile> files;
  for (const ReceiptFile& file : receipt->files) {
    if (file.blob.empty()) return std::nullopt;
    files.push_back(listed(file.path, file.size));
  }
  const auto selected = select(without_pins(source), files);
  if (!selected || selected->size() != files.size()) return std::nullopt;
  const ReceiptFile& first = receipt->files.front();
  if (!source.sha256.empty() && first.sha256 != source.sha256) return std::nullopt;
  return receipt;
}

}  // namespace

Result<Survey> list_hub(const HubSource& source, const Session& session, const Told& told) {
  const HubStore store = session.store(source.repo);
  const bool pinned = hub::is_commit(source.revision);
  Survey survey;
  survey.asked = told.revision || told.tree.has_value();
  if (told.commit) {
    survey.commit = *told.commit;
  } else if (pinned) {
    survey.commit = source.revision;
  } else if (told.cached_ref || !session.options().refresh || session.offline()) {
    FVP_TRY(const std::optional<HubStore::Ref> ref, store.read_ref(source.revision));
    if (ref) survey.commit = ref->commit;
    survey.ref_inexact = ref && !ref->exact;
  }
  if (survey.commit.empty()) {
    survey.need = Survey::Need::kRevision;
    return survey;
  }
  survey.path = source.filename.empty() ? store.paths().snapshot(survey.commit)
                                        : store.paths().pointer(survey.commit, source.filename);

  const std::optional<Receipt> receipt = hub_receipt(
      store.paths().receipt(survey.commit, selection_of(source)), source, survey.commit);
  if (!pinned) {
    survey.resolved_at = told.revision ? rfc3339_now()
                         : receipt && !receipt->resolved_at.empty()
                             ? receipt->resolved_at
                             : store.ref_time(source.revision);
  }

  std::optional<std::vector<RepoFile>> tree = told.tree;
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
    Result<std::vector<RepoFile>> selected = select(without_pins(source), *tree);
    const bool by_ref = !pinned && !told.commit && !told.cached_ref && !session.offline();
    if (!selected && selected.error().code == ErrorCode::kNotFound && by_ref) {
      // What the branch was when the cache last heard of it says nothing of what it lacks now.
      Survey unknown;
      unknown.need = Survey::Need::kRevision;
      return unknown;
    }
    if (!selected) return fail(std::move(selected).error());
    for (const RepoFile& file : *selected) survey.files.push_back(hub::to_file_spec(file));
  }
  survey.tree = told.tree;
  return survey;
}

namespace {

/// The one file of the entry is there; is it the one that the manifest pins?
Status check_own_pin(const HubSource& source, const Session& session, Hashing hashing,
                     Survey& survey) {
  if (hashing == Hashing::kForbidden) {
    survey.unchecked = true;
    return {};
  }
  const FileSpec& file = survey.files.front();
  const std::string pointer = session.store(source.repo).paths().pointer(survey.commit, file.path);
  FVP_TRY(const Pin pin, check_pin(source.sha256, file, pointer, session.stop_check()));
  if (pin == Pin::kOther) return fail(pin_error(source.sha256, file));
  if (pin == Pin::kBroken) {
    survey.missing.push_back(0);
    survey.warnings.push_back("the file at " + pointer +
                              " is not the one that it is named after; fetched again");
  }
  return {};
}

Result<Survey> look_hub(const HubSource& source, const Session& session, Hashing hashing,
                        const Told& told) {
  FVP_TRY(Survey survey, list_hub(source, session, told));
  if (survey.need != Survey::Need::kNothing) return survey;
  FVP_CHECK_OK(check_pins(source, survey.files));

  const HubStore store = session.store(source.repo);
  const bool receipt = survey.verified_by == "receipt";
  for (std::size_t i = 0; i < survey.files.size(); ++i) {
    const FileSpec& file = survey.files[i];
    const std::string path = store.paths().pointer(survey.commit, file.path);
    FVP_TRY(const bool there, is_there(store, survey.commit, file, receipt));
    if (!there || session.rejects(path)) {
      survey.missing.push_back(i);
    } else if (!source.files.empty() && !receipt) {
      // Once, as for a URL with a sha256: other clients name blobs by what they hope to have got.
      if (hashing == Hashing::kForbidden) {
        survey.unchecked = true;
        continue;
      }
      FVP_TRY(const bool right, has_digest(file, path, session.stop_check()));
      if (right) continue;
      survey.missing.push_back(i);
      survey.warnings.push_back("the file at " + path +
                                " is not the one that the manifest pins; fetched again");
    }
  }
  if (survey.missing.empty()) {
    survey.wants_receipt = !receipt;
    if (!receipt && needs_own_check(source.sha256, survey.files.front())) {
      FVP_CHECK_OK(check_own_pin(source, session, hashing, survey));
    }
  }
  survey.need = survey.missing.empty() ? Survey::Need::kNothing : Survey::Need::kFiles;
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
                         session.stop_check()));
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

/// A path is taken as it is; a frozen run takes nothing that is not what the manifest pins.
Status check_frozen_path(const PathSource& source, const Session& session) {
  if (!session.options().frozen) return {};
  FVP_TRY(const auto info, posix::stat(source.path));
  if (!info) return {};
  const auto wrong = [&source](const std::string& has, const std::string& expected) -> Status {
    return fail(ErrorCode::kIntegrity, source.path + " has " + has + ", expected " + expected);
  };
  if (source.size && info->size != *source.size) {
    return wrong(std::to_string(info->size) + " bytes", std::to_string(*source.size));
  }
  if (source.sha256.empty()) return {};
  FVP_TRY(const HashedFile actual,
          hash_file(source.path, Digest::Kind::kSha256, session.stop_check()));
  return actual.hex == source.sha256 ? Status{} : wrong("sha256 " + actual.hex, source.sha256);
}

Result<Survey> look_path(const PathSource& source, const Session& session, Hashing hashing) {
  if (hashing == Hashing::kAllowed) FVP_CHECK_OK(check_frozen_path(source, session));
  Survey survey;
  survey.path = source.path;
  survey.verified_by = "present";
  FVP_TRY(const auto info, posix::stat(source.path));
  FVP_CHECK_OK(posix::check_readable(source.path));
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
  const HubStore store = session.store(source.repo);
  FVP_TRY(const auto found, store.list_snapshot(commit));
  std::vector<RepoFile> tree;
  std::set<std::string_view> dangling;
  for (const HubStore::SnapshotFile& file : found) {
    tree.push_back(listed(file.path, file.size));
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

/// One judgement of the file that is there now. nullopt: it was replaced or removed meanwhile.
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
  FVP_CHECK_OK(posix::check_readable(store.paths().path()));
  // A digest told by a name is checked when the file is fetched; one that the manifest pins,
  // always.
  const bool pinned = source.digest_rule == "manifest" && source.file.digest;
  if (receipt && (!pinned || receipt->files.front().sha256 == source.file.digest->hex)) {
    verdict.good = true;
    verdict.verified_by = "receipt";
    return verdict;
  }
  if (!pinned || hashing == Hashing::kForbidden) {
    if (was_removed(store.paths().path())) return std::nullopt;
    verdict.good = true;
    verdict.verified_by = source.file.size ? "size" : "present";
    verdict.unchecked = pinned;
    return verdict;
  }
  FVP_TRY(const auto hashed, hash_if_there(store.paths().path(), Digest::Kind::kSha256, must_stop));
  if (!hashed) return std::nullopt;
  FVP_TRY(const auto now, store.lookup());
  if (!now || !same_file(*now, hashed->info)) return std::nullopt;
  verdict.info = hashed->info;
  if (!agrees(*source.file.digest, hashed->hex)) {
    verdict.why = "the file at " + store.paths().path() + " has sha256 " + hashed->hex +
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

Result<bool> has_digest(const FileSpec& file, const std::string& path, const StopCheck& must_stop) {
  if (!file.digest) return true;
  FVP_TRY(const auto actual, hash_if_there(path, file.digest->kind, must_stop));
  return actual && agrees(*file.digest, actual->hex);
}

Result<Pin> check_pin(const std::string& sha256, const FileSpec& file, const std::string& path,
                      const StopCheck& must_stop) {
  if (!needs_own_check(sha256, file)) return Pin::kAgrees;
  FVP_TRY(const auto actual, hash_if_there(path, Digest::Kind::kSha256, must_stop));
  if (!actual) return Pin::kBroken;
  if (actual->hex == sha256) return Pin::kAgrees;
  if (!file.digest) return Pin::kOther;
  FVP_TRY(const bool own, has_digest(file, path, must_stop));
  return own ? Pin::kOther : Pin::kBroken;
}

Error pin_error(const std::string& sha256, const FileSpec& file) {
  return fail(ErrorCode::kIntegrity,
              file.path + " of the Hub does not have sha256 " + sha256 +
                  ", which the manifest expects",
              kPinHint)
      .value();
}

Result<Survey> look(const Source& source, const Session& session, Hashing hashing,
                    const Told& told) {
  if (const auto* path = std::get_if<PathSource>(&source))
    return look_path(*path, session, hashing);
  if (const auto* url = std::get_if<UrlSource>(&source)) {
    const bool refresh = session.options().refresh && !session.offline();
    return url->is_archive() ? look_archive(*url, session, refresh)
                             : look_url(*url, session, hashing);
  }
  return look_hub(std::get<HubSource>(source), session, hashing, told);
}

namespace {

Result<Survey> ask(const Source& source, const Survey& known, Session& session, Hashing hashing) {
  const auto& hub = std::get<HubSource>(source);
  Told told;
  if (known.need == Survey::Need::kRevision) {
    FVP_TRY(told.commit, session.commit_of(hub.repo, hub.revision));
    told.revision = true;
    FVP_TRY(Survey survey, look(source, session, hashing, told));
    if (survey.need != Survey::Need::kTree) return survey;
  } else {
    told.commit = known.commit;  // the ref may move while we ask
  }
  FVP_TRY(told.tree, session.tree_of(hub.repo, *told.commit));
  return look(source, session, hashing, told);
}

/// Whether the real client would look into the cache after this answer (hf-contract sections 6 and
/// 7): when the Hub is not reached, and after any answer of HTTP but that the revision or the file
/// is not there. Not when a proxy fails or the connection breaks, which somebody has to mend.
bool may_fall_back(const Error& error) {
  return error.reason == kUnreachable || error.reason == "RepoNotFound" ||
         error.reason == "GatedRepo" || error.reason.starts_with(kHttpStatus);
}

/// Should the Hub give no answer: what the cache has, if that is complete as far as anybody can
/// tell.
Result<Survey> fall_back(const HubSource& source, const Session& session, Hashing hashing) {
  Told told;
  told.cached_ref = true;
  FVP_TRY(Survey survey, look_hub(source, session, hashing, told));
  if (survey.unlisted()) {
    FVP_TRY(survey, look_offline(source, session, survey, hashing));
  }
  if (survey.need == Survey::Need::kNothing) return survey;
  return fail(ErrorCode::kOfflineMissing, "not complete");
}

}  // namespace

Result<Survey> ask_hub(const Source& source, const Survey& known, Session& session,
                       Hashing hashing) {
  const auto& hub = std::get<HubSource>(source);
  // Looked at first: who has a substitute need not be patient with a Hub that is away.
  const Result<Survey> cached = fall_back(hub, session, hashing);
  // No answer of the Hub would change that.
  if (!cached && cached.error().code == ErrorCode::kPermission) return cached;
  session.be_patient(!cached);
  Result<Survey> survey = ask(source, known, session, hashing);
  session.be_patient(true);
  if (survey || !cached || session.must_stop() || !may_fall_back(survey.error())) return survey;
  // Once the Hub has named a commit, that is the one.
  if (known.need == Survey::Need::kRevision && session.knows_commit(hub.repo, hub.revision)) {
    return survey;
  }
  Survey substitute = *cached;
  substitute.warnings.push_back(
      "the Hub was not to be asked (" + survey.error().message +
      "); taking what the cache has, commit " + substitute.commit +
      (substitute.resolved_at.empty() ? std::string() : " of " + substitute.resolved_at));
  return substitute;
}

namespace {

/// The one file of an entry of which nothing but the file itself tells.
Status look_offline_at_file(const HubSource& source, const Session& session, Hashing hashing,
                            const std::string& what, Survey& survey) {
  FVP_CHECK_OK(posix::check_readable(survey.path));
  const Result<std::optional<posix::FileInfo>> info = posix::stat(survey.path);
  if (!info || !*info || !(*info)->regular) return fail(ErrorCode::kOfflineMissing, what);
  FileSpec file;
  file.path = source.filename;
  file.size = (*info)->size;
  if (source.size && *source.size != *file.size) {
    return fail(ErrorCode::kOfflineMissing,
                what + " (the cache has one of " + std::to_string(*file.size) +
                    " bytes, the manifest expects " + std::to_string(*source.size) + ")");
  }
  if (!source.sha256.empty() && hashing == Hashing::kForbidden) {
    survey.unchecked = true;
  } else {
    FVP_TRY(const Pin pin, check_pin(source.sha256, file, survey.path, session.stop_check()));
    if (pin != Pin::kAgrees) {
      return fail(ErrorCode::kOfflineMissing,
                  what + " (the cache has one without sha256 " + source.sha256 + ")");
    }
  }
  survey.files.push_back(std::move(file));
  return {};
}

}  // namespace

Result<Survey> look_offline(const HubSource& source, const Session& session, const Survey& known,
                            Hashing hashing) {
  const std::string what = source.repo.id + (source.filename.empty() ? "" : "/" + source.filename) +
                           " at revision " + source.revision;
  if (known.need == Survey::Need::kRevision) {
    return fail(ErrorCode::kOfflineMissing, what + " (the cache does not know the revision)");
  }
  Survey survey = known;
  survey.need = Survey::Need::kNothing;
  survey.verified_by = "unverified";
  if (!source.filename.empty()) {
    FVP_CHECK_OK(look_offline_at_file(source, session, hashing, what, survey));
    return survey;
  }
  const Result<std::vector<FileSpec>> found = files_in_snapshot(source, session, known.commit);
  if (!found) {
    if (found.error().code != ErrorCode::kNotFound) return tl::unexpected(found.error());
    return fail(ErrorCode::kOfflineMissing, what);
  }
  survey.warnings.push_back("nothing lists the files of " + what + ": " +
                            (found->size() == 1 ? "the one" : std::to_string(found->size())) +
                            " that the cache has is taken as it is");
  for (const FileSpec& file : *found) {
    FVP_CHECK_OK(
        posix::check_readable(session.store(source.repo).paths().pointer(known.commit, file.path)));
    if (!file.size) {
      return fail(ErrorCode::kOfflineMissing,
                  what + " (the link " + file.path + " leads to no file)");
    }
    FileSpec spec;  // without the digest that its blob's name tells: it was not compared
    spec.path = file.path;
    spec.size = file.size;
    survey.files.push_back(std::move(spec));
  }
  return survey;
}

}  // namespace fvprefetch
