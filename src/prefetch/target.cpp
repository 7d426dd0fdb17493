#include "prefetch/target.h"

#include <algorithm>

#include "base/digest.h"
#include "base/try.h"
#include "cache/receipt.h"
#include "prefetch/rejected.h"

namespace fvprefetch {

std::vector<PartialPlace> Target::unfinished(JournalNames& names) const {
  std::vector<PartialPlace> places;
  for (const std::string& tag : unfinished_tags(names)) places.push_back(partial(tag));
  return places;
}

HubTarget::HubTarget(HubStore store, Pointer first, const Session& session)
    : store_(std::move(store)), session_(session) {
  pointers_.push_back(std::move(first));
}

void HubTarget::also(Pointer pointer) {
  pointers_.push_back(std::move(pointer));
}

std::string HubTarget::final_path() const {
  return store_.paths().blob(pointers_.front().file.blob);
}

std::string HubTarget::destination_lock() const {
  return store_.paths().snapshot_lock(pointers_.front().commit);
}

std::string HubTarget::blob_lock() const {
  return store_.paths().lock(pointers_.front().file.blob);
}

Status HubTarget::prepare(std::set<std::string>& prepared) {
  for (const Pointer& pointer : pointers_) {
    FVP_CHECK_OK(HubStore::accepts(pointer.file));
    if (prepared.contains(store_.paths().snapshot(pointer.commit))) continue;
    FVP_CHECK_OK(store_.prepare(pointer.commit));
    prepared.insert(store_.paths().snapshot(pointer.commit));
  }
  return {};
}

Result<bool> HubTarget::present() {
  if (store_.has_blob(pointers_.front().file)) {
    FVP_CHECK_OK(posix::check_readable(final_path()));
    FVP_TRY(const bool trusted, trusts_blob());
    if (!trusted) return false;
    return check_pins(final_path());
  }
  // A cache without links has the file itself at the pointer, and no blob. (A link leads to another
  // blob then: that of an entry which pins the path to other bytes.)
  for (const Pointer& pointer : pointers_) {
    const std::string path = store_.paths().pointer(pointer.commit, pointer.file.path);
    if (!has_pointer(pointer) || posix::is_link(path)) return false;
    FVP_TRY(const bool right, has_digest(pointer.file, path, session_.stop_check()));
    if (!right) return false;
  }
  const Pointer& first = pointers_.front();
  return check_pins(store_.paths().pointer(first.commit, first.file.path));
}

bool HubTarget::has_pointer(const Pointer& pointer) const {
  return store_.has_file(pointer.commit, pointer.file) &&
         !session_.rejects(store_.paths().pointer(pointer.commit, pointer.file.path));
}

Result<bool> HubTarget::trusts_blob() {
  if (session_.rejects(final_path())) return false;
  // By its size, as at any hit; a run that repairs looks into it, and one that was told the digest.
  const std::optional<Digest>& digest = pointers_.front().file.digest;
  const bool pinned = std::any_of(pointers_.begin(), pointers_.end(),
                                  [](const Pointer& pointer) { return pointer.pinned; });
  if (!(session_.repairs() || pinned) || !digest) return true;
  FVP_TRY(const auto now, posix::stat(final_path()));
  if (!now) return false;
  if (!judged_ || !same_file(*judged_, *now)) {
    FVP_TRY(const auto hashed, hash_if_there(final_path(), digest->kind, session_.stop_check()));
    if (!hashed) return false;
    judged_ = hashed->info;
    judged_good_ = agrees(*digest, hashed->hex);
  }
  return judged_good_;
}

bool HubTarget::visible() const {
  if (!store_.has_blob(pointers_.front().file)) return true;  // every pointer is a file of its own
  return std::all_of(pointers_.begin(), pointers_.end(), [this](const Pointer& pointer) {
    return refused_.contains(pointer.entry) || store_.links_to_blob(pointer.commit, pointer.file);
  });
}

Status HubTarget::adopt() {
  if (refused_.size() == pointers_.size()) return fail(refused_.begin()->second);
  if (!store_.has_blob(pointers_.front().file)) return {};  // every pointer is a file of its own
  return link_all(HubStore::Blob::kStays);
}

Result<bool> HubTarget::check_pins(const std::string& path) {
  refused_.clear();
  std::map<std::string, Pin> known;
  for (const Pointer& pointer : pointers_) {
    if (pointer.sha256.empty()) continue;
    auto answer = known.find(pointer.sha256);
    if (answer == known.end()) {
      FVP_TRY(const Pin pin, check_pin(pointer.sha256, pointer.file, path, session_.stop_check()));
      answer = known.emplace(pointer.sha256, pin).first;
    }
    if (answer->second == Pin::kBroken) return false;
    if (answer->second == Pin::kOther) {
      refused_.emplace(pointer.entry, pin_error(pointer.sha256, pointer.file));
    }
  }
  return true;
}

Status HubTarget::link_all(HubStore::Blob last) {
  for (const Pointer& pointer : pointers_) {
    if (refused_.contains(pointer.entry)) continue;
    const bool is_last = &pointer == &pointers_.back();
    FVP_CHECK_OK(store_.publish_pointer(pointer.commit, pointer.file,
                                        is_last ? last : HubStore::Blob::kStays));
  }
  return {};
}

PartialPlace HubTarget::partial(const std::string& tag) const {
  const std::string& blob = pointers_.front().file.blob;
  return {store_.paths().partial(blob, tag), store_.paths().journal(blob, tag)};
}

std::vector<std::string> HubTarget::unfinished_tags(JournalNames& names) const {
  return store_.unfinished(pointers_.front().file.blob, names);
}

std::uint64_t HubTarget::partial_bytes() const {
  return store_.partial_bytes(pointers_.front().file.blob);
}

Status HubTarget::publish(Downloaded file, const std::string& partial) {
  FVP_CHECK_OK(admit(partial));
  FVP_TRY(const posix::FileInfo published,
          store_.publish_blob(std::move(file.fd), partial, pointers_.front().file.blob));
  return reveal(published, file.sha256);
}

Status HubTarget::admit(const std::string& partial) {
  // The engine checked the digest that the Hub names the blob by; the manifest may pin one more.
  Result<bool> checked = check_pins(partial);
  if (!checked || refused_.size() == pointers_.size()) {
    (void)posix::remove_file(partial);  // best effort: it is private, nobody will take it
    return fail(checked ? refused_.begin()->second : std::move(checked).error());
  }
  fresh_ = !posix::exists(final_path());  // else older snapshots may link to it
  return {};
}

Status HubTarget::reveal(const posix::FileInfo& /*published*/, const std::string& /*sha256*/) {
  return link_all(fresh_ ? HubStore::Blob::kMoves : HubStore::Blob::kStays);
}

UrlTarget::UrlTarget(UrlSource source, const std::optional<posix::FileInfo>& rejected,
                     const Session& session)
    : source_(std::move(source)),
      store_(source_.root, source_.relative),
      rejected_(rejected),
      session_(session) {}

std::string UrlTarget::destination_lock() const {
  return store_.paths().lock();
}

Status UrlTarget::prepare(std::set<std::string>& prepared) {
  if (prepared.contains(store_.paths().directory())) return {};
  FVP_CHECK_OK(store_.prepare());
  prepared.insert(store_.paths().directory());
  return {};
}

Result<bool> UrlTarget::present() {
  FVP_TRY(const auto info, store_.lookup());
  if (!info || (rejected_ && same_file(*info, *rejected_))) return false;
  FVP_TRY(verdict_,
          judge_url_file(source_, url_look(session_, Hashing::kAllowed), session_.stop_check()));
  if (!verdict_.good) rejected_ = verdict_.info;
  return verdict_.good;
}

Status UrlTarget::adopt() {
  if (verdict_.wants_receipt) write_url_receipt(source_, verdict_.sha256, *verdict_.info);
  return {};
}

PartialPlace UrlTarget::partial(const std::string& tag) const {
  return {store_.paths().partial(tag), store_.paths().journal(tag)};
}

std::vector<std::string> UrlTarget::unfinished_tags(JournalNames& names) const {
  return store_.unfinished(names);
}

std::uint64_t UrlTarget::partial_bytes() const {
  return store_.partial_bytes();
}

Status UrlTarget::publish(Downloaded file, const std::string& partial) {
  // Whatever ended the answer may have ended it too early.
  if (!file.size_was_told && !source_.file.digest) {
    const std::string fault = url_fault(source_, partial).value_or("");
    if (!fault.empty()) {
      (void)posix::remove_file(partial);  // best effort: it is private
      return fail(ErrorCode::kIntegrity,
                  redact(source_.file.urls.front()) + " sent " + std::to_string(file.size) +
                      " bytes without telling how many there are, and what came " + fault,
                  "try again; if it is right all the same, give its size or sha256 in a manifest");
    }
  }
  FVP_TRY(const posix::FileInfo published, store_.publish(std::move(file.fd), partial));
  return reveal(published, file.sha256);
}

Status UrlTarget::admit(const std::string& /*partial*/) {
  return {};
}

Status UrlTarget::reveal(const posix::FileInfo& published, const std::string& sha256) {
  // The time is the file system's to set until the file is synced and closed, so it is read now.
  FVP_TRY(const auto now, store_.lookup());
  if (now && now->inode == published.inode) write_url_receipt(source_, sha256, *now);
  return {};
}

void write_url_receipt(const UrlSource& source, const std::string& sha256,
                       const posix::FileInfo& verified) {
  const UrlStore store(source.root, source.relative);
  Receipt receipt;
  if (!sha256.empty()) {  // else nobody knows where it came from
    receipt.source = redact(source.file.urls.front());
    receipt.source_key = source_key(source);
  }
  receipt.files.push_back({.path = source.relative,
                           .size = verified.size,
                           .blob = {},
                           .sha256 = sha256,
                           .mtime_ns = verified.mtime_ns,
                           .link = {}});
  // Best effort: without it the next run looks at the file itself.
  (void)write_receipt(store.paths().temporary(posix::random_tag()), store.paths().receipt(),
                      std::move(receipt));
}

}  // namespace fvprefetch
