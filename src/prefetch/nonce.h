// By what two nodes find out whether they look at one cache: the random id in the receipt that the
// run on one of them wrote or found.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "fvprefetch/error.h"
#include "fvprefetch/manifest.h"
#include "fvprefetch/prefetch.h"
#include "fvprefetch/report.h"

namespace fvprefetch {

struct Nonce {
  std::string receipt;  ///< where it lies, with the same path on every node
  std::string id;       ///< empty: there is no receipt (a cache that may not be written)

  /// Whether the cache at that path is the very one that the nonce is of. Reads only; asks the
  /// server of a network file system anew when what is remembered says no.
  [[nodiscard]] bool is_here() const;
  /// Whether that path is on a file system which no other node can have.
  [[nodiscard]] bool would_be_local() const;
};

/// Of each entry that lies in a cache, in manifest order. Reads only.
[[nodiscard]] Result<std::vector<Nonce>> nonces_of(const Manifest& manifest, const Options& options,
                                                   const Report& report);

[[nodiscard]] std::string nonces_to_text(const std::vector<Nonce>& nonces);
[[nodiscard]] Result<std::vector<Nonce>> nonces_from_text(std::string_view text);

}  // namespace fvprefetch
