#include "prefetch/orphan.h"

#include <algorithm>

#include "base/clock.h"
#include "base/posix.h"
#include "base/try.h"
#include "transfer/journal.h"

namespace fvprefetch {
namespace {

constexpr std::uint64_t kLargestJournal = 1U << 20U;

// A hole takes nothing; nor does what a file system keeps beside the inode.
std::uint64_t on_disk(const posix::FileInfo& info) {
  return std::min(info.size, info.allocated);
}

}  // namespace

Fate judge(const Signs& signs, std::int64_t now_ns) {
  if (!signs.data && !signs.journal) return Fate::kNothing;
  if (signs.owner == Liveness::kAlive) return Fate::kInUse;
  constexpr std::int64_t kYoungNs = std::chrono::nanoseconds(kYouth).count();
  // Of a time before 1970 or after `now` nothing is known: it may have been a moment ago.
  if (signs.changed_ns <= 0 || now_ns - signs.changed_ns < kYoungNs) return Fate::kYoung;
  return signs.data && signs.legible ? Fate::kUnfinished : Fate::kUseless;
}

Result<Signs> look_at(const Leftover& leftover) {
  Signs signs;
  const auto note = [&](const posix::FileInfo& info) {
    signs.changed_ns =
        signs.changed_ns == 0 ? info.mtime_ns : std::max(signs.changed_ns, info.mtime_ns);
  };
  if (!leftover.data.empty()) {
    FVP_TRY(const auto info, posix::lstat(leftover.data));
    const bool link = info && info->link && leftover.kind == Leftover::Kind::kTemporary;
    const bool tree = leftover.kind == Leftover::Kind::kTree;
    const bool probes = info && info->directory && leftover.kind == Leftover::Kind::kProbes;
    if (info && tree && info->directory) {
      signs.data = true;
      signs.data_bytes = posix::allocated_below(leftover.data);
      note(*info);
    } else if (info && !tree && (info->regular || link || probes)) {
      signs.data = true;
      signs.data_bytes = probes ? 0 : on_disk(*info);  // what is in it has no bytes
      note(*info);
    }
  }
  if (!leftover.journal.empty()) {
    FVP_TRY(const auto info, posix::lstat(leftover.journal));
    if (info && info->regular) {
      note(*info);
      const auto text = posix::read_private(leftover.journal, kLargestJournal);
      const auto journal = text && *text ? parse_journal(**text) : std::nullopt;
      // That of an archive's download is a leftover of its own, and no tree is gone on with.
      if (leftover.kind != Leftover::Kind::kTree) {
        signs.journal = true;
        signs.journal_bytes = on_disk(*info);
        signs.legible = journal.has_value();
      }
      if (journal && journal->owner) signs.owner = liveness(*journal->owner);
    }
  }
  return signs;
}

std::int64_t careful_now(const std::string& probe) {
  const std::int64_t clock = wall_clock_ns();
  if (probe.empty()) return clock;
  const auto fd = posix::create_private(probe);
  if (!fd) return clock;
  const auto info = posix::stat(*fd, probe);
  (void)posix::remove_file(probe);  // best effort: a private name, pruned in a day
  return info && info->mtime_ns > 0 ? std::min(clock, info->mtime_ns) : clock;
}

}  // namespace fvprefetch
