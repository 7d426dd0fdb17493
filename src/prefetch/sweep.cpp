#include "prefetch/sweep.h"

#include <algorithm>

#include "base/clock.h"
#include "base/posix.h"
#include "cache/layout.h"
#include "prefetch/orphan.h"

namespace fvprefetch {
namespace {

void sweep(const PartialPlace& place, const PartialPlace& fresh, Fate least) {
  Leftover leftover;
  leftover.data = place.data;
  leftover.journal = place.journal;
  const auto signs = look_at(leftover);
  if (!signs || judge(*signs, wall_clock_ns()) < least) return;
  if (judge(*signs, careful_now(fresh.data)) < least) return;
  // Best effort: `fvprefetch prune` says what is in its way.
  if (signs->data && !posix::remove_file(place.data)) return;
  if (signs->journal) (void)posix::remove_file(place.journal);
}

std::string_view before_tag(std::string_view name, std::string_view tag) {
  return name.substr(0, static_cast<std::size_t>(tag.data() - name.data()));
}

// A tree is of no use to anybody: it goes at once when its owner is known to be gone.
void sweep(const Leftover& tree, const PartialPlace& fresh) {
  const auto signs = look_at(tree);
  if (!signs || !signs->data) return;
  const bool old = judge(*signs, wall_clock_ns()) >= Fate::kUseless &&
                   judge(*signs, careful_now(fresh.data)) >= Fate::kUseless;
  if (old || signs->owner == Liveness::kGone) (void)posix::remove_tree(tree.data);
}

}  // namespace

void Sweep::before(const Target& target, const std::vector<PartialPlace>& unfinished,
                   const PartialPlace& fresh) {
  // First: the journals of their downloads tell whose they are.
  for (const Leftover& tree : target.trees()) sweep(tree, fresh);
  for (const PartialPlace& place : unfinished) sweep(place, fresh, Fate::kUseless);
  // Data that has no journal.
  const std::string folder = posix::parent(fresh.data);
  const auto [known, is_new] = folders_.try_emplace(folder);
  if (is_new) {
    const auto names = posix::list(folder);
    if (!names) return;
    for (const std::string& name : *names) {
      const auto tag = layout::partial_tag(name);
      if (!tag.empty()) known->second.emplace(before_tag(name, tag), tag);
    }
  }
  const std::string name = fresh.data.substr(fresh.data.find_last_of('/') + 1);
  const auto tag = layout::partial_tag(name);
  if (tag.empty()) return;
  const auto [begin, end] = known->second.equal_range(before_tag(name, tag));
  for (auto it = begin; it != end; ++it) sweep(target.partial(it->second), fresh, Fate::kUseless);
}

void Sweep::after(const std::vector<PartialPlace>& unfinished, const PartialPlace& fresh) {
  for (const PartialPlace& place : unfinished) sweep(place, fresh, Fate::kUnfinished);
}

}  // namespace fvprefetch
