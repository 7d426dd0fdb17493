#include "cache/url_store.h"

#include <algorithm>
#include <utility>

#include "base/try.h"
#include "cache/partials.h"

namespace fvprefetch {

UrlStore::UrlStore(std::string root, std::string relative)
    : paths_(std::move(root), std::move(relative)) {}

Result<std::optional<posix::FileInfo>> UrlStore::lookup() const {
  FVP_TRY(auto info, posix::stat(paths_.path()));
  if (info && !info->directory && !info->regular) {
    return fail(ErrorCode::kUsage,
                "destination " + paths_.path() + " is no regular file (a FIFO, socket or device)",
                "move it away, or choose another `dest` or `name`");
  }
  if (info && info->directory) {
    return fail(ErrorCode::kUsage,
                "destination " + paths_.path() + " is a directory, where a file is expected",
                "choose another `dest` or `name`, or move the directory away");
  }
  return info;
}

Result<std::optional<posix::FileInfo>> UrlStore::lookup_directory() const {
  FVP_TRY(auto info, posix::stat(paths_.path()));
  if (!info) return info;
  if (!info->directory) {
    return fail(ErrorCode::kUsage,
                "destination " + paths_.path() +
                    " is no directory, where the contents of an archive are expected",
                "choose another `dest` or `name`, or move it away");
  }
  FVP_TRY(const auto names, posix::list(paths_.path()));
  return names.empty() ? std::nullopt : info;
}

std::uint64_t UrlStore::partial_bytes() const {
  return largest_partial(paths_.directory(), paths_.path().substr(paths_.directory().size() + 1));
}

std::vector<std::string> UrlStore::unfinished(JournalNames& names) const {
  return journal_tags(paths_.journals(), paths_.key(), names);
}

Status UrlStore::prepare() const {
  FVP_CHECK_OK(posix::make_directories_below(paths_.root(), paths_.directory()));
  for (const std::string& directory :
       {posix::parent(paths_.lock()), posix::parent(paths_.receipt()), paths_.temporaries()}) {
    FVP_CHECK_OK(posix::make_directories_below(paths_.root(), directory));
  }
  // Best effort: without it an unfinished download cannot be gone on with, that is all.
  (void)posix::make_directories(paths_.journals());
  return {};
}

Result<posix::FileInfo> UrlStore::publish(posix::Fd fd, const std::string& partial) const {
  auto published = posix::publish(std::move(fd), partial, paths_.path());
  if (!published) (void)posix::remove_file(partial);  // the error that matters is the first one
  return published;
}

Status UrlStore::publish_directory(std::string_view tag) const {
  const std::string fresh = paths_.unpacking(tag);
  const std::string aside = paths_.unpacking(posix::random_tag());
  Status published = posix::publish_directory(fresh, paths_.path(), aside);
  // Best effort, whatever lies there now: pruning knows the names.
  (void)posix::remove_tree(fresh);
  const auto there = posix::lstat(paths_.path());
  if (published || (there && *there)) {
    (void)posix::remove_tree(aside);
    return published;
  }
  // The new one did not get the name, and what had it did not get it back: it is not ours to lose,
  // and must not keep a name that pruning removes.
  const auto before = posix::lstat(aside);
  if (before && !*before) return published;
  const std::string kept = paths_.path() + ".replaced-" + std::string(tag);
  const bool moved = posix::rename_private(aside, kept).has_value();
  published.error().message += "; what was there is kept as " + (moved ? kept : aside);
  return published;
}

}  // namespace fvprefetch
