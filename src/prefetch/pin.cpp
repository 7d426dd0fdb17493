#include "prefetch/pin.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/try.h"
#include "cache/receipt.h"
#include "cache/url_store.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/archive.h"
#include "prefetch/ask_size.h"
#include "prefetch/glance.h"
#include "prefetch/lookup.h"
#include "prefetch/run.h"
#include "source/resolve.h"
#include "source/wording.h"

namespace fvprefetch {

namespace {

constexpr std::string_view kSuffix = ".json";
constexpr std::string_view kLockSuffix = ".lock.json";
constexpr std::size_t kSha256Digits = 64;

/// Names with reasons, for one message about several entries: "`a` (no sha256), `b` (no files)".
class NamedEntries {
 public:
  void add(const Entry& entry, const std::string& reason) {
    const std::string named = printable(entry.name.empty() ? redact(entry.source) : entry.name);
    list_ += (list_.empty() ? "`" : ", `") + named + "` (" + reason + ")";
  }
  [[nodiscard]] bool empty() const { return list_.empty(); }
  [[nodiscard]] const std::string& text() const { return list_; }

 private:
  std::string list_;
};

/// Why the manifest does not say which bytes the entry is, or something else stands in for them; ""
/// when all is well.
std::string looseness(const Entry& entry, const Source& source) {
  if (const auto* path = std::get_if<PathSource>(&source)) {
    const bool is_hub = !entry.files.empty() || !entry.revision.empty() ||
                        !entry.filename.empty() || !entry.repo_type.empty();
    return is_hub ? "the path `" + printable(path->path) + "` stands in for the repository" : "";
  }
  if (std::holds_alternative<UrlSource>(source)) return entry.sha256.empty() ? "no `sha256`" : "";
  return entry.files.empty() ? "no `files`" : "";
}

std::string hint_for_loose(const std::string& origin) {
  const std::string locked = lock_path(origin);
  if (posix::exists(locked)) return "use `" + locked + "`, which lies beside it";
  return "run `fvprefetch lock MANIFEST`, and use the file that it writes";
}

/// One lock(): the entries in manifest order, all of them looked at before anything is refused.
class Locking {
 public:
  Locking(const Manifest& manifest, Session& session) : locked_(manifest), session_(session) {}

  Result<Manifest> run() {
    FVP_TRY(const std::vector<Source> sources, resolve_all());
    for (std::size_t i = 0; i < sources.size(); ++i) {
      if (const std::optional<Error> stop = session_.must_stop()) return fail(*stop);
      Entry& entry = locked_.entries[i];
      Status pinned;
      if (const auto* url = std::get_if<UrlSource>(&sources[i])) {
        pinned = pin_url(entry, *url);
      } else if (const auto* hub = std::get_if<HubSource>(&sources[i])) {
        pinned = pin_hub(entry, *hub);
      }
      if (!pinned) return fail(with_context(pinned.error(), "entry `" + entry.name + "`"));
    }
    if (!absent_.empty()) {
      return fail(ErrorCode::kOfflineMissing, "cannot pin " + absent_.text(),
                  "run `fvprefetch MANIFEST` first (with `--refresh` where a wrong file lies), or "
                  "add sha256");
    }
    if (!unlisted_.empty()) {
      return fail(ErrorCode::kOfflineMissing, "offline, and cannot pin " + unlisted_.text(),
                  "run it once without --offline");
    }
    return std::move(locked_);
  }

 private:
  Result<std::vector<Source>> resolve_all() {
    std::vector<Source> sources;
    for (const Entry& entry : locked_.entries) {
      Result<Source> source = resolve(entry, session_.env(), session_.eval_cache());
      if (!source) return fail(with_context(source.error(), "entry `" + entry.name + "`"));
      sources.push_back(*std::move(source));
    }
    FVP_CHECK_OK(check_destinations(locked_.entries, sources));
    return sources;
  }

  /// To the commit and the files that a fetch would take now.
  Status pin_hub(Entry& entry, const HubSource& source) {
    FVP_TRY(Survey survey, look(source, session_, Hashing::kForbidden));
    if (survey.unlisted()) {
      if (session_.offline()) {
        unlisted_.add(entry, survey.need == Survey::Need::kTree
                                 ? "the cache does not know the files of " + survey.commit
                                 : "the cache does not know the revision " + source.revision);
        return {};
      }
      FVP_TRY(survey, ask_hub(source, survey, session_, Hashing::kForbidden));
    }
    if (survey.verified_by == "unverified") {  // the Hub did not answer: its warning says why
      return fail(ErrorCode::kNetwork, "cannot pin it: " + survey.warnings.back());
    }
    if (!hub::is_commit(source.revision)) entry.locked_from = source.revision;
    entry.revision = survey.commit;
    entry.files.clear();
    for (const FileSpec& file : survey.files) {
      FVP_TRY(PinnedFile pinned, pinned_file(file));
      entry.files.push_back(std::move(pinned));
    }
    std::sort(entry.files.begin(), entry.files.end(),
              [](const PinnedFile& a, const PinnedFile& b) { return a.path < b.path; });
    if (source.filename.empty()) return {};
    const PinnedFile& only = entry.files.front();
    entry.size = only.size;
    if (!only.sha256.empty()) entry.sha256 = only.sha256;
    return {};
  }

  static Result<PinnedFile> pinned_file(const FileSpec& file) {
    if (!file.digest || !file.size) {
      return fail(ErrorCode::kIntegrity,
                  file.path + " cannot be pinned: what the cache keeps of it has no digest",
                  "remove the repository's folders trees/ and .fvprefetch/receipts/ in the cache");
    }
    PinnedFile pinned;
    pinned.path = file.path;
    pinned.size = *file.size;
    (file.digest->kind == Digest::Kind::kSha256 ? pinned.sha256 : pinned.git_sha1) =
        file.digest->hex;
    return pinned;
  }

  /// What the manifest has stays; what it lacks is told by the cached file. A server's word for it
  /// would pin what was never seen.
  Status pin_url(Entry& entry, const UrlSource& source) {
    if (!entry.sha256.empty() && entry.size) return {};
    FVP_TRY(const Cached cached, cached_file(source));
    const std::string told = told_sha256(source);
    if (!told.empty()) {
      entry.sha256 = told;
    } else if (cached.sha256.empty()) {
      absent_.add(entry, cached.why);
      return {};
    } else if (entry.size && *entry.size != cached.size) {
      absent_.add(entry, "the file in the cache has " + std::to_string(cached.size) +
                             " bytes, the manifest expects " + std::to_string(*entry.size));
      return {};
    } else if (source.file.digest && !agrees(*source.file.digest, cached.sha256)) {
      return fail(ErrorCode::kIntegrity,
                  source.path() + " has sha256 " + cached.sha256 + ", its name says " +
                      source.file.digest->hex,
                  "remove the file; it is not what its name says");
    } else {
      entry.sha256 = cached.sha256;
    }
    if (!entry.size && cached.sha256 == entry.sha256) entry.size = cached.size;
    return {};
  }

  /// The whole digest, from the manifest or from an address that carries it.
  static std::string told_sha256(const UrlSource& source) {
    const auto& digest = source.file.digest;
    return digest && digest->hex.size() == kSha256Digits ? digest->hex : std::string();
  }

  struct Cached {
    std::string sha256;  ///< empty: there is no file to go by
    std::uint64_t size = 0;
    std::string why;  ///< when there is none
  };
  Result<Cached> cached_file(const UrlSource& source) {
    const UrlStore store(source.root, source.relative);
    if (source.is_archive()) return cached_archive(source, store);
    FVP_TRY(const std::optional<posix::FileInfo> info, store.lookup());
    if (!info) return Cached{{}, 0, "not in the cache, and no `sha256`"};
    if (info->size == 0) return Cached{{}, 0, "the file in the cache is empty"};
    const std::optional<Receipt> receipt = url_receipt(store, *info);
    if (receipt && !receipt->files.front().sha256.empty()) {
      if (receipt->source_key != source_key(source)) {
        return Cached{{}, 0, "the file in the cache came from " + other_source(*receipt, source)};
      }
      return Cached{receipt->files.front().sha256, info->size, {}};
    }
    // Nothing vouches for it, and a lock would make a truth of what somebody left there.
    if (!source.file.digest) {
      if (std::string why = doubt_of(source, *info); !why.empty()) return Cached{{}, 0, why};
    }
    FVP_TRY(const HashedFile hashed,
            hash_file(store.paths().path(), Digest::Kind::kSha256, session_.stop_check()));
    return Cached{hashed.hex, hashed.info.size, {}};
  }

  /// Why a file without a digest is not taken for what its source has; "" for no reason.
  std::string doubt_of(const UrlSource& source, const posix::FileInfo& info) {
    const std::string fault = glance(source.path(), asked_of(source)).fault;
    if (!fault.empty()) return "the file in the cache " + fault;
    const auto size = size_at(source);
    if (!size || *size == info.size) return {};
    return "the file in the cache has " + std::to_string(info.size) + " bytes, the server has " +
           std::to_string(*size);
  }

  /// As its server tells it, where it does. One server that is not reached is enough to ask none.
  std::optional<std::uint64_t> size_at(const UrlSource& source) {
    if (session_.offline() || unreachable_) return std::nullopt;
    const auto size = ask_size(session_, source.file.urls.front());
    if (!size && size.error().reason == kUnreachable) unreachable_ = true;
    return size ? *size : std::nullopt;
  }

  /// The archive itself is gone; its receipt says what it was.
  static Result<Cached> cached_archive(const UrlSource& source, const UrlStore& store) {
    FVP_TRY(const std::optional<posix::FileInfo> info, store.lookup_directory());
    if (!info) return Cached{{}, 0, "not in the cache, and no `sha256`"};
    const std::optional<Receipt> receipt = archive_receipt(store);
    if (!receipt || receipt->files.empty()) {
      return Cached{{}, 0, "nothing tells which archive it was unpacked from"};
    }
    if (receipt->source_key != source_key(source)) {
      return Cached{{}, 0, "the contents in the cache came from " + other_source(*receipt, source)};
    }
    return Cached{receipt->archive->sha256, receipt->archive->size, {}};
  }

  Manifest locked_;
  Session& session_;
  bool unreachable_ = false;  ///< a server was not reached: none is asked for a size any more
  NamedEntries absent_;       ///< URLs without a digest
  NamedEntries unlisted_;     ///< offline, repositories that nothing in the cache lists
};

}  // namespace

std::string lock_path(const std::string& manifest_path) {
  std::string path = manifest_path;
  if (path.ends_with(kSuffix)) path.resize(path.size() - kSuffix.size());
  return path.append(kLockSuffix);
}

Status check_frozen(const Manifest& manifest, const Session& session) {
  if (!session.options().frozen) return {};
  if (session.options().refresh) {
    return fail(ErrorCode::kUsage, "--frozen contradicts --refresh",
                "a frozen run takes what the manifest pins; leave out one of the two");
  }
  NamedEntries loose;
  for (const Entry& entry : manifest.entries) {
    const Result<Source> source = resolve(entry, session.env(), session.eval_cache());
    if (!source && source.error().code == ErrorCode::kUsage) {
      return fail(with_context(source.error(), "entry `" + entry.name + "`"));
    }
    const std::string reason = source ? looseness(entry, *source) : source.error().message;
    if (!reason.empty()) loose.add(entry, reason);
  }
  if (loose.empty()) return {};
  return fail(ErrorCode::kUsage, "--frozen, and not pinned: " + loose.text(),
              hint_for_loose(manifest.origin));
}

Result<Manifest> lock_with(const Manifest& manifest, const Options& options, const Seams& seams) {
  return guard([&]() -> Result<Manifest> {
    Session session(options, seams);
    return Locking(manifest, session).run();
  });
}

Result<Manifest> lock(const Manifest& manifest, const Options& options) {
  return lock_with(manifest, options, {});
}

}  // namespace fvprefetch
