// Further caches, usually a site's and read-only, that are looked into before a run's own: what is
// complete there is used where it is. Nothing is ever written, locked or fetched there.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fvprefetch/manifest.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/lookup.h"
#include "prefetch/session.h"
#include "source/resolve.h"

namespace fvprefetch {

class ExtraCaches {
 public:
  /// Those of Options::extra_caches; none with Options::refresh, which asks what there is now.
  explicit ExtraCaches(const Options& options);

  struct Found {
    Source source;  ///< as it is in that cache
    Survey survey;  ///< complete; nothing of it is to be written down
    const Session* session;
  };
  /// In the first cache that has all of `entry`. A snapshot that nothing lists (no receipt, no list
  /// of the commit's files) counts offline only: it may lack files.
  [[nodiscard]] std::optional<Found> find(const Entry& entry, Hashing hashing, bool offline) const;

 private:
  struct Cache {
    Options options;  ///< before the session, which refers to it
    std::unique_ptr<Session> session;
  };
  void tell_useless(const Entry& entry, const Result<Survey>& survey) const;

  Observer* observer_;
  std::vector<std::unique_ptr<Cache>> caches_;
};

}  // namespace fvprefetch
