// How large a file is on its server, without fetching it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "fvprefetch/error.h"
#include "prefetch/session.h"

namespace fvprefetch {

/// The size in bytes that a server tells of `url` (one HEAD request, and its redirects); nullopt
/// where it does not answer such a question. An address that is wrong, or not reached, is an error
/// as in a fetch. Blocks on the network.
[[nodiscard]] Result<std::optional<std::uint64_t>> ask_size(Session& session,
                                                            const std::string& url);

}  // namespace fvprefetch
