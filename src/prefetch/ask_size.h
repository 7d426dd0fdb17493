// How large a file is on its server, without fetching it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "fvprefetch/error.h"
#include "prefetch/session.h"

namespace fvprefetch {

/// The size in bytes that a server tells of `url`: to a HEAD request or, where it does not answer
/// that, to a GET for the first byte. nullopt where neither tells it, or tells it of other bytes
/// than those of the file (encoded ones, or none). An address that is wrong, or not reached, is an
/// error as in a fetch. Blocks on the network.
[[nodiscard]] Result<std::optional<std::uint64_t>> ask_size(Session& session,
                                                            const std::string& url);

}  // namespace fvprefetch
