// A file on its way into a cache: where it is written, which lock guards it, how one sees that
// somebody else has brought it meanwhile, and how it becomes visible. What the fetch loop knows of
// the two stores.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cache/hf_store.h"
#include "cache/leftovers.h"
#include "cache/url_store.h"
#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"
#include "prefetch/lookup.h"
#include "prefetch/session.h"
#include "source/resolve.h"
#include "transfer/engine.h"

namespace fvprefetch {

class Target {
 public:
  virtual ~Target() = default;
  /// Absolute final path: two wishes for one path are one download.
  [[nodiscard]] virtual std::string final_path() const = 0;
  /// The lock of what is fetched together: a snapshot, a URL file.
  [[nodiscard]] virtual std::string destination_lock() const = 0;
  /// The lock of the file itself, which other programs know; "" when there is none.
  [[nodiscard]] virtual std::string blob_lock() const { return {}; }
  [[nodiscard]] virtual unsigned lock_mode() const = 0;
  /// Makes the folders of the file, unless `prepared` has them; notes them there.
  [[nodiscard]] virtual Status prepare(std::set<std::string>& prepared) = 0;
  /// The right file is there (perhaps another process brought it). Reads only.
  [[nodiscard]] virtual Result<bool> present() = 0;
  /// After present(): nothing is left that adopt() would have to write. Reads only.
  [[nodiscard]] virtual bool visible() const = 0;
  /// When present(): whatever else makes it visible. Under the lock, unless visible().
  [[nodiscard]] virtual Status adopt() = 0;
  /// After adopt(): how it is known to be right, as in the report.
  [[nodiscard]] virtual std::string adopted_by() const = 0;
  /// After adopt() or publish(): entries that pin something else than the file is, and the error of
  /// each. They do not see the file; others may.
  [[nodiscard]] virtual std::map<std::size_t, Error> refused() const { return {}; }
  /// The private names of the download that `tag` names: beside the final one, and of the journal.
  [[nodiscard]] virtual PartialPlace partial(const std::string& tag) const = 0;
  /// Our own unfinished downloads of this file, whoever left them, by `names`. To be asked under
  /// the lock.
  [[nodiscard]] std::vector<PartialPlace> unfinished(JournalNames& names) const;
  /// Bytes of unfinished downloads of this file by anybody.
  [[nodiscard]] virtual std::uint64_t partial_bytes() const = 0;
  /// Bytes that publishing takes besides those of the download, as far as they are known.
  [[nodiscard]] virtual std::uint64_t bytes_beside() const { return 0; }
  /// How many inodes publishing takes, with that of the download.
  [[nodiscard]] virtual std::uint64_t new_files() const { return 1; }
  /// How far a publish() has got that takes long, for those who wait for our lock. Any thread.
  [[nodiscard]] virtual std::uint64_t bytes_published() const { return 0; }
  /// Directories beside it that an archive is, or was, unpacked into.
  [[nodiscard]] virtual std::vector<Leftover> trees() const { return {}; }
  /// Under the lock: publishes a verified download. One that it fails with and leaves is gone on
  /// with by the next run.
  [[nodiscard]] virtual Status publish(Downloaded file, const std::string& partial) = 0;

 private:
  /// The tags of those that are there.
  [[nodiscard]] virtual std::vector<std::string> unfinished_tags(JournalNames& names) const = 0;
};

/// One that is a file, and so may be published with others (posix::publish): each of them is
/// admitted before, and revealed after.
class FileTarget : public Target {
 public:
  /// Whether the private file may have the final name; it is removed when not.
  [[nodiscard]] virtual Status admit(const std::string& partial) = 0;
  /// The final name is its: whatever else makes it visible. `published`: what has the name.
  /// `sha256`: of its bytes; empty when another digest was checked.
  [[nodiscard]] virtual Status reveal(const posix::FileInfo& published,
                                      const std::string& sha256) = 0;
};

/// A blob of a Hub cache with the pointers that lead to it.
class HubTarget : public FileTarget {
 public:
  struct Pointer {
    std::string commit;
    FileSpec file;
    std::string sha256;     ///< pinned by the manifest besides git's digest; may be empty
    std::size_t entry = 0;  ///< whose it is
    bool pinned = false;    ///< the cache's word is not enough: the blob has to have its digest
  };
  /// `session` must outlive the target.
  HubTarget(HubStore store, Pointer first, const Session& session);
  /// One more pointer to the same blob.
  void also(Pointer pointer);

  [[nodiscard]] std::string final_path() const override;
  [[nodiscard]] std::string destination_lock() const override;
  [[nodiscard]] std::string blob_lock() const override;
  [[nodiscard]] unsigned lock_mode() const override { return 0664; }
  [[nodiscard]] Status prepare(std::set<std::string>& prepared) override;
  [[nodiscard]] Result<bool> present() override;
  [[nodiscard]] bool visible() const override;
  [[nodiscard]] Status adopt() override;
  [[nodiscard]] std::string adopted_by() const override { return "tree"; }
  [[nodiscard]] std::map<std::size_t, Error> refused() const override { return refused_; }
  [[nodiscard]] PartialPlace partial(const std::string& tag) const override;
  [[nodiscard]] std::uint64_t partial_bytes() const override;
  [[nodiscard]] std::uint64_t new_files() const override {
    return pointers_.size() + (store_.has_links() ? 1 : 0);
  }
  [[nodiscard]] Status publish(Downloaded file, const std::string& partial) override;
  [[nodiscard]] Status admit(const std::string& partial) override;
  [[nodiscard]] Status reveal(const posix::FileInfo& published, const std::string& sha256) override;

 private:
  /// The pointer leads to a file of the right size that was not found wrong.
  [[nodiscard]] bool has_pointer(const Pointer& pointer) const;
  /// The blob that is there may be linked to.
  [[nodiscard]] Result<bool> trusts_blob();
  [[nodiscard]] std::vector<std::string> unfinished_tags(JournalNames& names) const override;
  /// Which entries pin other bytes than those at `path`. False: the bytes are not even those of
  /// the blob.
  [[nodiscard]] Result<bool> check_pins(const std::string& path);
  /// The last pointer of a blob that is new may have it where links cannot be had.
  [[nodiscard]] Status link_all(HubStore::Blob last);

  HubStore store_;
  std::vector<Pointer> pointers_;
  const Session& session_;
  std::map<std::size_t, Error> refused_;
  bool fresh_ = false;  ///< admit(): there was no such blob, and so no snapshot links to it
  /// The blob that was hashed last, and whether it was the right one: hashing it again under the
  /// lock would cost minutes.
  std::optional<posix::FileInfo> judged_;
  bool judged_good_ = false;
};

/// A file below the eval cache.
class UrlTarget : public FileTarget {
 public:
  /// `rejected`: a file there that is known to be the wrong one.
  UrlTarget(UrlSource source, const std::optional<posix::FileInfo>& rejected,
            const Session& session);

  [[nodiscard]] std::string final_path() const override { return source_.path(); }
  [[nodiscard]] std::string destination_lock() const override;
  [[nodiscard]] unsigned lock_mode() const override { return 0666; }
  [[nodiscard]] Status prepare(std::set<std::string>& prepared) override;
  [[nodiscard]] Result<bool> present() override;
  [[nodiscard]] bool visible() const override { return true; }
  [[nodiscard]] Status adopt() override;
  [[nodiscard]] std::string adopted_by() const override { return verdict_.verified_by; }
  [[nodiscard]] PartialPlace partial(const std::string& tag) const override;
  [[nodiscard]] std::uint64_t partial_bytes() const override;
  [[nodiscard]] Status publish(Downloaded file, const std::string& partial) override;
  [[nodiscard]] Status admit(const std::string& partial) override;
  [[nodiscard]] Status reveal(const posix::FileInfo& published, const std::string& sha256) override;

 private:
  [[nodiscard]] std::vector<std::string> unfinished_tags(JournalNames& names) const override;

  UrlSource source_;
  UrlStore store_;
  /// The file that was judged and found wrong: hashing it again at every look would cost minutes.
  std::optional<posix::FileInfo> rejected_;
  UrlVerdict verdict_;  ///< the last one
  const Session& session_;
};

/// Writes the receipt of the URL file that `verified` describes, or, without `sha256`, that it was
/// looked into; best effort (a read-only cache has none). Where another file lies there by now,
/// readers find that it does not fit.
void write_url_receipt(const UrlSource& source, const std::string& sha256,
                       const posix::FileInfo& verified);

}  // namespace fvprefetch
