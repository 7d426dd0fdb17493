#include "prefetch/archive.h"

#include <algorithm>
#include <utility>

#include "base/try.h"
#include "base/url.h"
#include "cache/layout.h"
#include "cache/unpack.h"

namespace fvprefetch {

namespace {

/// Of a directory that was looked at.
struct Verdict {
  std::optional<posix::FileInfo> info;  ///< nullopt: nothing is there
  std::optional<Receipt> receipt;       ///< that the directory agrees with
  bool good = false;
  std::string verified_by;
  std::string why;  ///< what a user should know of it
};

bool is_same(const posix::FileInfo& a, const posix::FileInfo& b) {
  // By itself alone: whoever imports from a directory makes files in it, and changes its time.
  return a.inode == b.inode && a.device == b.device;
}

/// Everything that the receipt lists is there, as far as names and sizes tell; else the first that
/// is not. kPermission: this user may not read one.
Result<std::string> first_gap(const std::string& directory, const Receipt& receipt,
                              const Session& session) {
  for (const ReceiptFile& file : receipt.files) {
    const std::string path = directory + "/" + file.path;
    const auto info = posix::lstat(path);
    if (!info) FVP_CHECK_OK(posix::check_readable(path));  // a folder above it may be closed
    bool right = info && *info && (*info)->regular && (*info)->size == file.size;
    if (!file.link.empty()) right = posix::read_link(path) == file.link;
    if (!right || session.rejects(path)) return file.path;
    if (file.link.empty()) FVP_CHECK_OK(posix::check_readable(path));
  }
  return std::string();
}

Verdict judge_without_receipt(const UrlSource& source, const Session& session, bool refresh,
                              Verdict verdict) {
  const bool pinned = source.file.digest || source.file.size;
  if (!pinned && !refresh) {
    verdict.good = true;
    verdict.verified_by = "present";
    return verdict;
  }
  verdict.why = "nothing tells which archive " + source.path() + " was unpacked from";
  if (!session.offline() || session.options().frozen) {
    verdict.why += "; fetched again, and what is there is kept beside it";
    return verdict;
  }
  verdict.good = true;
  verdict.verified_by = "unverified";
  return verdict;
}

Result<Verdict> judge(const UrlSource& source, const Session& session, bool refresh) {
  const UrlStore store(source.root, source.relative);
  const std::string path = source.path();
  Verdict verdict;
  FVP_TRY(verdict.info, store.lookup_directory());
  if (!verdict.info) return verdict;
  const std::optional<Receipt> receipt = archive_receipt(store);
  if (!receipt) return judge_without_receipt(source, session, refresh, std::move(verdict));

  if (receipt->source_key != source_key(source)) {
    verdict.why = "the contents of " + path + " came from " + other_source(*receipt, source);
    if (refresh) {
      verdict.why += "; fetched again";
      return verdict;
    }
    verdict.why += "; --refresh replaces it";
  }
  if (const std::string other = archive_mismatch(source, *receipt->archive); !other.empty()) {
    verdict.why = path + " was unpacked from " + other + "; fetched again";
    return verdict;
  }
  if (receipt->files.empty()) return verdict;  // somebody was about to replace it
  FVP_TRY(const std::string gap, first_gap(path, *receipt, session));
  if (!gap.empty()) {
    verdict.why = path + "/" + gap + " is not as it was unpacked; fetched again";
    return verdict;
  }
  const bool pinned = source.digest_rule == "manifest";
  if (refresh && !pinned) return verdict;
  verdict.good = true;
  verdict.verified_by = "receipt";
  verdict.receipt = receipt;
  return verdict;
}

FileSpec unpacked(const ReceiptFile& file) {
  FileSpec spec;
  spec.path = file.path;
  spec.size = file.size;
  if (!file.sha256.empty()) spec.digest = Digest{Digest::Kind::kSha256, file.sha256};
  return spec;
}

std::string file_name(const std::string& path) {
  return path.substr(path.find_last_of('/') + 1);  // npos + 1 is 0
}

}  // namespace

std::string archive_mismatch(const UrlSource& source, const ReceiptArchive& archive) {
  if (source.file.digest && !agrees(*source.file.digest, archive.sha256)) {
    return "an archive with sha256 " + archive.sha256 + ", expected " + source.file.digest->hex;
  }
  if (source.file.size && *source.file.size != archive.size) {
    return "an archive of " + std::to_string(archive.size) + " bytes, expected " +
           std::to_string(*source.file.size);
  }
  if (*source.strip_components != archive.strip_components) {
    return "its archive with strip_components " + std::to_string(archive.strip_components) +
           ", expected " + std::to_string(*source.strip_components);
  }
  return {};
}

std::optional<Receipt> archive_receipt(const UrlStore& store) {
  std::optional<Receipt> receipt = read_receipt(store.paths().receipt());
  return receipt && receipt->archive ? receipt : std::nullopt;
}

Result<Survey> look_archive(const UrlSource& source, const Session& session, bool refresh) {
  FVP_TRY(const Verdict verdict, judge(source, session, refresh));
  Survey survey;
  survey.path = source.path();
  survey.verified_by = verdict.verified_by;
  survey.judged = verdict.info;
  if (!verdict.why.empty()) survey.warnings.push_back(verdict.why);
  if (!verdict.good) {
    survey.files.push_back(source.file);
    survey.missing.push_back(0);
    survey.need = Survey::Need::kFiles;
  } else if (verdict.receipt) {
    for (const ReceiptFile& file : verdict.receipt->files) {
      if (file.link.empty()) survey.files.push_back(unpacked(file));
    }
  }
  return survey;
}

ArchiveTarget::ArchiveTarget(UrlSource source, const std::optional<posix::FileInfo>& rejected,
                             const Session& session)
    : source_(std::move(source)),
      store_(source_.root, source_.relative),
      rejected_(rejected),
      session_(session) {}

Status ArchiveTarget::prepare(std::set<std::string>& prepared) {
  if (prepared.contains(store_.paths().directory())) return {};
  FVP_CHECK_OK(store_.prepare());
  prepared.insert(store_.paths().directory());
  return {};
}

Result<bool> ArchiveTarget::present() {
  FVP_TRY(const auto info, store_.lookup_directory());
  if (!info || (rejected_ && is_same(*info, *rejected_))) return false;
  // Another one than when the run began is as fresh as it can be: no --refresh here.
  FVP_TRY(const Verdict verdict, judge(source_, session_, false));
  if (!verdict.good) rejected_ = verdict.info;
  verified_by_ = verdict.verified_by;
  return verdict.good;
}

PartialPlace ArchiveTarget::partial(const std::string& tag) const {
  return {store_.paths().partial(tag), store_.paths().journal(tag)};
}

std::vector<std::string> ArchiveTarget::unfinished_tags(JournalNames& names) const {
  return store_.unfinished(names);
}

std::uint64_t ArchiveTarget::bytes_beside() const {
  const std::optional<Receipt> known = archive_receipt(store_);
  if (!known || !source_.file.digest || !archive_mismatch(source_, *known->archive).empty())
    return 0;
  std::uint64_t bytes = 0;
  for (const ReceiptFile& file : known->files) bytes += file.size;
  return bytes;
}

std::vector<Leftover> ArchiveTarget::trees() const {
  std::vector<Leftover> found;
  const auto names = posix::list(store_.paths().directory());
  if (!names) return found;  // `fvprefetch prune` says why
  for (const std::string& name : *names) {
    if (auto tree = tree_of(store_.paths(), name)) found.push_back(*std::move(tree));
  }
  return found;
}

Status ArchiveTarget::publish(Downloaded file, const std::string& partial) {
  const ReceiptArchive archive{
      .sha256 = file.sha256, .size = file.size, .strip_components = *source_.strip_components};
  FVP_TRY(const bool same, has_same(archive));
  if (same) return posix::remove_file(partial);

  const std::string tag(layout::partial_tag(file_name(partial)));
  const std::string tree = store_.paths().unpacking(tag);
  UnpackOptions options;
  options.strip_components = archive.strip_components;
  if (session_.options().space_check) options.room = posix::free_bytes(store_.paths().directory());
  options.pinned = source_.file.digest || source_.file.size;
  options.must_stop = session_.stop_check();
  options.meter = [this](std::uint64_t bytes) { unpacked_ += bytes; };
  Result<std::vector<ReceiptFile>> files = unpack(file.fd, "the archive", tree, options);
  if (!files) {
    (void)posix::remove_tree(tree);  // best effort, as below: private names, which pruning knows
    const ErrorCode code = files.error().code;
    // The next run goes on with it, unless it is not to be used, or too small to have a journal.
    const bool useless = code == ErrorCode::kIntegrity || code == ErrorCode::kUsage;
    if (useless || !posix::exists(store_.paths().journal(tag))) (void)posix::remove_file(partial);
    return fail(std::move(files).error());
  }
  FVP_CHECK_OK(publish_tree(tag, archive, *std::move(files)));
  (void)posix::remove_file(partial);
  return {};
}

Status ArchiveTarget::publish_tree(const std::string& tag, const ReceiptArchive& archive,
                                   std::vector<ReceiptFile> files) {
  Receipt receipt = new_receipt(archive);
  receipt.files = std::move(files);
  return replace(tag, receipt);
}

Result<bool> ArchiveTarget::has_same(const ReceiptArchive& archive) {
  FVP_TRY(const Verdict verdict, judge(source_, session_, false));
  if (!verdict.receipt || !(*verdict.receipt->archive == archive)) return false;
  if (verdict.receipt->source_key != source_key(source_)) {
    Receipt renamed = new_receipt(archive);
    renamed.files = verdict.receipt->files;
    (void)write(std::move(renamed));  // best effort: else it is warned of again
  }
  return true;
}

Status ArchiveTarget::replace(const std::string& tag, const Receipt& receipt) {
  FVP_TRY(const auto before, store_.lookup_directory());
  if (before && archive_receipt(store_)) {
    Receipt none = receipt;
    none.files.clear();
    FVP_CHECK_OK(write(std::move(none)));
    FVP_CHECK_OK(store_.publish_directory(tag));
    return write(receipt);
  }
  if (before) FVP_CHECK_OK(posix::move(source_.path(), source_.path() + ".replaced-" + tag));
  // Best effort: without it the tree is taken as it is.
  (void)write(receipt);
  Status published = store_.publish_directory(tag);
  if (!published) (void)posix::remove_file(store_.paths().receipt());
  return published;
}

Receipt ArchiveTarget::new_receipt(const ReceiptArchive& archive) const {
  Receipt receipt;
  receipt.source = redact(source_.file.urls.front());
  receipt.source_key = source_key(source_);
  receipt.archive = archive;
  return receipt;
}

Status ArchiveTarget::write(Receipt receipt) const {
  return write_receipt(store_.paths().temporary(posix::random_tag()), store_.paths().receipt(),
                       std::move(receipt));
}

}  // namespace fvprefetch
