// The orchestration: what is each entry, is it there, ask the Hub for what is not known, fetch what
// is missing, write down what was verified, report.
//
// Order of the phases, over all entries each: what can fail without touching anything comes first,
// what costs a request next, what costs bytes last.
#include "fvprefetch/prefetch.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/try.h"
#include "cache/hf_store.h"
#include "prefetch/archive.h"
#include "prefetch/extra.h"
#include "prefetch/fetch.h"
#include "prefetch/glance.h"
#include "prefetch/keep.h"
#include "prefetch/lookup.h"
#include "prefetch/pin.h"
#include "prefetch/run.h"
#include "prefetch/session.h"
#include "prefetch/space.h"
#include "prefetch/target.h"
#include "source/resolve.h"

namespace fvprefetch {

namespace {

class Run : public FetchListener {
 public:
  Run(const Manifest& manifest, Session& session) : manifest_(manifest), session_(session) {}

  Report run() {
    if (const Status pinned = check_frozen(manifest_, session_); !pinned) {
      return failed_report(pinned.error());
    }
    if (const Status ready = identify(); !ready) return failed_report(ready.error());
    for (std::size_t i = 0; i < items_.size(); ++i) look_up(i);
    fetch();
    for (std::size_t i = 0; i < items_.size(); ++i) close(i);
    return report();
  }

  /// As warm_report().
  std::optional<Report> warm(Keep keep) {
    silent_ = true;  // what fails is for run() to tell
    if (!check_frozen(manifest_, session_) || !identify()) return std::nullopt;
    for (Item& item : items_) {
      if (!item.identified || session_.must_stop()) return std::nullopt;
      auto survey = look_without_asking(item.source);
      const bool there = survey && survey->need == Survey::Need::kNothing && !survey->unchecked;
      if (!there) return std::nullopt;
      item.survey = *std::move(survey);
    }
    silent_ = false;
    keep_ = keep;
    for (std::size_t i = 0; i < items_.size(); ++i) accept(i);
    return report();
  }

  // FetchListener
  Others on_done(const FetchJob& job, const FetchOutcome& outcome) override {
    Others others = Others::kAsBefore;
    for (const std::size_t index : job.entries) {
      Item& item = items_[index];
      EntryReport& entry = item.report;
      --item.open_files;
      // Shared by several entries: counted once, for the first.
      if (index == job.entries.front()) {
        entry.requests += outcome.requests;
        entry.bytes_fetched += outcome.status ? outcome.bytes - outcome.resumed : outcome.received;
      }
      if (outcome.fetched && outcome.status) item.fetched_any = true;
      if (outcome.resumed > 0 && outcome.status) item.resumed_any = true;
      if (!outcome.fetched) item.adopted_by = outcome.adopted_by;
      const auto refused = outcome.refused.find(index);
      if (!outcome.status && !entry.error) {
        fail_entry(index, outcome.status.error());
      } else if (refused != outcome.refused.end() && !entry.error) {
        fail_entry(index, refused->second);
      } else if (item.open_files == 0 && !entry.error) {
        complete(index);  // which may fail as well
      }
      if (entry.error) others = Others::kMayBeUnwanted;
    }
    return others;
  }
  bool wanted(const FetchJob& job) const override {
    if (aborted_) return false;
    return std::any_of(job.entries.begin(), job.entries.end(),
                       [&](std::size_t i) { return !items_[i].report.error; });
  }
  std::string entry_name(std::size_t entry) const override { return manifest_.entries[entry].name; }

 private:
  struct Item {
    Source source;
    Survey survey;
    EntryReport report;
    Clock::TimePoint begin;
    std::size_t open_files = 0;
    bool identified = false;
    bool fetched_any = false;
    bool resumed_any = false;
    std::string adopted_by;  ///< how a file that somebody else brought is known to be right
    bool done = false;
  };

  // --- phase 1: what is each entry?
  // ---------------------------------------------------------------

  /// Mistakes that make the manifest as a whole unusable are an error; an entry that cannot be had
  /// fails alone.
  Status identify() {
    FVP_CHECK_OK(session_.usable());
    std::vector<Entry> entries;
    std::vector<Source> sources;
    items_.resize(manifest_.entries.size());
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const Entry& entry = manifest_.entries[i];
      Item& item = items_[i];
      item.begin = session_.clock().now();
      item.report.name = entry.name;
      item.report.optional = entry.optional;
      item.report.state = EntryState::kSkipped;
      FVP_CHECK_OK(validate(entry));
      Result<Source> source = resolve(entry, session_.env(), session_.eval_cache());
      if (!source) {
        if (source.error().code == ErrorCode::kUsage) {
          return fail(with_context(source.error(), "entry `" + entry.name + "`"));
        }
        fail_entry(i, source.error());
        continue;
      }
      item.source = *std::move(source);
      item.identified = true;
      item.report.kind = kind_of(item.source);
      entries.push_back(entry);
      sources.push_back(item.source);
    }
    return check_destinations(entries, sources);
  }

  // --- phase 2: is it there?
  // ----------------------------------------------------------------------

  Result<Survey> look_without_asking(const Source& source) {
    Result<Survey> survey = look(source, session_, Hashing::kForbidden);
    if (!survey || !survey->unlisted() || !session_.offline()) return survey;
    return look_offline(std::get<HubSource>(source), session_, *survey, Hashing::kForbidden);
  }

  /// Reads the caches, and asks the Hub what they do not tell. A run that has failed already still
  /// says what is there, but asks nobody and hashes nothing: its end must not be kept waiting.
  void look_up(std::size_t index) {
    Item& item = items_[index];
    if (!item.identified) return;
    if (const std::optional<Error> stop = session_.must_stop()) return fail_entry(index, *stop);
    const Hashing hashing = aborted_ ? Hashing::kForbidden : Hashing::kAllowed;
    if (auto extra = extras_.find(manifest_.entries[index], hashing, session_.offline())) {
      item.source = std::move(extra->source);
      item.survey = std::move(extra->survey);
      return complete(index);
    }
    Result<Survey> survey = look(item.source, session_, hashing);
    if (survey && survey->unlisted()) {
      const auto& hub = std::get<HubSource>(item.source);
      if (session_.offline()) {
        survey = look_offline(hub, session_, *survey, hashing);
      } else if (aborted_) {
        return;
      } else {
        const std::uint64_t before = session_.requests();
        survey = ask_hub(item.source, *survey, session_, hashing);
        item.report.requests += session_.requests() - before;
      }
    }
    if (!survey) {
      note_absent(item.source, survey.error());
      return fail_entry(index, survey.error());
    }
    if (survey->unchecked) return;
    item.survey = *std::move(survey);
    accept(index);
    if (!item.done && session_.offline()) return fail_entry(index, missing_offline(item));
  }

  /// What was found of the entry is what there is to know.
  void accept(std::size_t index) {
    Item& item = items_[index];
    item.report.warnings = item.survey.warnings;
    for (const std::string& warning : item.survey.warnings) {
      session_.emit(Warned{item.report.name, warning});
    }
    if (item.survey.need == Survey::Need::kNothing) complete(index);
  }

  /// As the real client does, so that others need not ask for the file either.
  void note_absent(const Source& source, const Error& error) {
    const auto* hub = std::get_if<HubSource>(&source);
    if (hub == nullptr || hub->filename.empty() || error.code != ErrorCode::kNotFound) return;
    const auto commit = session_.commit_without(hub->repo, hub->revision, hub->filename);
    if (!commit) return;
    // Best effort: it saves others a request.
    const HubStore store = session_.store(hub->repo);
    if (!store.write_absent(*commit, hub->filename) || hub->revision == *commit) return;
    // Readers find the note by the branch. One that leads to another commit is left: it may be
    // complete, and this one is not.
    const auto ref = store.read_ref(hub->revision);
    if (!ref || *ref) return;
    const auto tree = session_.tree_of(hub->repo, *commit);  // known, else there were no note
    if (tree && store.write_tree(*commit, *tree)) (void)store.write_ref(hub->revision, *commit);
  }

  static Error missing_offline(const Item& item) {
    const auto fault = [&item](std::size_t i) {
      const auto found = item.survey.faults.find(i);
      return found == item.survey.faults.end() ? std::string() : ": what is there " + found->second;
    };
    if (std::holds_alternative<UrlSource>(item.source)) {
      return fail(ErrorCode::kOfflineMissing, item.survey.path + fault(0)).value();
    }
    std::string list;
    for (const std::size_t i : item.survey.missing) {
      const FileSpec& file = item.survey.files[i];
      if (!list.empty()) list += ", ";
      list += file.path;
      if (file.size) list += " (" + std::to_string(*file.size) + " bytes)";
      list += fault(i);
    }
    return fail(ErrorCode::kOfflineMissing, list).value();
  }

  // --- phase 3: fetch
  // -----------------------------------------------------------------------------

  void fetch() {
    if (aborted_) return;
    check_access();
    if (aborted_) return;
    std::vector<FetchJob> wanted = jobs();
    if (session_.options().space_check) check_space(wanted);
    if (aborted_) return;
    fetch_all(std::move(wanted), session_, *this, lock_);
  }

  /// Before the first body: an entry that has no room is not begun. Required ones come first. What
  /// lies there unfinished counts as there already; what nobody tells does not count.
  void check_space(const std::vector<FetchJob>& wanted) {
    std::vector<std::uint64_t> needs(items_.size(), 0);  // of what is fetched for this entry first
    std::vector<std::uint64_t> files(items_.size(), 0);  // that are new, at least
    std::vector<std::string> places(items_.size());
    JournalNames journals;
    for (const FetchJob& job : wanted) {
      const std::size_t entry = job.entries.front();
      const std::uint64_t size = job.download.spec.size.value_or(0);
      const bool begun =
          !job.target->unfinished(journals).empty();  // else a look at all that lies there
      const std::uint64_t there = begun ? std::min(size, job.target->partial_bytes()) : 0;
      needs[entry] = add_sizes(needs[entry], size - there);
      needs[entry] = add_sizes(needs[entry], job.target->bytes_beside());
      files[entry] += job.target->new_files() - (begun ? 1 : 0);
      places[entry] = posix::parent(job.target->final_path());
    }
    SpaceCheck space;
    std::set<std::string> told;  // file systems that say nothing
    for (const bool optional : {false, true}) {
      for (std::size_t i = 0; i < items_.size(); ++i) {
        if (places[i].empty() || items_[i].report.optional != optional) continue;
        const SpaceCheck::Answer answer = space.take(places[i], needs[i], files[i]);
        if (answer.free_files) {
          fail_entry(i, too_many_files(files[i], places[i], *answer.free_files));
          continue;
        }
        if (needs[i] == 0) continue;
        if (!answer.free) {
          if (told.insert(answer.device).second) {
            session_.emit(Warned{"", "the file system of " + places[i] +
                                         " does not tell how much space it has; going on without "
                                         "a check"});
          }
          continue;
        }
        if (answer.fits) continue;
        Error error = does_not_fit("what is missing needs " + std::to_string(needs[i]) + " bytes",
                                   places[i], *answer.free);
        if (answer.others > 0) {
          error.message += ", " + std::to_string(answer.others) + " of them for other entries";
        }
        fail_entry(i, std::move(error));
      }
    }
  }

  /// Before the first large body: whether each repository lets us have its files. It costs nothing,
  /// since a file's own request is begun, and gone on with where it led (ruling 13). Where there is
  /// but one source its first file is the check.
  void check_access() {
    struct Snapshot {
      std::vector<std::size_t> entries;
      std::size_t file = 0;  ///< of the first entry: the one to begin with
    };
    std::map<std::string, Snapshot> snapshots;  // by its path
    std::size_t sources = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (items_[i].done || items_[i].survey.need != Survey::Need::kFiles) continue;
      const auto* hub = std::get_if<HubSource>(&items_[i].source);
      if (hub == nullptr) {
        ++sources;
        continue;
      }
      const std::optional<std::size_t> first = first_to_fetch(items_[i]);
      if (!first) continue;  // its bytes are all there
      const std::string path = session_.store(hub->repo).paths().snapshot(items_[i].survey.commit);
      const auto [snapshot, is_new] = snapshots.emplace(path, Snapshot{{}, *first});
      if (is_new) ++sources;
      snapshot->second.entries.push_back(i);
    }
    if (sources < 2) return;
    for (const auto& [path, snapshot] : snapshots) {
      if (aborted_) return;
      if (const std::optional<Error> stop = session_.must_stop()) {
        return fail_entry(snapshot.entries.front(), *stop);
      }
      const Status open = open_file(items_[snapshot.entries.front()], snapshot.file);
      if (open) continue;
      for (const std::size_t i : snapshot.entries) fail_entry(i, open.error());
    }
  }

  /// The first file whose bytes the cache has not got, a large one if there is any.
  std::optional<std::size_t> first_to_fetch(const Item& item) const {
    const HubStore store = session_.store(std::get<HubSource>(item.source).repo);
    std::optional<std::size_t> first;
    for (const std::size_t i : item.survey.missing) {
      const FileSpec& file = item.survey.files[i];
      if (store.has_blob(file)) continue;
      if (file.digest && file.digest->kind == Digest::Kind::kSha256) return i;
      if (!first) first = i;
    }
    return first;
  }

  /// Begins the request of a file, and notes where it led.
  Status open_file(Item& item, std::size_t file) {
    const auto& hub = std::get<HubSource>(item.source);
    const std::string& commit = item.survey.commit;
    const std::string& path = item.survey.files[file].path;
    FVP_TRY(hub::Client * client, session_.hub());
    const std::uint64_t before = session_.requests();
    Result<std::string> address = client->open_file(session_.hops(), hub.repo, commit, path);
    item.report.requests += session_.requests() - before;
    if (!address) return fail(std::move(address).error());
    opened_.emplace(client->resolve_url(hub.repo, commit, path), *std::move(address));
    return {};
  }

  std::vector<FetchJob> jobs() {
    std::vector<FetchJob> jobs;
    std::map<std::string, std::size_t> by_path;  // final path -> index into jobs
    for (std::size_t i = 0; i < items_.size(); ++i) {
      Item& item = items_[i];
      if (item.done || item.report.error || item.survey.need != Survey::Need::kFiles) continue;
      if (const auto* url = std::get_if<UrlSource>(&item.source)) {
        std::unique_ptr<Target> target;
        if (url->is_archive()) {
          target = std::make_unique<ArchiveTarget>(*url, item.survey.judged, session_);
        } else {
          target = std::make_unique<UrlTarget>(*url, item.survey.judged, session_);
        }
        const auto [known, is_new] = by_path.emplace(target->final_path(), jobs.size());
        if (is_new) {
          FetchJob job;
          job.target = std::move(target);
          job.download.spec = url->file;
          job.download.binary = url->is_archive();
          jobs.push_back(std::move(job));
        }
        add_entry(jobs[known->second], i);
        continue;
      }
      add_hub_jobs(i, std::get<HubSource>(item.source), jobs, by_path);
    }
    return jobs;
  }

  void add_hub_jobs(std::size_t index, const HubSource& source, std::vector<FetchJob>& jobs,
                    std::map<std::string, std::size_t>& by_path) {
    const Survey& survey = items_[index].survey;
    const Result<hub::Client*> client = session_.hub();
    if (!client) return fail_entry(index, client.error());
    const HubStore store = session_.store(source.repo);
    // Before the first byte: until all is there, readers can tell from it what is missing.
    if (survey.tree) {
      Status listed = store.prepare(survey.commit);
      if (listed) listed = store.write_tree(survey.commit, *survey.tree);
      if (!listed) return fail_entry(index, listed.error());
    }
    for (const std::size_t i : survey.missing) {
      const FileSpec& file = survey.files[i];
      const bool by_digest = !source.files.empty() || !source.sha256.empty() ||
                             survey.faults.contains(i) || session_.options().verify_foreign;
      HubTarget::Pointer pointer{survey.commit, file, source.sha256, index, by_digest};
      auto target = std::make_unique<HubTarget>(store, pointer, session_);
      const auto [known, is_new] = by_path.emplace(target->final_path(), jobs.size());
      if (!is_new) {
        static_cast<HubTarget&>(*jobs[known->second].target).also(std::move(pointer));
        add_entry(jobs[known->second], index);
        continue;
      }
      FetchJob job;
      job.target = std::move(target);
      job.download.spec = file;
      const std::string url = (*client)->resolve_url(source.repo, survey.commit, file.path);
      job.download.spec.urls = {url};
      // Where it led may be signed and expire before its turn comes: then it is asked for again.
      if (const auto led = opened_.find(url); led != opened_.end() && led->second != url) {
        job.download.spec.urls = {led->second, url};
      }
      job.download.credential = (*client)->credential();
      job.download.explain = [client = *client, repo = source.repo,
                              path = file.path](const Response& response) {
        return client->explain(repo, path, response);
      };
      add_entry(job, index);
      jobs.push_back(std::move(job));
    }
  }

  void add_entry(FetchJob& job, std::size_t index) {
    if (!job.entries.empty() && job.entries.back() == index) return;  // the same bytes twice
    job.entries.push_back(index);
    if (auto key = fastvideo_key(items_[index].source)) job.fastvideo.insert(*std::move(key));
    ++items_[index].open_files;
  }

  // --- ends
  // ---------------------------------------------------------------------------------------

  /// Everything of the entry is in place: write down what was verified, and say so.
  void complete(std::size_t index) {
    Item& item = items_[index];
    if (const Status kept = keep(item); !kept) return fail_entry(index, kept.error());
    EntryReport& entry = item.report;
    warn_of_pointers(item);
    warn_of_fault(item);
    entry.state = item.fetched_any ? EntryState::kFetched : EntryState::kHit;
    if (item.resumed_any) entry.state = EntryState::kResumed;
    entry.path = item.survey.path;
    entry.commit = item.survey.commit;
    entry.resolved_at = item.survey.resolved_at;
    entry.verified_by = verified_by(item);
    entry.files = item.survey.files.size();
    entry.bytes_total = item.survey.bytes_total();
    finish(item);
  }

  /// What was fetched is what the repository has, and somebody may have put a pointer there in
  /// place of the file.
  void warn_of_pointers(Item& item) {
    const auto* hub = std::get_if<HubSource>(&item.source);
    if (hub == nullptr || !item.fetched_any) return;
    for (const std::size_t i : item.survey.missing) {
      const FileSpec& file = item.survey.files[i];
      if (file.size.value_or(0) > kSniffBytes) continue;
      const std::string path =
          session_.store(hub->repo).paths().pointer(item.survey.commit, file.path);
      if (!is_pointer(path)) continue;
      item.report.warnings.push_back(warning_of_pointer(path));
      session_.emit(Warned{item.report.name, item.report.warnings.back()});
    }
  }

  /// What a server has is what was asked for, and may be broken there.
  void warn_of_fault(Item& item) {
    const auto* url = std::get_if<UrlSource>(&item.source);
    if (url == nullptr || !item.fetched_any || url->is_archive() || url->file.digest) return;
    // What lies beside it is of another download.
    const std::string fault = contents_fault(url->path(), asked_of(*url));
    if (fault.empty()) return;
    item.report.warnings.push_back("the file at " + url->path() + " " + fault +
                                   "; that is what the server has");
    session_.emit(Warned{item.report.name, item.report.warnings.back()});
  }

  static std::string verified_by(const Item& item) {
    if (item.survey.missing.empty()) return item.survey.verified_by;
    if (!item.adopted_by.empty()) return item.adopted_by;
    const bool all = std::all_of(item.survey.files.begin(), item.survey.files.end(),
                                 [](const FileSpec& file) { return file.digest.has_value(); });
    return all ? "digest" : "size";
  }

  /// Refs, tree and receipt of a Hub entry; the receipt of a URL entry that was hashed at a hit.
  /// After a fetch a failure counts (the cache is writable, after all); at a hit it does not.
  Status keep(Item& item) {
    if (keep_ == Keep::kNothing) return {};
    if (auto* url = std::get_if<UrlSource>(&item.source)) {
      if (item.survey.missing.empty()) {
        if (item.survey.wants_receipt) {
          write_url_receipt(*url, item.survey.sha256, *item.survey.judged);
        }
        return {};
      }
      if (url->is_archive()) {
        FVP_TRY(Survey now, look_archive(*url, session_, false));
        if (now.need == Survey::Need::kNothing) item.survey.files = std::move(now.files);
        return {};
      }
      std::optional<std::uint64_t>& size = item.survey.files.front().size;
      if (!size) {
        FVP_TRY(const auto info, posix::stat(item.survey.path));
        if (info) size = info->size;
      }
      return {};
    }
    if (!std::holds_alternative<HubSource>(item.source)) return {};
    const bool fetched = !item.survey.missing.empty();
    if (item.survey.ref_inexact) {
      const auto& hub = std::get<HubSource>(item.source);
      (void)session_.store(hub.repo).write_ref(hub.revision, item.survey.commit);  // best effort
    }
    if (!fetched && !item.survey.wants_receipt && !item.survey.asked) return {};
    if (!item.adopted_by.empty()) item.survey.all_hashed = false;
    const Status kept = keep_hub(std::get<HubSource>(item.source), item.survey, session_);
    return fetched ? kept : Status{};
  }

  void fail_entry(std::size_t index, Error error) {
    Item& item = items_[index];
    EntryReport& entry = item.report;
    entry.state = EntryState::kFailed;
    if (const auto* url = std::get_if<UrlSource>(&item.source);
        url != nullptr && error.code == ErrorCode::kIntegrity) {
      if (auto hint = page_hint(url->file.urls.front(), session_.env()); !hint.empty()) {
        error.hint = std::move(hint);
      }
    }
    entry.error = std::move(error);
    entry.path.clear();
    // Offline nothing is begun that could be stopped, and the list of what is missing is wanted
    // whole.
    if (!entry.optional && !session_.options().keep_going && !session_.offline()) aborted_ = true;
    if (!stopped_) stopped_ = session_.must_stop();
    finish(item);
  }

  void finish(Item& item) {
    item.done = true;
    item.report.seconds =
        std::chrono::duration<double>(session_.clock().now() - item.begin).count();
    if (silent_) return;
    session_.emit(EntryDone{item.report.name, std::string(name(item.report.state)),
                            item.report.path, item.report.error});
  }

  /// What was neither completed nor failed was not tried to the end, since another entry failed.
  void close(std::size_t index) {
    Item& item = items_[index];
    if (!item.done) {
      item.report.state = EntryState::kSkipped;
      finish(item);
    }
  }

  Report report() {
    Report report;
    report.lock = lock_;
    std::uint64_t of_entries = 0;
    for (Item& item : items_) {
      of_entries += item.report.requests;
      report.entries.push_back(std::move(item.report));
    }
    report.requests = session_.requests() - std::min(of_entries, session_.requests());
    report.seconds =
        std::chrono::duration<double>(session_.clock().now() - session_.begin()).count();
    report.error = verdict(report.entries);
    return report;
  }

  [[nodiscard]] std::optional<Error> verdict(const std::vector<EntryReport>& entries) const {
    std::size_t optional_failures = 0;
    const bool failed = any_failed(entries);
    for (const EntryReport& entry : entries) {
      if (entry.state == EntryState::kSkipped && !entry.optional && !failed) {
        return fail(ErrorCode::kInternal, "entry `" + entry.name + "` was left undone").value();
      }
      if (!entry.error) continue;
      if (entry.optional) {
        ++optional_failures;
        continue;
      }
      // Cut short, the list of what is missing is not the list.
      const bool missing = entry.error->code == ErrorCode::kOfflineMissing;
      if (stopped_ && (missing || stopped_by_signal())) return stopped_;
      if (missing) return all_missing(entries);
      return with_context(*entry.error, "entry `" + entry.name + "`");
    }
    if (optional_failures == 0) return std::nullopt;
    // A run that was told to end has not had its chance at what is optional: that is no "partial",
    // which scripts take for success.
    if (stopped_) return stopped_;
    return only_optional_failed(optional_failures, entries.size());
  }

  static bool any_failed(const std::vector<EntryReport>& entries) {
    return std::any_of(entries.begin(), entries.end(),
                       [](const EntryReport& entry) { return entry.error.has_value(); });
  }

  [[nodiscard]] bool stopped_by_signal() const {
    return stopped_ && exit_code(stopped_->code) >= exit_code(ErrorCode::kSignalBase);
  }

  static Error all_missing(const std::vector<EntryReport>& entries) {
    std::string list;
    for (const EntryReport& entry : entries) {
      if (!entry.error || entry.error->code != ErrorCode::kOfflineMissing) continue;
      list += (list.empty() ? "" : "; ") + entry.name + ": " + entry.error->message;
    }
    return fail(ErrorCode::kOfflineMissing, "offline, and missing: " + list).value();
  }

  const Manifest& manifest_;
  Session& session_;
  const ExtraCaches extras_{session_.options()};
  std::vector<Item> items_;
  LockReport lock_;
  std::map<std::string, std::string> opened_;  ///< by /resolve/ address: where its request led
  Keep keep_ = Keep::kReceipts;
  bool silent_ = false;
  bool aborted_ = false;
  std::optional<Error> stopped_;  ///< a signal or the deadline was behind a failure
};

}  // namespace

Error only_optional_failed(std::size_t failed, std::size_t all) {
  return fail(ErrorCode::kPartial, std::to_string(failed) + " of " + std::to_string(all) +
                                       " entries failed, all of them optional")
      .value();
}

Report prefetch_with(const Manifest& manifest, const Options& options, const Seams& seams,
                     std::optional<Rejected> rejected) {
  Result<Report> report = guard([&]() -> Result<Report> {
    Session session(options, seams, std::move(rejected));
    return Run(manifest, session).run();
  });
  return report ? *std::move(report) : failed_report(report.error());
}

std::optional<Report> warm_report(const Manifest& manifest, const Options& options,
                                  const Seams& seams, Keep keep) {
  auto report = guard([&]() -> Result<std::optional<Report>> {
    Session session(options, seams);
    return Run(manifest, session).warm(keep);
  });
  return report ? *std::move(report) : std::nullopt;  // run() fails the same way, and says how
}

Report prefetch(const Manifest& manifest, const Options& options) {
  return prefetch_with(manifest, options, {});
}

}  // namespace fvprefetch
