// The front door: bring every checkpoint of a manifest to where it can be opened.
//
//   #include <fvprefetch/prefetch.h>
//
//   auto manifest = fvprefetch::load_manifest("manifest.json");
//   if (!manifest) return fvprefetch::exit_code(manifest.error().code);
//   fvprefetch::Report report = fvprefetch::prefetch(*manifest);
//   for (const auto& entry : report.entries) use(entry.name, entry.path);
//   return fvprefetch::exit_code(report.code());
//
// The functions block until all is done, use the calling thread (verify: some more, to hash), print
// nothing, install no signal handler and never exit. They know nothing of MPI: in an MPI program
// call them on one rank, or use mpi.h, which runs them on rank 0 and gives every rank the same
// report.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "fvprefetch/error.h"
#include "fvprefetch/manifest.h"
#include "fvprefetch/plan.h"
#include "fvprefetch/progress.h"
#include "fvprefetch/pruning.h"
#include "fvprefetch/report.h"
#include "fvprefetch/verification.h"

namespace fvprefetch {

/// Which lock saves double work. Correctness never depends on it: files are published by rename.
enum class LockMode {
  kAuto,   ///< flock and, inside it, a lease; each alone where the other does not work
  kFlock,  ///< the kernel's alone, on the files of Python's clients
  kLease,  ///< a name in the cache with a heartbeat alone: true between nodes; flock is not asked
  kNone
};

/// Whose the caches are, in a job on several nodes.
enum class Scope {
  kAuto,    ///< found out: by the random id of a receipt
  kShared,  ///< all nodes'
  kNode     ///< each node's own: filled from rank 0's where they are not the same after all
};

/// What a node looks at of a snapshot that was there before the job. (Of what the job brought it
/// always looks at every file.)
enum class HitCheck {
  kOneFile,  ///< enough to see that the node has the place
  kAll
};

/// Looks up an environment variable; tests pass a table of their own.
using EnvironmentLookup = std::function<std::optional<std::string>(std::string_view)>;

struct Options {
  std::string cache_dir;     ///< eval cache; empty: FASTVIDEO_EVAL_CACHE and so on
  std::string hf_cache_dir;  ///< Hub cache; empty: HF_HUB_CACHE and so on
  /// Looked into before these, in this order: what is complete there is used and not fetched. Each
  /// is a directory with hub/ and eval/ below it, or one that is both caches itself. Never written.
  std::vector<std::string> extra_caches;
  /// No socket is opened; what is missing is listed (kOfflineMissing). Also HF_HUB_OFFLINE.
  bool offline = false;
  /// Ask the Hub again for branches that the cache has resolved already; replace URL files that
  /// another source left, or for which neither a receipt nor a pinned digest vouches; fetch
  /// archives again (`unpack`) that the manifest does not pin by sha256.
  bool refresh = false;
  /// Hash what others put into the caches, wherever a digest is known of it, before it counts as
  /// there; a receipt keeps that it was done.
  bool verify_foreign = false;
  /// Every entry must be pinned: a Hub entry by a commit and `files`, a URL by `sha256`; a path
  /// must exist. Else kUsage, naming all that are not, before anything is done. Excludes `refresh`.
  bool frozen = false;
  /// Go on after a required entry failed; the first failed one still decides the error.
  bool keep_going = false;
  /// verify() only: fetch the corrupt and the missing files. Not when offline.
  bool repair = false;
  /// prune() only: say what would be removed, and remove nothing.
  bool dry_run = false;

  LockMode lock = LockMode::kAuto;
  /// Longest wait for a lock. Given: absolute. Not given: 30 minutes without any progress of the
  /// holder.
  std::optional<std::chrono::milliseconds> lock_timeout;
  /// A lease whose holder is silent for so long is taken over; its holder says something twelve
  /// times as often. All who share a cache should have the same. At least a second.
  std::chrono::milliseconds lease_timeout{60'000};
  /// Longest time for the whole run.
  std::optional<std::chrono::milliseconds> deadline;
  /// A transfer that brings no byte for this long, or less than 1 KiB/s over it, is begun again.
  /// Not given: HF_HUB_DOWNLOAD_TIMEOUT, else a minute.
  std::optional<std::chrono::milliseconds> stall_timeout;
  int retries = 5;     ///< further attempts per file after a transient failure
  int max_active = 8;  ///< files that are transferred, and locked, at once
  /// Connections for one file at most; how many pay is found out by trying, from one on.
  int connections = 8;
  /// Bytes per second of all connections together.
  std::optional<std::uint64_t> limit_rate;

  /// Begin only when what is missing fits the free space of the caches' file systems, as far as
  /// sizes are told and the file system's word can be believed.
  bool space_check = true;

  // For a job of several ranks (mpi.h, and the command under a launcher); prefetch() alone does not
  // look at them.

  /// A rank of which no heartbeat is heard for so long is lost (kNetwork, reason "peer_lost").
  std::chrono::milliseconds rank_timeout{120'000};
  /// Longest wait for files to show on all nodes (kNotVisible).
  std::chrono::milliseconds visible_timeout{60'000};
  HitCheck visible_check = HitCheck::kOneFile;

  Scope scope = Scope::kAuto;
  /// Copies what is there to each node's own disk, below this absolute path: DIR/hub is a Hub cache
  /// and DIR/eval an eval cache. Empty: nowhere.
  std::string stage;
  /// A node that cannot have its copy is everybody's failure; else it uses the shared one.
  bool stage_required = false;
  /// Fewer nodes with a copy are everybody's failure.
  int min_nodes = 0;

  Observer* observer = nullptr;  ///< not owned; may be null
  std::stop_token stop;          ///< asks the run to end with `stop_signal`
  /// The signal to report when `stop` was asked; read after `stop` fires. Default SIGTERM.
  std::function<int()> stop_signal;
  EnvironmentLookup environment;  ///< empty: the process environment
};

/// Fetches what is missing. A warm cache costs no request, no lock and no write.
/// Every failure is in the report: Report::error is the first failed required entry in manifest
/// order. Several threads or processes may run it at once on the same cache.
[[nodiscard]] Report prefetch(const Manifest& manifest, const Options& options = {});

/// What prefetch() would do. Asks servers for sizes unless offline; writes nothing, locks nothing.
[[nodiscard]] Plan plan(const Manifest& manifest, const Options& options = {});

/// What is there: complete, partial (how far), missing, being fetched (by whom). No request is
/// sent and nothing is written.
[[nodiscard]] Plan status(const Manifest& manifest, const Options& options = {});

/// `manifest` with every entry pinned to what prefetch() would take now; manifest_text() has it as
/// a file. A Hub entry gets its commit and `files`, a single file its size and sha256 too: from the
/// cache where that knows the branch (unless Options::refresh), else two requests per repository. A
/// URL keeps its sha256 and size, or gets those of the cached file, which is hashed when no receipt
/// tells, unless it is empty, is no checkpoint by its looks, or has another size than its server
/// tells (one request each, not offline); kOfflineMissing names all that have neither. Existing
/// paths stay as they are. Writes nothing, locks nothing; the same manifest and sources give the
/// same result.
[[nodiscard]] Result<Manifest> lock(const Manifest& manifest, const Options& options = {});

/// Where `fvprefetch lock` writes: "m.json" -> "m.lock.json".
[[nodiscard]] std::string lock_path(const std::string& manifest_path);

/// Reads and hashes every file that is there, several at once, against what the manifest, receipts
/// and the Hub cache tell. A missing file is an error here, whatever `offline` says. Without
/// `repair` no request is sent, nothing is written and nothing locked. With it the corrupt and the
/// missing files, and only these, are fetched as prefetch() does: under their locks, checked while
/// they come, published by rename over the name alone. `refresh` is ignored: what is there is
/// looked at. Every failure is in the result. Blocks as long as reading all of it takes; ends early
/// on `stop` and at the deadline, with what was found so far.
[[nodiscard]] Verification verify(const Manifest& manifest, const Options& options = {});

/// Removes from the eval cache, TORCH_HOME (where it is set) and the Hub cache what killed runs of
/// ours left: unfinished downloads, their journals, other private files. Never what changed within
/// the last day, what a living process of this host owns, or what lies below a held lock; never a
/// lock file, another tool's file, or anything behind a symbolic link. Takes the lock of each
/// target, without waiting, while it removes; Options::dry_run writes nothing. Sends no request.
/// kPermission and so on when something that should go could not; the rest is removed all the same.
/// Ends early on `stop` and at the deadline. Blocks as long as it takes to list the caches.
[[nodiscard]] Pruning prune(const Options& options = {});

/// The same of what belongs to the manifest: the repositories of its Hub entries, the files of its
/// URL entries (whose folders may be reached through symbolic links, as the files are), its lock
/// file. kUsage when the manifest cannot be used.
[[nodiscard]] Pruning prune(const Manifest& manifest, const Options& options = {});

}  // namespace fvprefetch
