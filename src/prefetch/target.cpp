#include "prefetch/target.h"

#include "base/digest.h"
#include "base/try.h"
#include "cache/receipt.h"

namespace fvprefetch {

HubTarget::HubTarget(HubStore store, Pointer first) : store_(std::move(store)) {
  pointers_.push_back(std::move(first));
}

void HubTarget::also(Pointer pointer) {
  pointers_.push_back(std::move(pointer));
}

std::string HubTarget::final_path() const {
  return store_.paths().blob(pointers_.front().file.blob);
}

std::string HubTarget::lock_path() const {
  return store_.paths().lock(pointers_.front().file.blob);
}

Status HubTarget::prepare() {
  for (const Pointer& pointer : pointers_) FVP_CHECK_OK(store_.prepare(pointer.commit));
  return {};
}

Result<bool> HubTarget::present() {
  if (store_.has_blob(pointers_.front().file)) return true;
  // A cache without links has the file itself at the pointer, and no blob.
  for (const Pointer& pointer : pointers_) {
    if (!store_.has_file(pointer.commit, pointer.file)) return false;
  }
  return true;
}

Status HubTarget::adopt() {
  for (const Pointer& pointer : pointers_) {
    if (!store_.has_file(pointer.commit, pointer.file)) {
      FVP_CHECK_OK(store_.publish_pointer(pointer.commit, pointer.file));
    }
  }
  return {};
}

std::string HubTarget::new_partial() const {
  return store_.paths().partial(pointers_.front().file.blob, posix::random_tag());
}

std::uint64_t HubTarget::partial_bytes() const {
  return store_.partial_bytes(pointers_.front().file.blob);
}

Status HubTarget::publish(Downloaded file, const std::string& partial) {
  for (const Pointer& pointer : pointers_) {
    if (pointer.sha256.empty()) continue;
    // The engine checked the digest that the Hub names the blob by; this one is the manifest's.
    if (file.sha256.empty()) {
      FVP_TRY(file.sha256, hash_file(partial, Digest::Kind::kSha256));
    }
    if (file.sha256 != pointer.sha256) {
      (void)posix::remove_file(partial);  // best effort: it is private, nobody will take it
      return fail(ErrorCode::kIntegrity, pointer.file.path + " has sha256 " + file.sha256 +
                                             ", the manifest expects " + pointer.sha256);
    }
  }
  FVP_CHECK_OK(store_.publish_blob(std::move(file.fd), partial, pointers_.front().file.blob));
  return adopt();
}

UrlTarget::UrlTarget(UrlSource source, bool refresh)
    : source_(std::move(source)), store_(source_.root, source_.relative), refresh_(refresh) {}

std::string UrlTarget::lock_path() const {
  return store_.paths().lock();
}

Status UrlTarget::prepare() {
  return store_.prepare();
}

Result<bool> UrlTarget::present() {
  FVP_TRY(const auto info, store_.lookup());
  if (!info || rejected_ == std::pair{info->inode, info->mtime_ns}) return false;
  FVP_TRY(const UrlVerdict verdict, judge_url_file(source_, refresh_, Hashing::kAllowed));
  if (!verdict.good) rejected_ = {info->inode, info->mtime_ns};
  return verdict.good;
}

std::string UrlTarget::new_partial() const {
  return store_.paths().partial(posix::random_tag());
}

std::uint64_t UrlTarget::partial_bytes() const {
  return store_.partial_bytes();
}

Status UrlTarget::publish(Downloaded file, const std::string& partial) {
  const std::string sha256 = file.sha256;
  FVP_CHECK_OK(store_.publish(std::move(file.fd), partial));
  write_url_receipt(source_, sha256);
  return {};
}

void write_url_receipt(const UrlSource& source, const std::string& sha256) {
  const UrlStore store(source.root, source.relative);
  const auto info = store.lookup();
  if (!info || !*info) return;
  Receipt receipt;
  receipt.source = redact(source.file.urls.front());
  receipt.source_key = source_key(source);
  receipt.files.push_back({.path = source.relative,
                           .size = (*info)->size,
                           .blob = {},
                           .sha256 = sha256,
                           .mtime_ns = (*info)->mtime_ns});
  // Best effort: without it the next run looks at the file itself.
  (void)write_receipt(store.paths().temporary(posix::random_tag()), store.paths().receipt(),
                      std::move(receipt));
}

}  // namespace fvprefetch
