// stdout: results, and nothing else. A reader that is gone or a full disk is an error, not silence.
#pragma once

#include <string_view>

#include "fvprefetch/error.h"

namespace fvprefetch::cli {

/// Opens what the caller has closed of descriptors 0, 1 and 2, so that no file of ours gets such a
/// number and is written over. A closed stdout stays one that cannot be written.
void ensure_standard_descriptors();

/// Writes all of `text`. Blocks on the reader. kNoSpace; kSignalBase + SIGPIPE when nobody reads
/// any more; kUsage when it is closed; else kInternal.
[[nodiscard]] Status write_results(int fd, std::string_view text);

}  // namespace fvprefetch::cli
