#include "prefetch/lookup.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "base/printable.h"
#include "base/try.h"
#include "cache/hf_store.h"
#include "prefetch/archive.h"
#include "prefetch/glance.h"

namespace fvprefetch {

namespace {

constexpr const char* kPinHint =
    "pin the revision that the manifest was made for, or correct the manifest";

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

/// What the link in a snapshot tells: nothing where it is none.
std::optional<Digest> digest_of_pointer(const std::string& path) {
  const std::string target = posix::read_link(path).value_or("");
  return digest_of_blob(target.substr(target.rfind('/') + 1));  // npos + 1 is 0
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

bool lists_the_same(const Receipt& receipt, const std::vector<FileSpec>& files) {
  return std::equal(receipt.files.begin(), receipt.files.end(), files.begin(), files.end(),
                    [](const ReceiptFile& told, const FileSpec& file) {
                      return told.path == file.path && told.blob == file.blob;
                    });
}

/// Python writes the list of a commit for its owner alone; the blobs beside it are everybody's.
void warn_of_closed_tree(const HubStore& store, Survey& survey) {
  const std::string path = store.paths().tree(survey.commit);
  const auto fd = posix::open_read(path);
  if (fd || fd.error().code != ErrorCode::kPermission) return;
  survey.warnings.push_back(
      "the list of the commit's files is there, but this user may not read it; "
      "its owner can share it with `chmod a+r " +
      path + "`");
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
  survey.all_hashed = receipt && receipt->hashed;
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
    // Whoever may write to the cache may have put it there.
    if (tree && !hub::list_fault(*tree).empty()) tree.reset();
    if (told.tree || !tree) warn_of_closed_tree(store, survey);
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
    survey.all_hashed = survey.all_hashed && lists_the_same(*receipt, survey.files);
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

/// What to make of a Hub file that is there with the right size.
struct HubVerdict {
  bool gone = false;
  std::string fault;  ///< empty: it is taken
  bool hashed = false;
  bool unchecked = false;   ///< as in Survey
  bool is_pointer = false;  ///< the right file, and yet hardly what is wanted
};

/// Of one that no receipt vouches for. Other clients name blobs by what they hope to have got, so
/// it is opened; what looks wrong, and what has to be certain (`must_hash`), is hashed where its
/// digest is known, and then the digest decides: a repository may have anything in it.
Result<HubVerdict> judge_hub_file(const FileSpec& file, const std::string& path, bool must_hash,
                                  const Session& session, Hashing hashing) {
  HubVerdict verdict;
  const Glance seen = glance(path, asked_as(file.path));
  verdict.gone = seen.gone;
  if (seen.gone || (seen.fault.empty() && !must_hash)) return verdict;
  if (!file.digest) {
    verdict.fault = seen.fault;
  } else if (hashing == Hashing::kForbidden) {
    verdict.unchecked = true;
  } else {
    FVP_TRY(const auto actual, hash_if_there(path, file.digest->kind, session.stop_check()));
    verdict.gone = !actual;
    verdict.hashed = actual && agrees(*file.digest, actual->hex);
    if (verdict.hashed) {
      verdict.is_pointer = is_pointer(path);
    } else if (actual) {
      verdict.fault = "has " + std::string(name(file.digest->kind)) + " " + actual->hex +
                      ", expected " + file.digest->hex;
      if (!seen.fault.empty()) verdict.fault = seen.fault + "; it " + verdict.fault;
    }
  }
  return verdict;
}

/// What lies at `path` where a file of another size is expected; "" when nothing does.
std::string fault_of_other_size(const FileSpec& file, const std::string& path) {
  const auto info = posix::stat(path);
  if (!info || !*info || !(*info)->regular || !file.size || (*info)->size == *file.size) return {};
  std::string fault =
      "has " + std::to_string((*info)->size) + " bytes, expected " + std::to_string(*file.size);
  if (const Glance seen = glance(path, asked_as(file.path)); !seen.fault.empty()) {
    fault += ", and " + seen.fault;
  }
  return fault;
}

/// What the survey makes of the files that it lists. `trusted`: their receipt vouches for them.
Status look_at_files(const HubSource& source, const Session& session, Hashing hashing, bool trusted,
                     Survey& survey) {
  const HubStore store = session.store(source.repo);
  // Once, as for a URL with a sha256.
  const bool pinned = !source.files.empty() || !source.sha256.empty();
  const bool must_hash = pinned || session.options().verify_foreign;
  std::size_t hashed = 0;
  for (std::size_t i = 0; i < survey.files.size(); ++i) {
    const FileSpec& file = survey.files[i];
    const std::string path = store.paths().pointer(survey.commit, file.path);
    // Who removes a cache removes the receipt, too, and that one was opened.
    const bool there = store.has_file(survey.commit, file);
    // What this user may not open is an error, which his job would meet otherwise. Of another size
    // or gone, it is fetched again; not when a closed folder hides it.
    if (there || !posix::stat(path)) FVP_CHECK_OK(posix::check_readable(path));
    if (!there) {
      survey.missing.push_back(i);
      if (std::string fault = fault_of_other_size(file, path); !fault.empty()) {
        survey.faults.emplace(i, std::move(fault));
      }
    } else if (session.rejects(path)) {
      survey.missing.push_back(i);
    } else if (!trusted) {
      FVP_TRY(HubVerdict verdict, judge_hub_file(file, path, must_hash, session, hashing));
      if (verdict.hashed) ++hashed;
      if (verdict.unchecked) survey.unchecked = true;
      if (verdict.is_pointer) survey.warnings.push_back(warning_of_pointer(path));
      if (!verdict.gone && verdict.fault.empty()) continue;
      survey.missing.push_back(i);
      if (!verdict.fault.empty()) survey.faults.emplace(i, std::move(verdict.fault));
    }
  }
  survey.all_hashed = survey.all_hashed || survey.missing.size() + hashed == survey.files.size();
  return {};
}

Result<Survey> look_hub(const HubSource& source, const Session& session, Hashing hashing,
                        const Told& told) {
  FVP_TRY(Survey survey, list_hub(source, session, told));
  if (survey.need != Survey::Need::kNothing) return survey;
  FVP_CHECK_OK(check_pins(source, survey.files));

  // A receipt of files that were only looked at does not vouch for their digests.
  const bool receipt =
      survey.verified_by == "receipt" && (survey.all_hashed || !session.options().verify_foreign);
  FVP_CHECK_OK(look_at_files(source, session, hashing, receipt, survey));
  if (survey.missing.empty()) {
    survey.wants_receipt = !receipt;
    if (!receipt && needs_own_check(source.sha256, survey.files.front())) {
      FVP_CHECK_OK(check_own_pin(source, session, hashing, survey));
    }
    const bool asked_for = !source.sha256.empty() || session.options().verify_foreign;
    if (!receipt && asked_for && survey.all_hashed) survey.verified_by = "digest";
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
          judge_url_file(source, url_look(session, hashing), session.stop_check()));
  survey.verified_by = verdict.verified_by;
  survey.wants_receipt = verdict.wants_receipt;
  survey.sha256 = verdict.sha256;
  survey.unchecked = verdict.unchecked;
  survey.judged = verdict.info;
  if (verdict.good) {
    survey.files.front().size = verdict.info->size;
    if (!verdict.why.empty()) {
      survey.warnings.push_back("the file at " + survey.path + " " + verdict.why +
                                "; --refresh replaces it");
    }
  } else {
    survey.missing.push_back(0);
    survey.need = Survey::Need::kFiles;
    if (!verdict.why.empty()) survey.faults.emplace(0, verdict.why);
  }
  return survey;
}

/// What lies there and is not taken: why, where it is fetched again. (Offline it is missing, and
/// the error says why.)
void tell_faults(const Source& source, const Session& session, Survey& survey) {
  if (session.offline()) return;
  const auto* hub = std::get_if<HubSource>(&source);
  for (const auto& [i, fault] : survey.faults) {
    const std::string path = hub == nullptr ? survey.path
                                            : session.store(hub->repo).paths().pointer(
                                                  survey.commit, survey.files[i].path);
    survey.warnings.push_back("the file at " + path + " " + fault + "; fetched again");
  }
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
  survey.warnings = faults_at_path(source, session.stop_check());
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
    spec.digest = digest_of_pointer(store.paths().pointer(commit, file.path));
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
  const std::string& url = source.file.urls.front();
  return sha256_hex(url.substr(0, url.find('#')));  // what is behind it is never sent
}

std::string other_source(const Receipt& receipt, const UrlSource& source) {
  const std::string same = redact(source.file.urls.front());
  if (receipt.source != same) return "another source (" + escaped(receipt.source) + ")";
  return "another source (" + same +
         " with another query or user; neither is shown, for it may hold a secret)";
}

namespace {

/// Of what was fetched to this place, or looked into there, whatever lies there now.
std::optional<Receipt> kept_receipt(const UrlStore& store) {
  std::optional<Receipt> receipt = read_receipt(store.paths().receipt());
  return receipt && receipt->files.size() == 1 ? receipt : std::nullopt;
}

bool describes(const Receipt& receipt, const posix::FileInfo& file) {
  const ReceiptFile& kept = receipt.files.front();
  return kept.size == file.size && kept.mtime_ns == file.mtime_ns;
}

}  // namespace

std::optional<Receipt> url_receipt(const UrlStore& store, const posix::FileInfo& file) {
  std::optional<Receipt> receipt = kept_receipt(store);
  return receipt && describes(*receipt, file) ? receipt : std::nullopt;
}

std::optional<std::string> url_fault(const UrlSource& source, const std::string& path) {
  Glance seen = glance(path, asked_of(source));
  if (seen.gone) return std::nullopt;
  return std::move(seen.fault);
}

namespace {

/// By its bytes; nullopt: as judge_once().
Result<std::optional<UrlVerdict>> judge_by_digest(const UrlSource& source, const UrlStore& store,
                                                  const StopCheck& must_stop, UrlVerdict verdict) {
  FVP_TRY(const auto hashed, hash_if_there(store.paths().path(), Digest::Kind::kSha256, must_stop));
  if (!hashed) return std::nullopt;
  FVP_TRY(const auto now, store.lookup());
  if (!now || !same_file(*now, hashed->info)) return std::nullopt;
  verdict.info = hashed->info;
  verdict.sha256 = hashed->hex;
  verdict.good = agrees(*source.file.digest, hashed->hex);
  verdict.wants_receipt = verdict.good;
  verdict.verified_by = "digest";
  verdict.why.clear();
  if (!verdict.good) {
    verdict.why = "has sha256 " + hashed->hex + ", expected " + source.file.digest->hex;
  }
  return verdict;
}

/// One judgement of the file that is there now. nullopt: it was replaced or removed meanwhile.
Result<std::optional<UrlVerdict>> judge_once(const UrlSource& source, const UrlStore& store,
                                             const UrlLook& how, const StopCheck& must_stop) {
  UrlVerdict verdict;
  FVP_TRY(verdict.info, store.lookup());
  if (!verdict.info) return verdict;
  const posix::FileInfo& info = *verdict.info;

  const std::optional<Receipt> receipt = kept_receipt(store);
  const bool fits = receipt && describes(*receipt, info);
  const bool was_fetched = receipt && !receipt->files.front().sha256.empty();
  const bool seen_before = fits && !was_fetched;
  const bool vouched_for = fits && was_fetched;
  // Copied or touched since it was fetched: its receipt vouches for no byte, and is kept, since
  // `verify` compares the bytes with it.
  const bool has_its_size = was_fetched && receipt->files.front().size == info.size;
  const bool from_here = was_fetched && receipt->source_key == source_key(source);
  if (from_here && !has_its_size && !source.file.digest) {
    verdict.why = "has " + std::to_string(info.size) + " bytes, and " +
                  std::to_string(receipt->files.front().size) + " were fetched";
    return verdict;
  }
  if (has_its_size && !from_here) {
    verdict.why = "came from " + other_source(*receipt, source);
    if (source.name_is_guessed && !how.refresh && !source.file.digest) {
      return fail(ErrorCode::kUsage,
                  "the file at " + store.paths().path() + " " + verdict.why + ", and the name `" +
                      source.file.path + "` is only the last part of both addresses",
                  "give this one a name of its own with --name; --refresh puts it in that one's "
                  "place");
    }
    if (how.refresh) return verdict;
  }
  if (source.file.size && *source.file.size != info.size) {
    verdict.why = "has " + std::to_string(info.size) + " bytes, expected " +
                  std::to_string(*source.file.size);
    return verdict;
  }
  FVP_CHECK_OK(posix::check_readable(store.paths().path()));
  // A digest told by a name is checked when the file is fetched; one that the manifest pins,
  // always.
  const bool pinned = source.digest_rule == "manifest" && source.file.digest;
  if (vouched_for && (!pinned || receipt->files.front().sha256 == source.file.digest->hex)) {
    verdict.good = true;
    verdict.verified_by = "receipt";
    return verdict;
  }
  bool must_hash = pinned || (how.hash && source.file.digest);
  if (!must_hash && how.refresh) {
    verdict.why = "is vouched for by nothing, and --refresh asks for it anew";
    return verdict;
  }
  if (!must_hash && !seen_before) {
    const std::optional<std::string> fault = url_fault(source, store.paths().path());
    if (!fault) return std::nullopt;
    must_hash = !fault->empty() && source.file.digest;  // which decides
    if (!fault->empty() && !must_hash) {
      verdict.why = *fault;
      return verdict;
    }
    verdict.wants_receipt = !must_hash && !has_its_size;
  }
  if (must_hash && how.hashing == Hashing::kAllowed) {
    return judge_by_digest(source, store, must_stop, std::move(verdict));
  }
  verdict.good = true;
  verdict.verified_by = source.file.size ? "size" : "present";
  verdict.unchecked = must_hash;
  return verdict;
}

}  // namespace

UrlLook url_look(const Session& session, Hashing hashing) {
  return {.refresh = session.options().refresh && !session.offline(),
          .hash = session.options().verify_foreign,
          .hashing = hashing};
}

Result<UrlVerdict> judge_url_file(const UrlSource& source, const UrlLook& how,
                                  const StopCheck& must_stop) {
  const UrlStore store(source.root, source.relative);
  constexpr int kTries = 3;
  for (int i = 0; i < kTries; ++i) {
    FVP_TRY(const auto verdict, judge_once(source, store, how, must_stop));
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

std::string warning_of_pointer(const std::string& path) {
  return "the file at " + path +
         " is a Git LFS pointer, and that is what the repository has: its weights were never put "
         "there";
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
  const auto* url = std::get_if<UrlSource>(&source);
  if (url != nullptr && url->is_archive()) {
    FVP_TRY(Survey found,
            look_archive(*url, session, session.options().refresh && !session.offline()));
    // Nothing tells what is to be there: somebody else unpacked it, or made the folder alone.
    const bool unknown = found.verified_by == "present" || found.verified_by == "unverified";
    if (unknown && found.need == Survey::Need::kNothing) {
      for (std::string& fault : faults_in_folder(url->path(), session.stop_check())) {
        found.warnings.push_back(std::move(fault) + "; --refresh replaces the folder");
      }
    }
    return found;
  }
  Result<Survey> survey = url != nullptr
                              ? look_url(*url, session, hashing)
                              : look_hub(std::get<HubSource>(source), session, hashing, told);
  if (survey) tell_faults(source, session, *survey);
  return survey;
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
  if (!cached && cached.error().code == ErrorCode::kPermission) return fail(cached.error());
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

/// As judge_hub_file(), of a file that nothing lists: the name of its blob may tell its digest.
Status judge_unlisted(FileSpec file, const std::string& path, const std::string& what,
                      const Session& session, Hashing hashing, Survey& survey) {
  file.digest = digest_of_pointer(path);
  FVP_TRY(const HubVerdict verdict,
          judge_hub_file(file, path, session.options().verify_foreign, session, hashing));
  survey.unchecked = survey.unchecked || verdict.unchecked;
  if (verdict.gone) return fail(ErrorCode::kOfflineMissing, what);
  if (verdict.fault.empty()) return {};
  return fail(ErrorCode::kOfflineMissing,
              what + " (the file at " + path + " " + verdict.fault + ")");
}

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
  if (source.sha256.empty()) {
    FVP_CHECK_OK(judge_unlisted(file, survey.path, what, session, hashing, survey));
    survey.warnings.push_back("nothing tells the size of " + what +
                              ": the one that the cache has is taken as it is");
  } else if (hashing == Hashing::kForbidden) {
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
    FVP_CHECK_OK(judge_unlisted(spec,
                                session.store(source.repo).paths().pointer(known.commit, file.path),
                                what, session, hashing, survey));
    survey.files.push_back(std::move(spec));
  }
  return survey;
}

}  // namespace fvprefetch
