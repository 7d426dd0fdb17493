// Many files, read and hashed by a few threads at once: one core hashes about as fast as one disk
// of a laptop reads, and a parallel file system is faster than both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/digest.h"
#include "prefetch/session.h"

namespace fvprefetch {

struct HashJob {
  std::string path;
  Digest::Kind kind = Digest::Kind::kSha256;
  std::uint64_t size =
      0;  ///< as seen; the largest are begun first, so that none is left to the end
};

struct HashResults {
  /// One for each job, in their order. A job that the end of the run cut short, or that was not
  /// begun, has that error.
  std::vector<Result<HashedFile>> files;
  std::uint64_t bytes_read = 0;
  std::optional<Error> stopped;  ///< why the run had to end before all was read
};

/// Blocks until all is read or the session has to stop; workers then end within a piece of 4 MiB.
/// `tell` (bytes read, jobs done) is called on the calling thread a few times a second, and once at
/// the end.
[[nodiscard]] HashResults hash_all(const std::vector<HashJob>& jobs, const Session& session,
                                   const std::function<void(std::uint64_t, std::size_t)>& tell);

}  // namespace fvprefetch
