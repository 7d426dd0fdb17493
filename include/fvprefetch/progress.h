// What a run tells while it works. The library itself prints nothing: it calls an Observer.
//
// Threads: events come one after the other: from the thread that called prefetch() or verify(), in
// an MPI job (mpi.h) from that one or from a second thread. An observer must return quickly and
// must not call back into fvprefetch.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch {

/// What bytes arrive for. A run that does one after the other plans each.
enum class Work {
  kFetching,
  kVerifying,  ///< read again from the caches, by verify()
  kCopying     ///< from the caches to the nodes' own disks
};
/// All that has to be fetched, verified or copied is known: bytes (where told) and files.
struct FetchPlanned {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  bool bytes_exact = true;  ///< false when a server did not tell a size
  Work work = Work::kFetching;
};
struct FileStarted {
  std::string entry;
  std::string path;
  std::optional<std::uint64_t> size;
};
/// A file on its way: its bytes arrive, or are all there and it is being put in its place.
struct ArrivingFile {
  std::string entry;                         ///< name of the first entry that wants it
  std::string path;                          ///< as in FileStarted
  std::uint64_t bytes_done = 0;              ///< bytes that are there, an earlier run's included
  std::optional<std::uint64_t> bytes_total;  ///< its size in bytes; empty while nobody has told it
};
/// Sent ten times a second at most while bytes arrive. Rates and times left are the observer's to
/// reckon, from one event to the next.
struct BytesArrived {
  /// Over all files of the run. What a file had when it failed or was left goes on to count; fewer
  /// than before are told only while an attempt that was thrown away is made again.
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;  ///< as known now
  std::uint64_t files_done = 0;
  std::uint64_t files_total = 0;
  bool bytes_exact = true;  ///< false while a server has not told a size
  /// In the order they were begun; as many as Options::max_active at most. Empty in verify().
  std::vector<ArrivingFile> arriving{};
};
struct FileFinished {
  std::string entry;
  std::string path;
  std::uint64_t bytes = 0;
};
/// An attempt failed and will be made again; not an error of the run.
struct FileRetried {
  std::string entry;
  std::string path;
  std::string reason;
  std::chrono::milliseconds delay{0};
  std::string address = {};  ///< another one of the same file that is asked then; empty: the same
};
/// Somebody else holds the lock of a file that is needed. Repeated about once a minute.
struct LockWaited {
  std::string entry;
  std::string path;
  std::string holder;  ///< "node17 pid 4242 job 881, since 12:03:11"
  std::chrono::milliseconds waited{0};
  std::uint64_t bytes_done = 0;  ///< of the holder's download, as far as it can be seen
  std::optional<std::uint64_t> bytes_total;
};
/// Something other than a lock is waited for. After 2 s, then every 30 s.
struct Waiting {
  std::string what;  ///< "node `n7` to see `/cache/a.pth`: it is not there"
  std::chrono::milliseconds waited{0};
};
/// Something worth telling once that does not fail the run.
struct Warned {
  std::string entry;  ///< may be empty
  std::string message;
};
struct EntryDone {
  std::string entry;
  std::string state;  ///< as in the report
  std::string path;
  std::optional<Error> error;
};

using Event = std::variant<FetchPlanned, FileStarted, BytesArrived, FileFinished, FileRetried,
                           LockWaited, Waiting, Warned, EntryDone>;

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_event(const Event& event) = 0;
};

}  // namespace fvprefetch
