// Everything in a cache that lies there under a private name of ours: what a run needs for as long
// as it lives, and what a killed one left. Which of the two is for others to say (prefetch/orphan).
//
// Only names that layout makes, exactly; another tool's are none of them. Reads only. No directory
// that is a symbolic link is entered below the root that was asked for, so that nothing found lies
// elsewhere.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/digest.h"
#include "cache/layout.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

struct Leftover {
  enum class Kind {
    kDownload,   ///< `data`, its `journal`, or both; either name may lead to nothing
    kTemporary,  ///< `data`: a small file or a link on its way to its name; a lease's record
    kHolder,     ///< `data`: a record of who holds a lock, or a lease
    kTree,       ///< `data`: a directory; `journal`, if any, belongs to its archive's download, and
                 ///< tells whose it is
    kProbes      ///< `data`: the directory of a `doctor`, with what it tries locks on
  };
  Kind kind = Kind::kDownload;
  std::string data;     ///< empty: the journal does not tell its name
  std::string journal;  ///< empty: the data does not tell its name, and none was found
  /// The lock of whoever uses it; empty where that is not known or there is none.
  std::string lock;
  unsigned lock_mode = 0;
  /// A private name on the same file system that is free.
  std::string probe;
};

struct Leftovers {
  std::vector<Leftover> found;
  std::vector<Error> unseen;  ///< what could not be looked into; each names its path
};

/// Those of one repo.
void find_leftovers(const layout::HubRepo& repo, Leftovers& into);
/// Those of all repos in the Hub cache at `root`. Ends early on `stop`.
void find_hub_leftovers(const std::string& root, const StopCheck& stop, Leftovers& into);
/// The directory `name` beside `file`, when the archive of `file` is or was unpacked there.
[[nodiscard]] std::optional<Leftover> tree_of(const layout::UrlFile& file, const std::string& name);
/// Those of one URL file.
void find_leftovers(const layout::UrlFile& file, Leftovers& into);
/// Those of all URL files below `root`, at any depth, but not below a folder that is a root of its
/// own (TORCH_HOME may be one). Ends early on `stop`.
void find_url_leftovers(const std::string& root, const StopCheck& stop, Leftovers& into);

}  // namespace fvprefetch
