// An entry that is unpacked: a URL whose file is an archive, and whose place is a directory. Is the
// directory what the archive had, and how does a new one get there.
//
// Complete is what the receipt says: which archive (sha256, size, how much of its names was left
// out), and of each file its size. A directory without a receipt was put there by somebody else
// (torch.hub itself does so) and is taken as it is, unless the manifest says by sha256 or size what
// it must come from: nothing tells that of it, so that it is fetched anew, and offline taken with
// a warning. It is not ours to remove: it is kept beside the new one, "<name>.replaced-<8 hex>".
//
// --refresh fetches again what the manifest does not pin: the address may be that of a branch.
//
// Order of publishing, so that a receipt never speaks for another tree: a first tree's receipt
// comes before the tree (without one it says nothing); where a tree is replaced, a receipt without
// files, which fits no tree, takes the place of the old receipt first, and the new one comes last.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cache/leftovers.h"
#include "cache/receipt.h"
#include "cache/url_store.h"
#include "fvprefetch/error.h"
#include "prefetch/lookup.h"
#include "prefetch/session.h"
#include "prefetch/target.h"
#include "source/resolve.h"

namespace fvprefetch {

/// The receipt of the directory of `store`, whichever archive it is of; nullopt: it has none. One
/// without files: the directory is ours, and was about to be replaced.
[[nodiscard]] std::optional<Receipt> archive_receipt(const UrlStore& store);

/// Why `archive` is not the one that the entry asks for, as the end of "was unpacked from"; "": it
/// is, as far as the manifest tells.
[[nodiscard]] std::string archive_mismatch(const UrlSource& source, const ReceiptArchive& archive);

/// What look() says of an entry that is unpacked: its files once it is there, else the archive.
[[nodiscard]] Result<Survey> look_archive(const UrlSource& source, const Session& session,
                                          bool refresh);

/// A directory below the eval cache that an archive is unpacked into.
class ArchiveTarget : public Target {
 public:
  /// `rejected`: a directory there that is known to be the wrong one. `session` must outlive it.
  ArchiveTarget(UrlSource source, const std::optional<posix::FileInfo>& rejected,
                const Session& session);

  [[nodiscard]] std::string final_path() const override { return source_.path(); }
  [[nodiscard]] std::string destination_lock() const override { return store_.paths().lock(); }
  [[nodiscard]] unsigned lock_mode() const override { return 0666; }
  [[nodiscard]] Status prepare(std::set<std::string>& prepared) override;
  [[nodiscard]] Result<bool> present() override;
  [[nodiscard]] bool visible() const override { return true; }
  [[nodiscard]] Status adopt() override { return {}; }
  [[nodiscard]] std::string adopted_by() const override { return verified_by_; }
  [[nodiscard]] PartialPlace partial(const std::string& tag) const override;
  [[nodiscard]] std::uint64_t partial_bytes() const override { return store_.partial_bytes(); }
  [[nodiscard]] std::uint64_t bytes_beside() const override;
  [[nodiscard]] std::uint64_t bytes_published() const override { return unpacked_; }
  [[nodiscard]] std::vector<Leftover> trees() const override;
  [[nodiscard]] Status publish(Downloaded file, const std::string& partial) override;
  /// Publishes what was unpacked elsewhere: the private directory of `tag`, synced, which has just
  /// these files and links, each with its digest or text.
  [[nodiscard]] Status publish_tree(const std::string& tag, const ReceiptArchive& archive,
                                    std::vector<ReceiptFile> files);

 private:
  [[nodiscard]] std::vector<std::string> unfinished_tags(JournalNames& names) const override;
  /// The tree that is there came from an archive of the same bytes, and is whole.
  [[nodiscard]] Result<bool> has_same(const ReceiptArchive& archive);
  [[nodiscard]] Status replace(const std::string& tag, const Receipt& receipt);
  [[nodiscard]] Receipt new_receipt(const ReceiptArchive& archive) const;
  [[nodiscard]] Status write(Receipt receipt) const;

  UrlSource source_;
  UrlStore store_;
  std::optional<posix::FileInfo> rejected_;
  std::string verified_by_;
  std::atomic<std::uint64_t> unpacked_ = 0;
  const Session& session_;
};

}  // namespace fvprefetch
