#include "cluster/file_barrier.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/digest.h"
#include "base/posix.h"
#include "cluster/distribute.h"
#include "prefetch/run.h"
#include "prefetch/session.h"
#include "prefetch/step.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;

/// Tells those who wait how far the work is. What the leader waits for itself counts, too: else
/// they would lose patience with one who has reason to wait.
class Relay final : public Observer {
 public:
  Relay(Observer* next, StepMeeting& meeting) : next_(next), meeting_(meeting) {}

  void on_event(const Event& event) override {
    if (const auto* arrived = std::get_if<BytesArrived>(&event)) {
      meeting_.tell_progress(arrived->bytes_done);
    } else if (const auto* waited = std::get_if<LockWaited>(&event)) {
      meeting_.tell_progress(waited->bytes_done);
    }
    if (next_ != nullptr) next_->on_event(event);
  }

 private:
  Observer* next_;
  StepMeeting& meeting_;
};

bool leads(const Launch& launch, bool shared) {
  if (shared || !launch.local_rank) return launch.rank == 0;
  return launch.local_rank == 0;
}

/// The name of the step's files: the run's, and a digest of what tells apart runs of one name.
std::string file_stem(const Launch& launch, const std::string& digested) {
  constexpr std::size_t kLongest = 100;
  constexpr std::size_t kDigits = 12;
  const bool plain = launch.run.size() <= kLongest &&
                     std::all_of(launch.run.begin(), launch.run.end(), [](char c) {
                       return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                              (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
                     });
  return (plain ? launch.run : sha256_hex(launch.run).substr(0, 2 * kDigits)) + "." +
         sha256_hex(digested).substr(0, kDigits);
}

std::string file_stem(const Launch& launch, bool shared, const Manifest& manifest,
                      const Options& options) {
  std::string digested = launch.run_traits + "\n" + (shared ? "" : posix::host_name()) + "\n";
  for (const bool option : {options.offline, options.refresh, options.frozen, options.keep_going,
                            options.verify_foreign}) {
    digested += option ? '1' : '0';
  }
  digested += "\n" + manifest_text(manifest);
  return file_stem(launch, digested);
}

/// Every rank of the step comes, and comes to the same files.
bool all_ranks_meet(const Launch& launch, bool shared) {
  return launch.by_launcher() && launch.size && (shared || launch.nodes == 1);
}

/// How long a process that a script has started waits for rank 0 of its step.
constexpr milliseconds kCalledAlone(5'000);

class FileBarrier {
 public:
  FileBarrier(const Manifest& manifest, const Options& options, const Launch& launch,
              const FileBarrierOptions& how)
      : manifest_(manifest),
        options_(options),
        launch_(launch),
        how_(how),
        seams_{how.clock, {}},
        session_(options, seams_),
        shared_(caches_may_be_shared(session_)),
        leads_(leads(launch, shared_)),
        meeting_(session_, file_stem(launch, shared_, manifest, options), "step " + launch.run,
                 launch.rank.value_or(0),
                 leads_ ? StepMeeting::Role::kPreferred : StepMeeting::Role::kOther,
                 launch.by_launcher() ? std::nullopt : std::optional(kCalledAlone)) {}

  StepResult run() {
    if (auto warm = look()) return {*std::move(warm)};
    if (!meeting_.may_write()) return work_alone();
    for (bool waited = false;; waited = true) {
      // What lies there when rank 0 begins is of an earlier run.
      if (waited || !leads_) {
        if (auto report = meeting_.record()) return take(*std::move(report));
      }
      const Result<bool> ours = meeting_.try_to_lead();
      if (!ours) return work_alone();
      if (*ours) return waited ? follow() : lead();
      if (meeting_.is_abandoned()) return work_alone();
      if (auto warm = look_now_and_then()) return {*std::move(warm)};
      if (const Status slept = meeting_.wait(); !slept) {
        auto report =
            options_.stop.stop_requested() ? meeting_.record_that_is_coming() : meeting_.record();
        if (report) return take(*std::move(report));
        return {failed_report(slept.error())};
      }
    }
  }

 private:
  [[nodiscard]] std::optional<Report> look() const {
    return warm_report(manifest_, options_, seams_, leads_ ? Keep::kReceipts : Keep::kNothing);
  }

  /// For one whose file system remembered for a while that something is not there: then nobody
  /// else has anything to do, and there will be no record.
  std::optional<Report> look_now_and_then() {
    const Clock::TimePoint now = session_.clock().now();
    if (meeting_.is_led() || now < next_look_) return std::nullopt;
    const bool first = next_look_ == Clock::TimePoint{};
    next_look_ = now + look_pause_;
    look_pause_ = std::min(look_pause_ * 2, milliseconds(10'000));
    return first ? std::nullopt : look();
  }

  /// The lease of one who is gone: perhaps he had got to the end.
  StepResult follow() {
    auto report = meeting_.record();
    if (!report) return lead();
    meeting_.let_go();
    return take(*std::move(report));
  }

  StepResult lead() {
    if (!leads_ && how_.on_take_over) how_.on_take_over();
    meeting_.forget_record();
    Relay relay(options_.observer, meeting_);
    Options mine = options_;
    mine.observer = &relay;
    Report report = work(std::move(mine));
    const bool told = !meeting_.was_overtaken() && meeting_.tell(report);  // see is_abandoned()
    meeting_.let_go();
    if (told && (!report.ok() || options_.refresh)) {
      (void)meeting_.record();
      meeting_.note_taken();  // it is not to be told this once more, by a later call
    }
    if (told && !report.ok()) wait_for_others();
    return {std::move(report)};
  }

  void wait_for_others() {
    if (all_ranks_meet(launch_, shared_)) meeting_.wait_for_others(*launch_.size);
  }

  StepResult take(Report report) {
    const bool usable = report.ok() || report.code() == ErrorCode::kPartial;
    if (usable && unseen_here(report, visibility())) return work_alone();
    if (!report.ok() || options_.refresh) meeting_.note_taken();
    if (!report.ok()) wait_for_others();
    return {std::move(report), true};
  }

  StepResult work_alone() { return {work(options_)}; }

  [[nodiscard]] VisibilityCheck visibility() {
    VisibilityCheck check;
    check.timeout = how_.visible_timeout;
    check.clock = &session_.clock();
    check.must_stop = [this] { return session_.must_stop(); };
    check.observer = options_.observer;
    return check;
  }

  [[nodiscard]] Report work(Options options) const {
    // Of the time that the run may take, what the wait has left.
    const auto waited =
        std::chrono::duration_cast<milliseconds>(session_.clock().now() - session_.begin());
    if (options.deadline && waited >= std::chrono::seconds(1)) {
      options.deadline = std::max(milliseconds(1), *options.deadline - waited);
    }
    return how_.work ? how_.work(manifest_, options) : prefetch(manifest_, options);
  }

  const Manifest& manifest_;
  const Options& options_;
  const Launch& launch_;
  const FileBarrierOptions& how_;
  Seams seams_;
  Session session_;
  bool shared_;
  bool leads_;
  StepMeeting meeting_;
  Clock::TimePoint next_look_{};
  milliseconds look_pause_{500};
};

}  // namespace

bool has_file_barrier(const Launch& launch) {
  return launch.mode == Launch::Mode::kLockOnly && launch.rank && !launch.run.empty();
}

Result<std::string> manifest_in_step(const Launch& launch, const Options& options,
                                     const std::function<Result<std::string>()>& read) {
  Session session(options, {});
  const bool shared = caches_may_be_shared(session);
  const std::string stem =
      file_stem(launch, launch.run_traits + "\n" + (shared ? "" : posix::host_name()) + "\nstdin");
  if (leads(launch, shared)) return leave_manifest(session, stem, read);
  // A process that a script has started may have been called on its rank alone.
  const auto patience =
      launch.by_launcher() ? options.rank_timeout : std::min(kCalledAlone, options.rank_timeout);
  auto text = await_manifest(session, stem, launch.rank.value_or(0), patience);
  if (text || launch.by_launcher() || text.error().reason != kNoManifestCame) return text;
  return read();
}

void fail_together(const Launch& launch, const Options& options) {
  Session session(options, {});
  if (!has_file_barrier(launch) || !all_ranks_meet(launch, caches_may_be_shared(session))) return;
  StepMeeting meeting(session, file_stem(launch, launch.run_traits + "\nfailed"),
                      "step " + launch.run, *launch.rank, StepMeeting::Role::kOther);
  if (!meeting.may_write()) return;
  meeting.note_taken();
  meeting.wait_for_others(*launch.size);
}

void note_without_mpi(const Launch& launch, const Options& options, const std::string& why) {
  if (!has_file_barrier(launch)) return;
  Session session(options, {});
  note_without_mpi(
      session, file_stem(launch, launch.run_traits), *launch.rank,
      "rank " + std::to_string(*launch.rank) + " on " + posix::host_name() + " has no MPI: " + why);
}

std::vector<std::string> notes_without_mpi(const Launch& launch, const Options& options) {
  if (launch.run.empty()) return {};
  Session session(options, {});
  return notes_without_mpi(session, file_stem(launch, launch.run_traits));
}

StepResult prefetch_in_step(const Manifest& manifest, const Options& options, const Launch& launch,
                            const FileBarrierOptions& how) {
  return FileBarrier(manifest, options, launch, how).run();
}

}  // namespace fvprefetch
