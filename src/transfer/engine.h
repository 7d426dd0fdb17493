// Turns FileSpecs into verified private files: addresses in order, retries, several connections for
// one file while that pays, size and digest checked while the bytes arrive, and refusal of what is
// not the file (a page of HTML, a Git LFS pointer).
//
// The engine is driven by poll(), so that its owner can do something between events (take a lock,
// stop). It never publishes: a finished file lies under its private name, synced by the caller's
// publish. It knows no Hub, no manifest, no lock.
//
// A transient failure is tried again at the same address after a delay, and goes on where it ended
// when a digest is expected (Range) or the server gave a strong validator (Range and If-Range),
// else from the first byte. A digest that is expected decides alone, then a size, then headers.
// What does not agree (size, digest, a page in place of the file) is asked of the next address, or
// of the only one once more. When no address is left the first one's error counts.
//
// A download that ends early (a signal, the deadline, a server that is down, a disk that is full,
// cancel()) leaves its partial and its journal, and the next one of the same file goes on with them
// (partial.h). Wrong bytes are never left.
//
// Threads: its functions on one; digests are made and disks synced on some of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/posix.h"
#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"
#include "transfer/transport.h"
#include "transfer/worker.h"

namespace fvprefetch {

/// Where an unfinished download lies.
struct PartialPlace {
  std::string data;     ///< beside the target
  std::string journal;  ///< empty: none, so that nobody goes on with it
};

struct Download {
  FileSpec spec;
  /// Private file to write, beside the target. Must not exist; the engine creates it.
  std::string partial;
  /// Its journal's name; empty: the partial is removed whenever the download ends early. On success
  /// the caller removes the journal, once the file is published.
  std::string journal;
  /// Unfinished downloads of the same target to go on with. The caller holds the target's lock.
  std::vector<PartialPlace> others;
  /// The file is never text, whatever its name says (an archive that is unpacked).
  bool binary = false;
  Credential credential;
  std::vector<std::pair<std::string, std::string>> headers;
  /// A size that only the server tells is compared with the free space (kNoSpace), before a byte
  /// is written.
  bool space_check = false;
  /// Makes the error of a final HTTP answer that is not 2xx (the Hub has words of its own). Empty:
  /// retry::to_error.
  std::function<Error(const Response&)> explain;
};

using DownloadId = std::uint64_t;

/// A file that arrived whole: size and digest agree with all that was expected.
struct Downloaded {
  posix::Fd fd;            ///< of the partial, open for writing, positioned nowhere
  std::uint64_t size = 0;  ///< bytes
  std::string sha256;      ///< hex; empty when another kind of digest was checked
  std::string etag;        ///< as the server sent it; may be empty
  std::uint64_t requests = 0;
  std::uint64_t bytes_received = 0;  ///< over all attempts
  std::uint64_t resumed = 0;         ///< bytes that an earlier download had brought
  bool size_was_told = true;         ///< else the end of the answer was taken for that of the file
  bool has_journal = false;          ///< one lies there, and tells of this file
};

struct Finished {
  DownloadId id = 0;
  Result<Downloaded> result;
  std::uint64_t requests = 0;
  std::uint64_t bytes_received = 0;
};

/// A transient failure that will be tried again.
struct Retried {
  DownloadId id = 0;
  std::string reason;
  std::chrono::milliseconds delay{0};
  std::string address;  ///< another one, redacted, that is asked then; empty: the same
};

/// Something that the user should know and that fails nothing.
struct Note {
  DownloadId id = 0;
  std::string message;
};

struct EngineOptions {
  std::chrono::milliseconds stall_timeout{60'000};
  /// Further attempts after a transient failure, for each address of a file. An attempt that
  /// continued the file and brought a good piece of it does not count.
  int retries = 5;
  /// For one file. How many there are is found out by trying, from one on.
  int connections = 8;
  /// The run's deadline. A wait that would pass it is not begun: the attempt's error is the file's
  /// (kRateLimited, kNetwork). What still runs then ends with kNetwork.
  Clock::TimePoint deadline = Clock::TimePoint::max();
  /// Makes the digests; null: threads of the engine's own. Tests have it done at once.
  Worker* worker = nullptr;
};

/// kNoSpace, told before a byte is written: `needs` says who needs how many bytes.
[[nodiscard]] Error does_not_fit(const std::string& needs, const std::string& directory,
                                 std::uint64_t free);

class Engine {
 public:
  /// `transport` follows redirects (redirect.h). Nothing is owned.
  Engine(Transport& transport, Clock& clock, EngineOptions options, std::mt19937& random);
  ~Engine();  ///< cancels what runs; what can be gone on with stays
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  DownloadId add(Download download);
  /// Forgets a download: nothing is reported for it. What can be gone on with stays.
  void cancel(DownloadId id);
  /// Works until something finished or was retried, or `until`, or `stop`; returns at once when
  /// nothing is active. `stop` ends the call and not the downloads: destroy the engine for that.
  [[nodiscard]] std::vector<Finished> poll(Clock::TimePoint until, const std::stop_token& stop);
  /// Retries since the last call.
  [[nodiscard]] std::vector<Retried> take_retried();
  /// Notes since the last call.
  [[nodiscard]] std::vector<Note> take_notes();

  [[nodiscard]] std::size_t active() const;
  /// Bytes that lie in the partials now, and of the finished ones.
  [[nodiscard]] std::uint64_t bytes_done() const;
  /// Those of one download that is not finished; 0 of another.
  [[nodiscard]] std::uint64_t bytes_of(DownloadId id) const;
  /// The size of a download that is not finished, as the spec or the server tells it.
  [[nodiscard]] std::optional<std::uint64_t> size_of(DownloadId id) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fvprefetch
