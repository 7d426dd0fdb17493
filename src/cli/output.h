// stdout: results, and nothing else. A reader that is gone or a full disk is an error, not silence.
#pragma once

#include <string_view>

#include "base/digest.h"
#include "base/posix.h"
#include "fvprefetch/error.h"

namespace fvprefetch::cli {

/// Opens what the caller has closed of descriptors 0, 1 and 2, so that no file of ours gets such a
/// number and is written over. A closed stdout stays one that cannot be written.
void ensure_standard_descriptors();

/// Standard output for results alone: a private copy of descriptor 1, which leads to standard error
/// from then on, where MPI's libraries and their plug-ins may print what they like.
[[nodiscard]] posix::Fd take_standard_output();

/// Writes all of `text`. Blocks on the reader until `must_stop` tells an error.
/// kNoSpace; kSignalBase + SIGPIPE when the reader is gone; kUsage when it is closed; else
/// kInternal.
[[nodiscard]] Status write_results(int fd, std::string_view text, const StopCheck& must_stop = {});

}  // namespace fvprefetch::cli
