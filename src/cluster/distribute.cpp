#include "cluster/distribute.h"

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/little_endian.h"
#include "base/posix.h"
#include "base/try.h"
#include "prefetch/session.h"

namespace fvprefetch {
namespace {

// The broadcast: a header of 16 bytes, little-endian, and the report.
//
//   u32 version   of the protocol; ranks of one job run one program, unless somebody mixed two
//   u32 code      the report's exit code, so that a rank which cannot read the rest knows that much
//   u64 length    of the report in bytes
//
// The report is the JSON that --json prints. Refused: a binary form, which would be a second format
// to keep in step, and the report alone, which a rank of another version would misread.
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 16;

void append_le(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>((value >> (8 * i)) & 0xffU));
}

std::string to_wire(const Report& report) {
  const std::string json = to_json(report);
  std::string wire;
  wire.reserve(kHeaderBytes + json.size());
  append_le(wire, kVersion, 4);
  append_le(wire, static_cast<std::uint32_t>(exit_code(report.code())), 4);
  append_le(wire, json.size(), 8);
  return wire + json;
}

Result<Report> from_wire(std::string_view wire) {
  if (wire.size() < kHeaderBytes) {
    return fail(ErrorCode::kInternal, "rank 0 sent " + std::to_string(wire.size()) +
                                          " bytes where a report was expected");
  }
  if (const auto version = little_endian(wire, 0, 4); version != kVersion) {
    return fail(ErrorCode::kInternal,
                "rank 0 speaks version " + std::to_string(version) +
                    " of the protocol, this rank " + std::to_string(kVersion),
                "start the same fvprefetch on every node");
  }
  const std::string_view json = wire.substr(kHeaderBytes);
  if (const auto length = little_endian(wire, 8, 8); length != json.size()) {
    return fail(ErrorCode::kInternal, "rank 0's report has " + std::to_string(length) + " bytes, " +
                                          std::to_string(json.size()) + " arrived");
  }
  FVP_TRY(Report report, report_from_json(json));
  if (const auto code = little_endian(wire, 4, 4);
      code != static_cast<std::uint32_t>(exit_code(report.code()))) {
    return fail(ErrorCode::kInternal, "rank 0's report disagrees with its header on the exit code");
  }
  return report;
}

// --- Visibility ---------------------------------------------------------------------------------

std::string parent_of(const std::string& path) {
  const auto slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// A network file system may answer from what it remembers ("there is no such name") until the
// directory's attributes run out, 30 to 60 s on NFS. Reading the directory makes it ask the
// server. Begins at the deepest directory that is there at all.
void list_again(std::string path) {
  for (;;) {
    const std::string directory = parent_of(path);
    const auto names = posix::list(directory);
    if ((names && !names->empty()) || directory == "/" || directory == ".") return;
    path = directory;
  }
}

// The same for a link whose target does not show: Hub snapshots are links into blobs/, and blobs
// may be links into a shared store.
void list_again_along_links(std::string path) {
  for (int level = 0; level < 3; ++level) {
    list_again(path);
    const auto target = posix::read_link(path);
    if (!target || target->empty()) return;
    path = target->front() == '/' ? *target : parent_of(path) + "/" + *target;
  }
}

// What is not as the report says, with the path to look at; nullopt when all is well.
struct Blemish {
  std::string path;
  std::string what;
  /// Waiting does not help: no right, or something else in the way. (EIO may pass, when a server
  /// comes back.)
  std::optional<Error> lasting;
};

Blemish blemish_of(const std::string& path, const Error& error) {
  Blemish blemish{path, error.message, std::nullopt};
  if (error.code == ErrorCode::kPermission || error.code == ErrorCode::kUsage) {
    blemish.lasting = error;
    blemish.lasting->code = ErrorCode::kPermission;
  }
  if (const auto target = posix::read_link(path); target && error.code == ErrorCode::kNotFound) {
    blemish.what = "it is a link to `" + *target + "`, which is not there";
  }
  return blemish;
}

Blemish not_there(const std::string& path) {
  Error error;
  error.code = ErrorCode::kNotFound;
  error.message = "it is not there";
  return blemish_of(path, error);
}

std::optional<Blemish> check_access(const std::string& path) {
  const Status readable = posix::check_readable(path);
  return readable ? std::nullopt : std::optional(blemish_of(path, readable.error()));
}

std::optional<Blemish> check_file(const std::string& path, std::optional<std::uint64_t> size) {
  // open() is where NFS asks the server about a file; stat() alone may be answered from memory.
  const auto file = posix::open_with_info(path);
  if (!file) {
    auto denied = check_access(path);  // which says whose right is missing
    return denied ? denied : blemish_of(path, file.error());
  }
  if (size && file->info.size != *size) {
    return Blemish{
        path,
        "it has " + std::to_string(file->info.size) + " bytes, expected " + std::to_string(*size),
        std::nullopt};
  }
  return std::nullopt;
}

struct Tally {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  std::optional<Blemish> blemish;  ///< a link that leads nowhere yet, or a file that is closed

  void add(Blemish found) {
    if (!blemish || !blemish->lasting) blemish = std::move(found);
  }
};

// All files below `directory`; links to files are followed, links to directories are not walked.
void tally(const std::string& directory, Tally& sum) {
  const auto names = posix::list(directory);
  if (!names) return sum.add(blemish_of(directory, names.error()));
  for (const std::string& name : *names) {
    const std::string path = std::string(directory).append("/").append(name);
    const auto info = posix::stat(path);
    if (!info || !*info) {
      sum.add(info ? not_there(path) : blemish_of(path, info.error()));
    } else if (auto denied = check_access(path)) {
      sum.add(*std::move(denied));
    } else if ((*info)->regular) {
      ++sum.files;
      sum.bytes += (*info)->size;
    } else if ((*info)->directory && !posix::read_link(path)) {
      tally(path, sum);
    }
  }
}

std::optional<Blemish> check_snapshot(const EntryReport& entry, HitCheck hits) {
  const auto names = posix::list(entry.path);
  if (!names) return blemish_of(entry.path, names.error());
  if (entry.state == EntryState::kHit && hits == HitCheck::kOneFile) {
    // Complete for longer than this job lives, and looked at by rank 0; one file tells whether this
    // node sees the place, and lets this user in.
    if (entry.files == 0) return std::nullopt;
    if (names->empty()) return Blemish{entry.path, "it holds no file", std::nullopt};
    const std::string first = entry.path + "/" + names->front();
    if (!posix::exists(first)) return not_there(first);
    return check_access(first);
  }
  Tally sum;
  tally(entry.path, sum);
  // The folder may hold more than this entry asked for, and links of other entries that lead
  // nowhere: they count only when something is missing.
  if (sum.files >= entry.files && sum.bytes >= entry.bytes_total) return std::nullopt;
  if (sum.blemish) return sum.blemish;
  return Blemish{entry.path,
                 "it holds " + std::to_string(sum.files) + " files of " +
                     std::to_string(sum.bytes) + " bytes, expected " + std::to_string(entry.files) +
                     " of " + std::to_string(entry.bytes_total),
                 std::nullopt};
}

std::optional<Blemish> check(const EntryReport& entry, HitCheck hits) {
  switch (entry.kind) {
    case EntryKind::kUrl:
    case EntryKind::kHubFile: {
      const bool sized = entry.files == 1 && entry.bytes_total > 0;
      return check_file(entry.path, sized ? std::optional(entry.bytes_total) : std::nullopt);
    }
    case EntryKind::kArchive:
    case EntryKind::kHubSnapshot:
      return check_snapshot(entry, hits);
    case EntryKind::kPath:
      break;
  }
  // A path of the user's own: anything may be there, so it is looked at and not opened.
  const auto info = posix::stat(entry.path);
  if (!info) return blemish_of(entry.path, info.error());
  if (!*info) return not_there(entry.path);
  return check_access(entry.path);
}

// What this node does not see, by importance.
struct Unseen {
  std::optional<Error> required;
  std::optional<Error> optional;
};

Error to_error(const EntryReport& entry, const Blemish& blemish, const std::string& node,
               std::chrono::milliseconds timeout) {
  Error error;
  if (blemish.lasting) {
    error = *blemish.lasting;
    error.message = "node `" + node + "` cannot use `" + blemish.path + "`: " + blemish.what;
  } else {
    error.code = ErrorCode::kNotVisible;
    error.message = "node `" + node + "` does not see `" + blemish.path + "` after " +
                    std::to_string(timeout.count()) + " ms: " + blemish.what;
    if (posix::is_link(blemish.path)) {  // what is seen is on a mount that works
      error.hint =
          "raise --visible-timeout; if it stays so, a folder of the cache was moved or is itself a "
          "link: remove the dangling link and run again";
    }
  }
  error.context = {"entry `" + entry.name + "`"};
  error.subject = entry.path;  // by which every rank finds the entry in its report
  return error;
}

Unseen look(const Report& report, const std::string& node, const VisibilityCheck& how) {
  Clock& clock = how.clock != nullptr ? *how.clock : real_clock();
  std::vector<const EntryReport*> waiting;
  for (const EntryReport& entry : report.entries) {
    if (succeeded(entry.state)) {
      waiting.push_back(&entry);
    }
  }

  using std::chrono::milliseconds;
  const Clock::TimePoint begin = clock.now();
  const Clock::TimePoint deadline = begin + how.timeout;
  Clock::TimePoint say = begin + std::chrono::seconds(2);
  milliseconds pause{100};
  std::vector<Blemish> blemishes;
  Unseen unseen;
  const auto note = [&](const EntryReport& entry, const Blemish& blemish) {
    std::optional<Error>& slot = entry.optional ? unseen.optional : unseen.required;
    if (!slot) slot = to_error(entry, blemish, node, how.timeout);
  };
  for (;;) {
    blemishes.clear();
    std::vector<const EntryReport*> still;
    for (const EntryReport* entry : waiting) {
      auto blemish = check(*entry, how.hits);
      if (blemish && blemish->lasting) {
        note(*entry, *blemish);
      } else if (blemish) {
        still.push_back(entry);
        blemishes.push_back(*std::move(blemish));
      }
    }
    waiting = std::move(still);
    if (unseen.required) return unseen;
    if (waiting.empty() || clock.now() >= deadline) break;
    const Clock::TimePoint next = std::min(clock.now() + pause, deadline);
    while (clock.now() < next) {
      if (auto stop = how.must_stop ? how.must_stop() : std::nullopt) return {std::move(stop), {}};
      const Clock::TimePoint slice = clock.now() + milliseconds(100);
      clock.sleep_until(how.must_stop ? std::min(slice, next) : next, {});
    }
    if (how.observer != nullptr && clock.now() >= say) {
      say = clock.now() + std::chrono::seconds(30);
      const auto waited = std::chrono::duration_cast<milliseconds>(clock.now() - begin);
      how.observer->on_event(Waiting{
          "node `" + node + "` to see `" + blemishes.front().path + "`: " + blemishes.front().what,
          waited});
    }
    pause = std::min(pause * 2, milliseconds{2'000});
    for (const Blemish& blemish : blemishes) list_again_along_links(blemish.path);
  }

  for (std::size_t i = 0; i < waiting.size(); ++i) note(*waiting[i], blemishes[i]);
  return unseen;
}

void mark_failed(Report& report, const Error& error) {
  if (error.subject.empty()) return;
  for (EntryReport& entry : report.entries) {
    if (entry.path != error.subject || entry.state == EntryState::kFailed) continue;
    entry.state = EntryState::kFailed;
    entry.path.clear();
    entry.error = error;
  }
}

// What a node does not see fails the report.
void apply(Report& report, const std::optional<Error>& required,
           const std::optional<Error>& optional) {
  if (optional) {
    mark_failed(report, *optional);
    if (report.ok()) {
      report.error = *optional;
      report.error->code = ErrorCode::kPartial;
    }
  }
  if (required) {
    mark_failed(report, *required);
    report.error = *required;
  }
}

// A run that failed is reported at once: what it left is not going to be used.
bool usable(const Report& report) {
  return report.ok() || report.code() == ErrorCode::kPartial;
}

VisibilityCheck check_of(const DistributeOptions& options) {
  return {options.hits, options.visible_timeout, options.clock, options.attendance.must_stop,
          options.observer};
}

// The same collectives on every rank, whatever the report says.
Result<Report> settle_visibility(Collective& ranks, Report report,
                                 const DistributeOptions& options) {
  Unseen unseen;
  if (usable(report) && ranks.node_leader()) {
    auto looked =
        attended(ranks, options.attendance,
                 [report, node = ranks.node(), how = check_of(options)]() -> Result<Unseen> {
                   return look(report, node, how);
                 });
    if (looked) {
      unseen = *std::move(looked);
    } else {
      unseen.required = looked.error();
    }
  }
  FVP_CHECK_OK(ranks.await_work(options.attendance.vigil));
  const WaitLimit limit(ranks, options.attendance.vigil.patience);
  FVP_TRY(const auto required, first_failure(ranks, unseen.required));
  FVP_TRY(const auto optional, first_failure(ranks, unseen.optional));
  apply(report, required, optional);
  return report;
}

Result<Report> run(Collective& ranks, const std::function<Report()>& work,
                   const DistributeOptions& options) {
  // A rank that left here by an exception would leave all others waiting. What cannot even be
  // written down goes out as no bytes, which every rank understands alike.
  std::string wire;
  std::optional<Report> own;  // of a rank that is alone: it need not be told
  const bool one_node = ranks.nodes() == 1;
  if (ranks.rank() == 0) {
    auto report = attended(
        ranks, options.attendance,
        [work, one_node, node = ranks.node(), how = check_of(options)]() -> Result<Report> {
          Report done = work();
          if (!one_node || !usable(done)) return done;
          const Unseen unseen = look(done, node, how);
          apply(done, unseen.required, unseen.optional);
          return done;
        });
    if (!report) report = failed_report(report.error());
    report->ranks = ranks.size();
    report->nodes = ranks.nodes();
    report->launcher = options.launcher;
    if (ranks.size() == 1) {
      own = *std::move(report);
    } else {
      wire = guard([&]() -> Result<std::string> { return to_wire(*report); }).value_or("");
    }
  }
  FVP_CHECK_OK(ranks.await_work(options.attendance.vigil));
  const WaitLimit limit(ranks, options.attendance.vigil.patience);
  // Rank 0 reads its own words as well: the reports are equal because they have one source.
  FVP_TRY(const std::string received, ranks.broadcast(std::move(wire)));
  // No rank-dependent return: the bytes are the same everywhere, so all fail here or none.
  FVP_TRY(Report report, own ? Result<Report>(*std::move(own)) : from_wire(received));
  if (one_node) return report;
  if (options.fill) report = options.fill(std::move(report));
  return settle_visibility(ranks, std::move(report), options);
}

}  // namespace

DistributeOptions distribute_options(const Options& options, Clock::TimePoint begin) {
  DistributeOptions how;
  how.visible_timeout = options.visible_timeout;
  how.hits = options.visible_check;
  how.observer = options.observer;
  how.attendance.vigil.patience = options.rank_timeout;
  how.attendance.vigil.signal = [options] {
    if (!options.stop.stop_requested()) return 0;
    return options.stop_signal ? options.stop_signal() : SIGTERM;
  };
  how.attendance.vigil.on_wait = [observer = options.observer](const std::string& whom,
                                                               std::chrono::milliseconds waited) {
    if (observer != nullptr) observer->on_event(Waiting{whom, waited});
  };
  how.attendance.must_stop = [options, begin] {
    return why_stop(options, begin, real_clock().now());
  };
  return how;
}

std::optional<Error> unseen_here(const Report& report, const VisibilityCheck& check) {
  Unseen unseen = look(report, posix::host_name(), check);
  return unseen.required ? std::move(unseen.required) : std::move(unseen.optional);
}

Report distribute(Collective& ranks, const std::function<Report()>& work,
                  const DistributeOptions& options) {
  auto report = guard([&] { return run(ranks, work, options); });
  if (report) return *std::move(report);
  Report failed = failed_report(std::move(report).error());
  failed.ranks = ranks.size();
  failed.nodes = ranks.nodes();
  failed.launcher = options.launcher;
  return failed;
}

}  // namespace fvprefetch
