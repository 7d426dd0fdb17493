// One URL file below the eval cache (or TORCH_HOME), or the directory that its archive is unpacked
// into: is it there, and how it becomes visible. The caller holds the destination's lock while it
// publishes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/posix.h"
#include "cache/layout.h"
#include "cache/partials.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

class UrlStore {
 public:
  UrlStore(std::string root, std::string relative);

  [[nodiscard]] const layout::UrlFile& paths() const { return paths_; }

  /// What is at the destination; nullopt: nothing. kUsage when it is a
  /// directory, FIFO or the like.
  [[nodiscard]] Result<std::optional<posix::FileInfo>> lookup() const;
  /// The same where a directory is expected; kUsage for anything else. An empty one is nothing.
  [[nodiscard]] Result<std::optional<posix::FileInfo>> lookup_directory() const;
  [[nodiscard]] std::uint64_t partial_bytes() const;
  /// Tags of our own unfinished downloads of it (paths().partial(), paths().journal()).
  [[nodiscard]] std::vector<std::string> unfinished(JournalNames& names) const;

  /// Directories of the file, of its lock and of its receipt.
  [[nodiscard]] Status prepare() const;
  [[nodiscard]] Result<posix::FileInfo> publish(posix::Fd fd, const std::string& partial) const;
  /// Publishes paths().unpacking(`tag`), whose contents are synced, and removes what it replaces as
  /// far as that can be done: the rest has a private name. On failure the new tree is removed.
  [[nodiscard]] Status publish_directory(std::string_view tag) const;

 private:
  layout::UrlFile paths_;
};

}  // namespace fvprefetch
