// The doors of prefetch.h with the seams open: what tests call with a scripted network and a clock
// of their own.
#pragma once

#include <optional>

#include "fvprefetch/prefetch.h"
#include "prefetch/rejected.h"
#include "prefetch/session.h"

namespace fvprefetch {

/// `rejected`: the run repairs, and these files, which verify found wrong, count as absent.
[[nodiscard]] Report prefetch_with(const Manifest& manifest, const Options& options,
                                   const Seams& seams,
                                   std::optional<Rejected> rejected = std::nullopt);

/// Whether a warm run may still write down what it has found out.
enum class Keep {
  kReceipts,  ///< best effort, where one is missing: prefetch() does so
  kNothing
};
/// What prefetch() reports when there is nothing to ask, to fetch or to hash; else nullopt, and
/// nothing was written or said. Sends no request and takes no lock.
[[nodiscard]] std::optional<Report> warm_report(const Manifest& manifest, const Options& options,
                                                const Seams& seams, Keep keep);

[[nodiscard]] Verification verify_with(const Manifest& manifest, const Options& options,
                                       const Seams& seams);

/// kPartial: the error of a run in which `failed` entries of `all` failed, each of them optional.
[[nodiscard]] Error only_optional_failed(std::size_t failed, std::size_t all);

/// What ensure_checkpoint asks for, and what it makes of the answer.
[[nodiscard]] Manifest checkpoint_manifest(const std::string& name, const std::string& source,
                                           const std::string& filename);
[[nodiscard]] Result<std::string> checkpoint_path(Report report);

[[nodiscard]] Result<Manifest> lock_with(const Manifest& manifest, const Options& options,
                                         const Seams& seams);

}  // namespace fvprefetch
