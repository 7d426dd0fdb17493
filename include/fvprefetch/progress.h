// What a run tells while it works. The library itself prints nothing: it calls an Observer.
//
// Threads: events come one after the other, from the thread that called prefetch() or verify() (on
// rank 0). An observer must return quickly and must not call back into fvprefetch.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "fvprefetch/error.h"

namespace fvprefetch {

/// All that has to be fetched, or read again by verify(), is known: bytes (where told) and files.
struct FetchPlanned {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  bool bytes_exact = true;  ///< false when a server did not tell a size
  bool from_disk = false;   ///< to be read and hashed; the bytes that arrive come from the caches
};
struct FileStarted {
  std::string entry;
  std::string path;
  std::optional<std::uint64_t> size;
};
/// Sent a few times a second at most while bytes arrive.
struct BytesArrived {
  std::uint64_t bytes_done = 0;   ///< over all files of the run
  std::uint64_t bytes_total = 0;  ///< as known now
  std::uint64_t files_done = 0;
  std::uint64_t files_total = 0;
  bool bytes_exact = true;  ///< false while a server has not told a size
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
                           LockWaited, Warned, EntryDone>;

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_event(const Event& event) = 0;
};

}  // namespace fvprefetch
