// What of our private files in a cache is an orphan: nobody writes it any more, and nobody came
// back for it within a day.
//
//   its owner lives on this host                 in use, whatever its age
//   any of it changed within the last day        young, whoever may own it
//   data and a journal that can be read          unfinished: the next run could go on with it
//   data alone, a journal alone, a record,       useless: nobody ever will
//   a directory that an archive is unpacked into
//
// The owner's death alone makes nothing an orphan: a job that was killed comes back. Nor does a
// host that cannot be asked keep anything: it has a day to show that it lives. A lock that somebody
// holds protects besides; taking it is the remover's part.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/process.h"
#include "cache/leftovers.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

constexpr std::chrono::hours kYouth(24);

/// What can be seen of a leftover.
struct Signs {
  bool data = false;              ///< there, and a file (a directory) as we make it
  bool journal = false;           ///< there, and a file as we make it
  bool legible = false;           ///< the journal is one of this version
  std::int64_t changed_ns = 0;    ///< the last change of either, nanoseconds since 1970
  std::optional<Liveness> owner;  ///< as the journal tells; nullopt: it has none
  std::uint64_t data_bytes = 0;   ///< that it takes on the disk
  std::uint64_t journal_bytes = 0;
};

enum class Fate {
  kNothing,     ///< not there, or not made by us
  kInUse,       ///< its owner lives
  kYoung,       ///< changed within kYouth
  kUnfinished,  ///< an orphan that the next download of that file could still go on with
  kUseless      ///< an orphan that nobody can use
};

/// Pure. `now_ns`: nanoseconds since 1970, by the clock that set the files' times.
[[nodiscard]] Fate judge(const Signs& signs, std::int64_t now_ns);

[[nodiscard]] constexpr bool is_orphan(Fate fate) {
  return fate == Fate::kUnfinished || fate == Fate::kUseless;
}

/// Looks at it. Reads only.
[[nodiscard]] Result<Signs> look_at(const Leftover& leftover);

/// Now by this host's clock and by that of the file system, whichever is earlier: a wrong clock
/// makes nothing old. Makes and removes the file `probe`; where that cannot be, this host's clock
/// alone.
[[nodiscard]] std::int64_t careful_now(const std::string& probe);

}  // namespace fvprefetch
