// A file on its way into a cache: where it is written, which lock guards it, how one sees that
// somebody else has brought it meanwhile, and how it becomes visible. What the fetch loop knows of
// the two stores.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/hf_store.h"
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
  [[nodiscard]] virtual std::string lock_path() const = 0;
  [[nodiscard]] virtual unsigned lock_mode() const = 0;
  /// Makes the folders of the file and of its lock.
  [[nodiscard]] virtual Status prepare() = 0;
  /// The right file is there (perhaps another process brought it). Reads only.
  [[nodiscard]] virtual Result<bool> present() = 0;
  /// Under the lock, when present(): whatever else makes it visible.
  [[nodiscard]] virtual Status adopt() = 0;
  /// A new private name beside the final one.
  [[nodiscard]] virtual std::string new_partial() const = 0;
  /// Bytes of unfinished downloads of this file by anybody.
  [[nodiscard]] virtual std::uint64_t partial_bytes() const = 0;
  /// Under the lock: publishes a verified download.
  [[nodiscard]] virtual Status publish(Downloaded file, const std::string& partial) = 0;
};

/// A blob of a Hub cache with the pointers that lead to it.
class HubTarget : public Target {
 public:
  struct Pointer {
    std::string commit;
    FileSpec file;
    std::string sha256;  ///< pinned by the manifest besides git's digest; may be empty
  };
  /// `session` must outlive the target.
  HubTarget(HubStore store, Pointer first, const Session& session);
  /// One more pointer to the same blob.
  void also(Pointer pointer);

  [[nodiscard]] std::string final_path() const override;
  [[nodiscard]] std::string lock_path() const override;
  [[nodiscard]] unsigned lock_mode() const override { return 0664; }
  [[nodiscard]] Status prepare() override;
  [[nodiscard]] Result<bool> present() override;
  [[nodiscard]] Status adopt() override;
  [[nodiscard]] std::string new_partial() const override;
  [[nodiscard]] std::uint64_t partial_bytes() const override;
  [[nodiscard]] Status publish(Downloaded file, const std::string& partial) override;

 private:
  /// The pointer leads to a file of the right size that was not found wrong.
  [[nodiscard]] bool has_pointer(const Pointer& pointer) const;
  /// The blob that is there may be linked to.
  [[nodiscard]] Result<bool> trusts_blob();
  /// The bytes at `path` are those that the manifest pins.
  [[nodiscard]] Status check_pins(const std::string& path) const;
  [[nodiscard]] Status link_all();
  [[nodiscard]] StopCheck stop_check() const;

  HubStore store_;
  std::vector<Pointer> pointers_;
  const Session& session_;
  /// The blob that was hashed last, and whether it was the right one: hashing it again under the
  /// lock would cost minutes.
  std::optional<posix::FileInfo> judged_;
  bool judged_good_ = false;
};

/// A file below the eval cache.
class UrlTarget : public Target {
 public:
  /// `rejected`: a file there that is known to be the wrong one.
  UrlTarget(UrlSource source, bool refresh, const std::optional<posix::FileInfo>& rejected,
            StopCheck must_stop);

  [[nodiscard]] std::string final_path() const override { return source_.path(); }
  [[nodiscard]] std::string lock_path() const override;
  [[nodiscard]] unsigned lock_mode() const override { return 0666; }
  [[nodiscard]] Status prepare() override;
  [[nodiscard]] Result<bool> present() override;
  [[nodiscard]] Status adopt() override { return {}; }
  [[nodiscard]] std::string new_partial() const override;
  [[nodiscard]] std::uint64_t partial_bytes() const override;
  [[nodiscard]] Status publish(Downloaded file, const std::string& partial) override;

 private:
  UrlSource source_;
  UrlStore store_;
  bool refresh_;
  /// The file that was judged and found wrong: hashing it again at every look would cost minutes.
  std::optional<posix::FileInfo> rejected_;
  StopCheck must_stop_;
};

/// Writes the receipt of the URL file that `verified` describes; best effort (a read-only cache has
/// none). Where another file lies there by now, readers find that it does not fit.
void write_url_receipt(const UrlSource& source, const std::string& sha256,
                       const posix::FileInfo& verified);

}  // namespace fvprefetch
