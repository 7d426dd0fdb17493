// What is written down of a Hub entry once all of its files are in place.
#pragma once

#include "fvprefetch/error.h"
#include "prefetch/lookup.h"
#include "prefetch/session.h"
#include "source/resolve.h"

namespace fvprefetch {

/// Tree (when the survey has it), ref and receipt of `source`, of which `survey` has the commit and
/// the files. In this order: what a reader may rely on comes after what it relies on.
[[nodiscard]] Status keep_hub(const HubSource& source, const Survey& survey,
                              const Session& session);

}  // namespace fvprefetch
