// Pruning within a run: what is old and lies beside a target at hand. Quiet, and nothing fails by
// it. Costs one listing of each folder that something is fetched into, whatever the number of
// files.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "prefetch/target.h"
#include "transfer/engine.h"

namespace fvprefetch {

class Sweep {
 public:
  /// Under the target's lock, when its download begins: removes what nobody can go on with, of it
  /// the directories of archives as soon as their owner is known to be gone. What
  /// could be gone on with stays, however old, for this download will look at it.
  /// `unfinished`: of the target, by its journals. `fresh`: a private name of it that is free.
  void before(const Target& target, const std::vector<PartialPlace>& unfinished,
              const PartialPlace& fresh);

  /// Under the target's lock, when its download is published: removes those of `unfinished` that
  /// are old; none of them is of use any more. Any thread.
  static void after(const std::vector<PartialPlace>& unfinished, const PartialPlace& fresh);

 private:
  /// Tags of the private data in a folder, by the part of its name before them; as at the first
  /// look, which is enough of what has to be a day old.
  using Tags = std::multimap<std::string, std::string, std::less<>>;
  std::map<std::string, Tags> folders_;
};

}  // namespace fvprefetch
