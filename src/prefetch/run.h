// The doors of prefetch.h with the seams open: what tests call with a scripted network and a clock
// of their own.
#pragma once

#include "fvprefetch/prefetch.h"
#include "prefetch/session.h"

namespace fvprefetch {

[[nodiscard]] Report prefetch_with(const Manifest& manifest, const Options& options,
                                   const Seams& seams);
[[nodiscard]] Result<Manifest> lock_with(const Manifest& manifest, const Options& options,
                                         const Seams& seams);

}  // namespace fvprefetch
