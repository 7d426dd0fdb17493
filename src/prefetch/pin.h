// Pins: an entry is pinned when the manifest alone says which bytes it is. pin.cpp makes a manifest
// so (the public lock()) and checks that one is (--frozen).
#pragma once

#include "fvprefetch/error.h"
#include "fvprefetch/manifest.h"
#include "prefetch/session.h"

namespace fvprefetch {

/// With Options::frozen, kUsage that names every entry which is not pinned; else success. Looks at
/// paths; no request.
[[nodiscard]] Status check_frozen(const Manifest& manifest, const Session& session);

}  // namespace fvprefetch
