// The loop that brings missing files: try the lock, look again, download, publish, let go.
//
// The lock of a destination (a snapshot, a URL file) is held from its first missing file to its
// last; the lock of a blob only while that blob is on its way, and at most `max_active` at once.
// What somebody else is fetching is put aside and looked at again later, never waited for
// (ruling 5); most waiters find it present and never take its lock.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fvprefetch/report.h"
#include "prefetch/session.h"
#include "prefetch/target.h"

namespace fvprefetch {

/// One file to bring, and the entries that want it (indices into the manifest).
struct FetchJob {
  std::unique_ptr<Target> target;
  Download download;                ///< `partial` is filled by the loop
  std::set<std::string> fastvideo;  ///< by which keys FastVideo locks what `entries` ask for
  std::vector<std::size_t> entries;
};

/// How one job ended, told as soon as it did.
struct FetchOutcome {
  Status status;
  bool fetched = false;                  ///< false: somebody else had brought it
  std::string adopted_by;                ///< then: how it is known to be right
  std::map<std::size_t, Error> refused;  ///< entries that failed although the file is there
  std::uint64_t bytes = 0;
  std::uint64_t resumed = 0;  ///< of `bytes`: those that an earlier run had brought
  std::uint64_t requests = 0;
  std::uint64_t received = 0;  ///< bytes that came from the network, whatever became of them
};

/// What the end of a job means for the others.
enum class Others { kAsBefore, kMayBeUnwanted };

/// Who listens to the loop.
class FetchListener {
 public:
  virtual ~FetchListener() = default;
  /// kMayBeUnwanted when wanted() may answer otherwise than before: an entry has failed.
  virtual Others on_done(const FetchJob& job, const FetchOutcome& outcome) = 0;
  /// Asked before a job is begun, and of running ones: false drops it without an outcome.
  virtual bool wanted(const FetchJob& job) const = 0;
  [[nodiscard]] virtual std::string entry_name(std::size_t entry) const = 0;
};

/// Brings all jobs, in order as far as locks allow. Returns when every job is done or dropped; when
/// the run has to stop, every open job ends with that error.
void fetch_all(std::vector<FetchJob> jobs, Session& session, FetchListener& listener,
               LockReport& lock_report);

}  // namespace fvprefetch
