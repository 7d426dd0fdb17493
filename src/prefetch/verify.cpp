// verify: what ought to be there, read again from the first byte to the last; and, when asked, the
// repair of what is not as it ought to be.
//
// Phases, over all entries each: what every file has to be (no file is opened for that but
// receipts, refs and trees), then the reading, then the verdict. Without repair nothing here can
// reach a transport or write to a cache.
#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "base/digest.h"
#include "base/try.h"
#include "cache/hf_store.h"
#include "cache/receipt.h"
#include "cache/url_store.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/archive.h"
#include "prefetch/glance.h"
#include "prefetch/hash_pool.h"
#include "prefetch/lookup.h"
#include "prefetch/pin.h"
#include "prefetch/rejected.h"
#include "prefetch/run.h"
#include "prefetch/session.h"
#include "source/resolve.h"

namespace fvprefetch {

namespace {

constexpr std::string_view kNothingTells = "nothing to check against: no sha256 is known of it";

/// One file to be looked at, and all that is known of it beforehand.
struct Check {
  std::size_t entry = 0;
  std::size_t file = 0;  ///< index into the entry's files
  std::string location;
  std::string blob;                  ///< Hub: where the cache keeps the bytes
  Asked asked;                       ///< looked into where there is no digest
  std::vector<Digest> digests;       ///< each has to agree
  std::vector<std::uint64_t> sizes;  ///< each has to be the file's
};

class Verifier {
 public:
  Verifier(const Manifest& manifest, const Options& options, const Seams& seams)
      : manifest_(manifest),
        options_(without_refresh(options)),
        seams_(seams),
        session_(options_, seams) {}

  Verification run() {
    if (const Status ready = identify(); !ready) {
      Verification failed;
      failed.error = ready.error();
      return failed;
    }
    for (std::size_t i = 0; i < found_.entries.size(); ++i) {
      if (!sources_[i]) continue;
      if (const Status listed = expect(i); !listed) found_.entries[i].error = listed.error();
    }
    read_all();
    for (VerifiedEntry& entry : found_.entries) judge(entry);
    found_.error = stopped_ ? stopped_ : verdict(found_.entries);
    if (options_.repair && !stopped_) repair();
    for (const VerifiedEntry& entry : found_.entries) {
      session_.emit(EntryDone{entry.name, entry.repaired ? "repaired" : entry.state, entry.path,
                              entry.error});
    }
    found_.seconds = std::chrono::duration<double>(elapsed()).count();
    return std::move(found_);
  }

 private:
  /// What is there is looked at, whatever the Hub would say by now.
  static Options without_refresh(Options options) {
    options.refresh = false;
    return options;
  }

  // --- phase 1: what ought to be there? ---------------------------------------------------------

  /// As in a fetch: a mistake that makes the manifest unusable is an error of the whole.
  Status identify() {
    FVP_CHECK_OK(check_frozen(manifest_, session_));
    std::vector<Entry> entries;
    std::vector<Source> sources;
    for (const Entry& entry : manifest_.entries) {
      FVP_CHECK_OK(validate(entry));
      VerifiedEntry& verified = found_.entries.emplace_back();
      verified.name = entry.name;
      verified.optional = entry.optional;
      verified.source = without_secrets(entry.source);
      Result<Source> source = resolve(entry, session_.env(), session_.eval_cache());
      if (!source) {
        if (source.error().code == ErrorCode::kUsage) {
          return fail(with_context(source.error(), "entry `" + entry.name + "`"));
        }
        verified.error = source.error();
        sources_.emplace_back();
        continue;
      }
      verified.kind = kind_of(*source);
      entries.push_back(entry);
      sources.push_back(*source);
      sources_.emplace_back(*std::move(source));
    }
    return check_destinations(entries, sources);
  }

  /// Lists the files of the entry, each with what it has to be.
  Status expect(std::size_t index) {
    const Source& source = *sources_[index];
    if (const auto* path = std::get_if<PathSource>(&source)) return expect_path(index, *path);
    if (const auto* url = std::get_if<UrlSource>(&source)) return expect_url(index, *url);
    return expect_hub(index, std::get<HubSource>(source));
  }

  Status expect_path(std::size_t index, const PathSource& source) {
    found_.entries[index].path = source.path;
    found_.entries[index].listed_by = "manifest";
    Check check;
    check.location = source.path;
    check.asked = asked_of(source);
    if (!source.sha256.empty()) {
      check.digests.push_back({Digest::Kind::kSha256, source.sha256});
    }
    if (source.size) check.sizes.push_back(*source.size);
    add(index, source.path, std::move(check));
    return {};
  }

  /// The files as they were unpacked, by the receipt: no digest of the manifest is theirs.
  Status expect_archive(std::size_t index, const UrlSource& source) {
    VerifiedEntry& entry = found_.entries[index];
    const UrlStore store(source.root, source.relative);
    FVP_TRY(const auto there, store.lookup_directory());
    entry.path = source.path();
    entry.listed_by = "manifest";
    const std::optional<Receipt> receipt = there ? archive_receipt(store) : std::nullopt;
    if (!there) {
      settle(index, source.file.path, entry.path, FileState::kMissing, "");
    } else if (!receipt) {
      settle(index, source.file.path, entry.path, FileState::kUnverifiable,
             "nothing to check against: no receipt tells what was unpacked");
    } else if (receipt->files.empty()) {
      settle(index, source.file.path, entry.path, FileState::kCorrupt,
             "somebody began to replace it and did not end");
    } else if (const std::string other = archive_mismatch(source, *receipt->archive);
               !other.empty()) {
      settle(index, source.file.path, entry.path, FileState::kCorrupt,
             "it was unpacked from " + other);
    } else {
      entry.listed_by = "receipt";
      for (const ReceiptFile& file : receipt->files) expect_unpacked(index, entry.path, file);
    }
    return {};
  }

  void expect_unpacked(std::size_t index, const std::string& directory, const ReceiptFile& file) {
    const std::string location = directory + "/" + file.path;
    if (file.link.empty()) {
      Check check;
      check.location = location;
      check.digests.push_back({Digest::Kind::kSha256, file.sha256});
      check.sizes.push_back(file.size);
      add(index, file.path, std::move(check));
      return;
    }
    const std::optional<std::string> target = posix::read_link(location);
    if (target == file.link) {
      settle(index, file.path, location, FileState::kOk, "");
    } else {
      settle(index, file.path, location,
             posix::exists(location) ? FileState::kCorrupt : FileState::kMissing,
             "it is no link to " + file.link);
    }
  }

  /// A file of which all is known without reading it.
  void settle(std::size_t index, const std::string& path, const std::string& location,
              FileState state, std::string note) {
    VerifiedFile& file = found_.entries[index].files.emplace_back();
    file.path = path;
    file.location = location;
    file.state = state;
    file.note = std::move(note);
  }

  Status expect_url(std::size_t index, const UrlSource& source) {
    if (source.is_archive()) return expect_archive(index, source);
    VerifiedEntry& entry = found_.entries[index];
    const UrlStore store(source.root, source.relative);
    FVP_TRY(const auto there, store.lookup());
    entry.path = source.path();
    entry.listed_by = "manifest";
    Check check;
    check.location = source.path();
    check.asked = asked_of(source);
    if (source.file.size) check.sizes.push_back(*source.file.size);
    std::string note;
    if (source.file.digest) {
      check.digests.push_back(*source.file.digest);
    } else if (const auto receipt = read_receipt(store.paths().receipt());
               there && receipt && receipt->files.size() == 1) {
      const ReceiptFile& told = receipt->files.front();
      const bool fits = told.size == there->size && told.mtime_ns == there->mtime_ns;
      if (receipt->source_key != source_key(source) && !fits) {
        // Of the file that lay there before this one, and of another address: nothing of ours.
        note = "nothing to check against: its receipt is of another source";
      } else if (!told.sha256.empty()) {
        check.digests.push_back({Digest::Kind::kSha256, told.sha256});
        check.sizes.push_back(told.size);
      }
    }
    add(index, source.file.path, std::move(check));
    entry.files.back().note = std::move(note);
    return {};
  }

  Status expect_hub(std::size_t index, const HubSource& source) {
    VerifiedEntry& entry = found_.entries[index];
    FVP_TRY(Survey known, list_hub(source, session_));
    entry.path = known.path;
    entry.commit = known.commit;
    entry.listed_by = known.verified_by;
    const bool listed = known.need == Survey::Need::kNothing;
    if (!listed) {
      if (known.need == Survey::Need::kTree) {
        Result<std::vector<FileSpec>> there = files_in_snapshot(source, session_, known.commit);
        if (!there && there.error().code != ErrorCode::kNotFound) return fail(there.error());
        if (there) known.files = *std::move(there);
      }
      if (known.files.empty()) {
        entry.path.clear();
        return fail(ErrorCode::kOfflineMissing,
                    source.repo.id + (source.filename.empty() ? "" : "/" + source.filename) +
                        " at revision " + source.revision);
      }
      entry.listed_by = "snapshot";
    }
    const HubStore store = session_.store(source.repo);
    for (const FileSpec& file : known.files) {
      if (listed) FVP_CHECK_OK(HubStore::accepts(file));
      Check check;
      check.location = store.paths().pointer(known.commit, file.path);
      check.asked = asked_as(file.path);
      if (!file.blob.empty()) check.blob = store.paths().blob(file.blob);
      // What a snapshot has is no word about what it ought to have.
      if (listed && file.size) check.sizes.push_back(*file.size);
      if (file.digest) check.digests.push_back(*file.digest);
      if (source.size) check.sizes.push_back(*source.size);
      if (!source.sha256.empty()) {
        check.digests.push_back({Digest::Kind::kSha256, source.sha256});
      }
      add(index, file.path, std::move(check));
    }
    return {};
  }

  void add(std::size_t index, const std::string& path, Check check) {
    VerifiedEntry& entry = found_.entries[index];
    VerifiedFile file;
    file.path = path;
    file.location = check.location;
    if (!check.digests.empty()) file.expected = check.digests.front();
    if (!check.sizes.empty()) file.size = check.sizes.front();
    check.entry = index;
    check.file = entry.files.size();
    entry.files.push_back(std::move(file));
    checks_.push_back(std::move(check));
  }

  // --- phase 2: read it
  // ---------------------------------------------------------------------------

  /// A file that was replaced while it was read is read once more, as what it is now.
  void read_all() {
    std::vector<const Check*> open;
    for (const Check& check : checks_) open.push_back(&check);
    constexpr int kRounds = 3;
    for (int round = 0; round < kRounds && !open.empty(); ++round) {
      open = read_round(open);
      if (stopped_) return;
    }
    for (const Check* check : open) {
      give_up(*check, fail(ErrorCode::kInternal, check->location + " is replaced again and again",
                           "find out which program does that")
                          .value());
    }
  }

  /// Returns the checks that want another round.
  std::vector<const Check*> read_round(const std::vector<const Check*>& open) {
    struct Reading {
      const Check* check;
      std::vector<std::size_t> jobs;  ///< one for each of the check's digests
    };
    std::vector<Reading> readings;
    std::vector<HashJob> jobs;
    // Names that lead to one file are one job.
    std::map<std::tuple<std::uint64_t, std::uint64_t, Digest::Kind>, std::size_t> known;
    for (const Check* check : open) {
      const auto info = look_at(*check);
      if (!info) continue;
      Reading reading{check, {}};
      for (const Digest& digest : check->digests) {
        const auto [job, is_new] =
            known.emplace(std::tuple(info->device, info->inode, digest.kind), jobs.size());
        if (is_new) jobs.push_back({check->location, digest.kind, info->size});
        reading.jobs.push_back(job->second);
      }
      if (reading.jobs.empty()) {
        const Status readable = posix::check_readable(check->location);
        readable ? decide(*check, *info, {}) : give_up(*check, readable.error());
      } else {
        readings.push_back(std::move(reading));
      }
    }

    const HashResults results = hash(jobs);
    std::vector<const Check*> again;
    for (const Reading& reading : readings) {
      std::vector<HashedFile> hashed;
      std::optional<Error> error;
      for (const std::size_t job : reading.jobs) {
        const Result<HashedFile>& result = results.files[job];
        if (result) {
          hashed.push_back(*result);
        } else if (!error) {
          error = result.error();
        }
      }
      if (error && results.stopped) continue;  // stays unchecked
      if (error && error->code != ErrorCode::kNotFound) {
        give_up(*reading.check, *error);
        continue;
      }
      const auto now = posix::stat(reading.check->location);
      const bool is_that_one =
          !error && now && *now &&
          std::all_of(hashed.begin(), hashed.end(),
                      [&](const HashedFile& file) { return same_file(file.info, **now); });
      if (is_that_one) {
        decide(*reading.check, **now, hashed);
      } else {
        again.push_back(reading.check);
      }
    }
    return again;
  }

  /// What lies there, when it is a file; else the check is decided.
  std::optional<posix::FileInfo> look_at(const Check& check) {
    VerifiedFile& file = file_of(check);
    const auto info = posix::stat(check.location);
    if (!info) {
      give_up(check, info.error());
      return std::nullopt;
    }
    if (!*info) {
      file.state = FileState::kMissing;
      file.note = posix::is_link(check.location) ? "its link leads to no file" : "";
      return std::nullopt;
    }
    if ((*info)->regular) return *info;
    const bool wants_file = !check.digests.empty() || !check.sizes.empty() || !check.blob.empty();
    file.state = wants_file ? FileState::kCorrupt : FileState::kUnverifiable;
    file.note = wants_file ? "it is no regular file" : "a folder of your own, not looked into";
    return std::nullopt;
  }

  HashResults hash(const std::vector<HashJob>& jobs) {
    if (jobs.empty()) return {};
    FetchPlanned planned;
    planned.work = Work::kVerifying;
    planned.files = jobs.size();
    for (const HashJob& job : jobs) planned.bytes += job.size;
    session_.emit(planned);
    HashResults results =
        hash_all(jobs, session_, [&](std::uint64_t bytes, std::size_t files_done) {
          BytesArrived arrived;
          arrived.bytes_done = std::min(bytes, planned.bytes);  // one may be read again
          arrived.bytes_total = planned.bytes;
          arrived.files_done = files_done;
          arrived.files_total = planned.files;
          session_.emit(arrived);
        });
    found_.files_read += static_cast<std::uint64_t>(
        std::count_if(results.files.begin(), results.files.end(),
                      [](const Result<HashedFile>& file) { return file.has_value(); }));
    found_.bytes_read += results.bytes_read;
    if (results.stopped) stopped_ = with_context(*results.stopped, "while verifying");
    return results;
  }

  /// `hashed`: one for each of the check's digests, of the file that `info` tells of.
  void decide(const Check& check, const posix::FileInfo& info,
              const std::vector<HashedFile>& hashed) {
    VerifiedFile& file = file_of(check);
    file.actual_size = info.size;
    file.state = hashed.empty() ? FileState::kUnverifiable : FileState::kOk;
    if (!hashed.empty()) file.actual = hashed.front().hex;
    for (const std::uint64_t size : check.sizes) {
      if (size == info.size || file.state == FileState::kCorrupt) continue;
      file.state = FileState::kCorrupt;
      file.size = size;
    }
    for (std::size_t i = 0; i < hashed.size(); ++i) {
      if (agrees(check.digests[i], hashed[i].hex)) continue;
      file.state = FileState::kCorrupt;
      file.expected = check.digests[i];
      file.actual = hashed[i].hex;
      break;
    }
    if (file.state == FileState::kUnverifiable) {
      // Not every wrong file needs a digest to show.
      if (const std::string fault = glance(check.location, check.asked).fault; !fault.empty()) {
        file.state = FileState::kCorrupt;
        file.note = "it " + fault;
      }
    }
    if (file.state == FileState::kUnverifiable && file.note.empty()) {
      file.note = check.sizes.empty() ? kNothingTells : "only its size could be compared";
    }
    if (file.state == FileState::kCorrupt) {
      reject(check, info);
    } else if (file.state == FileState::kOk) {
      session_.emit(FileFinished{found_.entries[check.entry].name, file.path, info.size});
    }
  }

  /// By each name that leads to it: the snapshot's, and the blob's.
  void reject(const Check& check, const posix::FileInfo& info) {
    rejected_.add(check.location, info);
    if (check.blob.empty()) return;
    const auto blob = posix::stat(check.blob);
    if (!blob || !*blob || !same_file(**blob, info)) return;
    rejected_.add(check.blob, info);
    tell_of_shared(check);
  }

  /// The Hub's own client keeps what it gets through Xet once for all repositories of a cache, and
  /// a repository's blob is a link to it. A repair replaces the link; the bytes are others', too.
  void tell_of_shared(const Check& check) {
    if (!posix::is_link(check.blob)) return;
    const std::string& name = found_.entries[check.entry].name;
    session_.emit(Warned{
        name,
        "the wrong bytes of " + file_of(check).path +
            " lie in the blob store that all "
            "repositories of this cache share, at " +
            posix::real_path(check.blob) +
            ": whichever links there has them, and a repair of this one leaves them there; once "
            "none does, `hf cache prune` removes it"});
  }

  void give_up(const Check& check, const Error& error) {
    VerifiedFile& file = file_of(check);
    file.state = FileState::kUnchecked;
    file.note = describe(error);
    std::optional<Error>& first = found_.entries[check.entry].error;
    if (!first) first = with_context(error, "while reading " + file.path);
  }

  VerifiedFile& file_of(const Check& check) {
    return found_.entries[check.entry].files[check.file];
  }

  // --- phase 3: what is wrong
  // ---------------------------------------------------------------------

  static std::string what_is_wrong(const VerifiedFile& file) {
    std::string text = file.path;
    if (file.state == FileState::kMissing) {
      if (!file.note.empty()) return text + " (" + file.note + ")";
      return text + (file.size ? " (" + std::to_string(*file.size) + " bytes)" : "");
    }
    if (!file.note.empty()) return text + ": " + file.note;
    if (file.expected && !agrees(*file.expected, file.actual)) {
      return text + " has " + std::string(name(file.expected->kind)) + " " + file.actual +
             ", expected " + file.expected->hex;
    }
    return text + " has " + std::to_string(file.actual_size.value_or(0)) + " bytes, expected " +
           std::to_string(file.size.value_or(0));
  }

  static std::size_t count(const VerifiedEntry& entry, FileState state) {
    return static_cast<std::size_t>(
        std::count_if(entry.files.begin(), entry.files.end(),
                      [&](const VerifiedFile& file) { return file.state == state; }));
  }

  /// The entry's bad files of one kind in one line; the first of them, where they are many.
  static std::string list(const VerifiedEntry& entry, FileState state) {
    constexpr std::size_t kMost = 20;
    std::string text;
    std::size_t told = 0;
    for (const VerifiedFile& file : entry.files) {
      if (file.state != state || ++told > kMost) continue;
      text += (told == 1 ? "" : ", ") + what_is_wrong(file);
    }
    return told > kMost ? text + " and " + std::to_string(told - kMost) + " more" : text;
  }

  void judge(VerifiedEntry& entry) const {
    if (count(entry, FileState::kCorrupt) > 0) {
      entry.state = "corrupt";
      entry.error =
          fail(ErrorCode::kIntegrity, list(entry, FileState::kCorrupt), std::string(remedy(entry)))
              .value();
    } else if (entry.error && entry.error->code != ErrorCode::kOfflineMissing) {
      entry.state = "failed";
    } else if (entry.error || count(entry, FileState::kMissing) > 0) {
      entry.state = "missing";
      if (!entry.error) {
        entry.error = fail(ErrorCode::kOfflineMissing, list(entry, FileState::kMissing)).value();
      }
      entry.error->hint = remedy(entry);
    } else if (count(entry, FileState::kUnchecked) > 0) {
      entry.state = "unchecked";
    } else {
      entry.state = count(entry, FileState::kUnverifiable) > 0 ? "unverifiable" : "ok";
    }
  }

  [[nodiscard]] std::string_view remedy(const VerifiedEntry& entry) const {
    if (entry.kind == EntryKind::kPath) {
      return "put the right file there: what lies at a path of your own is never replaced";
    }
    if (session_.offline()) return "run `fvprefetch verify --repair` where there is a network";
    return "`fvprefetch verify --repair` fetches these files, and no others, again";
  }

  /// The error of `entries` together: corruption first, since it is what verify is asked for.
  static std::optional<Error> verdict(const std::vector<VerifiedEntry>& entries) {
    std::size_t optional_failures = 0;
    std::optional<Error> corrupt;
    std::optional<Error> missing;
    std::optional<Error> other;
    for (const VerifiedEntry& entry : entries) {
      if (!entry.error) continue;
      if (entry.optional) {
        ++optional_failures;
      } else if (entry.error->code == ErrorCode::kIntegrity) {
        append(corrupt, entry, "corrupt: ");
      } else if (entry.error->code == ErrorCode::kOfflineMissing) {
        append(missing, entry, "missing: ");
      } else if (!other) {
        other = with_context(*entry.error, "entry `" + entry.name + "`");
      }
    }
    if (corrupt) return corrupt;
    if (other) return other;
    if (missing || optional_failures == 0) return missing;
    return only_optional_failed(optional_failures, entries.size());
  }

  static void append(std::optional<Error>& all, const VerifiedEntry& entry, std::string_view head) {
    if (all) {
      all->message += "; ";
    } else {
      all = *entry.error;
      all->message = head;
    }
    all->message += entry.name + ": " + entry.error->message;
  }

  // --- repair
  // -------------------------------------------------------------------------------------

  void repair() {
    if (session_.offline()) return;
    Manifest broken;
    broken.origin = manifest_.origin;
    std::vector<VerifiedEntry*> of;
    for (std::size_t i = 0; i < found_.entries.size(); ++i) {
      VerifiedEntry& entry = found_.entries[i];
      const bool bad = entry.state == "corrupt" || entry.state == "missing";
      if (!bad || entry.kind == EntryKind::kPath) continue;
      broken.entries.push_back(manifest_.entries[i]);
      of.push_back(&entry);
    }
    if (of.empty()) return;
    Options options = options_;
    if (options.deadline) {
      options.deadline = std::max(
          std::chrono::milliseconds(1),
          *options.deadline - std::chrono::duration_cast<std::chrono::milliseconds>(elapsed()));
    }
    Report report = prefetch_with(broken, options, seams_, rejected_);
    for (std::size_t i = 0; i < std::min(of.size(), report.entries.size()); ++i) {
      const EntryReport& told = report.entries[i];
      if (told.error) of[i]->error = told.error;
      if (!succeeded(told.state)) continue;
      of[i]->error.reset();
      of[i]->repaired = true;
      of[i]->path = told.path;
      of[i]->commit = told.commit;
    }
    // What is wrong with entries that could not be repaired counts when the repair has not failed.
    const bool failed = report.error && report.error->code != ErrorCode::kPartial;
    found_.error = failed ? report.error : verdict(found_.entries);
    found_.repair = std::move(report);
  }

  [[nodiscard]] Clock::TimePoint::duration elapsed() const {
    return session_.clock().now() - session_.begin();
  }

  const Manifest& manifest_;
  const Options options_;
  const Seams& seams_;
  Session session_;
  Verification found_;
  std::vector<std::optional<Source>> sources_;  ///< nullopt: the entry could not be resolved
  std::vector<Check> checks_;
  Rejected rejected_;
  std::optional<Error> stopped_;
};

}  // namespace

std::string_view name(FileState state) {
  switch (state) {
    case FileState::kOk:
      return "ok";
    case FileState::kCorrupt:
      return "corrupt";
    case FileState::kMissing:
      return "missing";
    case FileState::kUnverifiable:
      return "unverifiable";
    case FileState::kUnchecked:
      return "unchecked";
  }
  return "unchecked";
}

std::string_view name(Digest::Kind kind) {
  return kind == Digest::Kind::kSha256 ? "sha256" : "git-sha1";
}

Verification verify_with(const Manifest& manifest, const Options& options, const Seams& seams) {
  Result<Verification> found =
      guard([&]() -> Result<Verification> { return Verifier(manifest, options, seams).run(); });
  if (found) return *std::move(found);
  Verification failed;
  failed.error = found.error();
  return failed;
}

Verification verify(const Manifest& manifest, const Options& options) {
  return verify_with(manifest, options, {});
}

}  // namespace fvprefetch
