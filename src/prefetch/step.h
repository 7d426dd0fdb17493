// Where the processes of one step meet that have no MPI: a lease and a record below the eval cache.
//
//   <eval cache>/.fvprefetch/steps/<step>.lease          whoever works for all holds it: who, since
//                                                        when, how far, and whether he lives
//   <eval cache>/.fvprefetch/steps/<step>.json           how that ended: the report, as --json has
//                                                        it
//   <eval cache>/.fvprefetch/steps/<step>.<rank>.taken   which record that rank has returned
//
// Nothing is made here before somebody leads: a warm run leaves no trace. Best effort all of it;
// what goes wrong here costs double work and nothing else. Who does what is cluster/file_barrier's
// to say.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cache/layout.h"
#include "cache/lease.h"
#include "cache/lock.h"
#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/session.h"

namespace fvprefetch {

/// Both caches lie on file systems that other hosts may see, as far as the system tells.
[[nodiscard]] bool caches_may_be_shared(const Session& session);

/// Reads a manifest by `read` and leaves its text, or the error, for other processes of the step;
/// best effort, this process has it.
[[nodiscard]] Result<std::string> leave_manifest(const Session& session, const std::string& step,
                                                 const std::function<Result<std::string>()>& read);
/// Waits for what leave_manifest() leaves, and takes nothing twice: it may be of an earlier call.
/// kNetwork with this reason after `patience`.
inline constexpr const char* kNoManifestCame = "no_manifest";
[[nodiscard]] Result<std::string> await_manifest(const Session& session, const std::string& step,
                                                 int rank, std::chrono::milliseconds patience);

/// A line about a rank that has no MPI, for notes_without_mpi(). Best effort.
void note_without_mpi(const Session& session, const std::string& step, int rank,
                      const std::string& line);
[[nodiscard]] std::vector<std::string> notes_without_mpi(const Session& session,
                                                         const std::string& step);

class StepMeeting {
 public:
  enum class Role {
    kPreferred,  ///< leads when nobody else does
    kOther       ///< leads when nobody has been heard of for the lease time
  };

  /// `session` must outlive it. `step`: a safe name for files; `title`: what people call it.
  /// `lead_after`: kOther leads, too, when no other process has led for so long; nullopt: it goes
  /// by the lease alone.
  StepMeeting(Session& session, const std::string& step, std::string title, int rank, Role role,
              std::optional<std::chrono::milliseconds> lead_after = std::nullopt);

  /// A record could be written, as far as rights tell.
  [[nodiscard]] bool may_write() const;

  /// True: this process leads. Errors: leases do not work here.
  [[nodiscard]] Result<bool> try_to_lead();
  /// Somebody else was leading at the last try.
  [[nodiscard]] bool is_led() const { return lease_ && lease_->held_by_other(); }
  /// Who led has let go, and left no record.
  [[nodiscard]] bool is_abandoned() const;
  /// Sleeps until it is worth looking again, and says now and then on whom it waits. The error of a
  /// run that has waited for long enough, or has to end.
  [[nodiscard]] Status wait();
  /// After wait() has failed for a signal: the record, if it comes within 2 s. A launcher that ends
  /// all ranks as soon as one has failed does so while its result is on its way to the others.
  [[nodiscard]] std::optional<Report> record_that_is_coming() const;
  /// Of a failure: waits until `ranks` processes have taken the record, 5 s at most, so that none
  /// is ended by the launcher before it can return the same code. Heeds no signal.
  void wait_for_others(int ranks) const;

  /// How the step ended. Not a record that this rank has returned before, nor one that cannot be
  /// read.
  [[nodiscard]] std::optional<Report> record() const;
  /// This rank returns what record() gave last.
  void note_taken() const;

  // For who leads.
  void forget_record() const;  ///< of an earlier run
  void tell_progress(std::uint64_t bytes_done) { keeper_.tell_progress(bytes_done); }
  /// Somebody has taken over, because he could not see us live.
  [[nodiscard]] bool was_overtaken() const { return held_ && held_->lost(); }
  [[nodiscard]] Status tell(const Report& report) const;
  void let_go() { held_.reset(); }

 private:
  void look_afresh() const;

  Session& session_;
  std::string root_;
  layout::StepFiles files_;
  std::string title_;
  int rank_;
  bool may_begin_;  ///< without having waited for anybody
  std::optional<std::chrono::milliseconds> lead_after_;
  Clock::TimePoint begin_;
  LeaseKeeper keeper_;
  std::unique_ptr<AwaitedLease> lease_;
  std::unique_ptr<HeldLock> held_;
  bool was_led_ = false;
  std::optional<Clock::TimePoint> free_since_;  ///< since it was led
  std::optional<LockWait> wait_;
  mutable std::string seen_;  ///< which file it was that record() read
};

}  // namespace fvprefetch
