#include "transfer/ranges.h"

#include <algorithm>

namespace fvprefetch {

void RangeSet::add(Range range) {
  if (range.begin >= range.end) return;
  // Nearly always the last but a few: a handful of connections write each at its own end.
  auto first = std::find_if(ranges_.begin(), ranges_.end(),
                            [&](const Range& known) { return known.end >= range.begin; });
  auto last = first;
  for (; last != ranges_.end() && last->begin <= range.end; ++last) {
    range.begin = std::min(range.begin, last->begin);
    range.end = std::max(range.end, last->end);
  }
  if (first == last) {
    ranges_.insert(first, range);
  } else {
    *first = range;
    ranges_.erase(first + 1, last);
  }
}

void RangeSet::clip(std::uint64_t end) {
  std::erase_if(ranges_, [end](const Range& range) { return range.begin >= end; });
  if (!ranges_.empty()) ranges_.back().end = std::min(ranges_.back().end, end);
}

std::uint64_t RangeSet::front() const {
  return ranges_.empty() || ranges_.front().begin > 0 ? 0 : ranges_.front().end;
}

std::uint64_t RangeSet::bytes() const {
  std::uint64_t bytes = 0;
  for (const Range& range : ranges_) bytes += range.size();
  return bytes;
}

bool RangeSet::has(Range range) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& known) {
    return known.begin <= range.begin && known.end >= range.end;
  });
}

std::vector<Range> RangeSet::missing(Range within) const {
  std::vector<Range> missing;
  for (const Range& range : ranges_) {
    if (range.end <= within.begin) continue;
    if (range.begin >= within.end) break;
    if (range.begin > within.begin) missing.push_back({within.begin, range.begin});
    within.begin = range.end;
  }
  if (within.begin < within.end) missing.push_back(within);
  return missing;
}

std::optional<Share> next_share(const RangeSet& done, std::uint64_t total,
                                std::span<const Range> busy, ShareSizes sizes) {
  constexpr std::uint64_t kPage = 4096;  // two connections never write to one page
  const auto smaller = [](const Range& a, const Range& b) { return a.size() < b.size(); };

  RangeSet taken = done;
  for (const Range& range : busy) taken.add(range);
  const std::vector<Range> idle = taken.missing({0, total});
  if (!idle.empty()) {
    Range first = idle.front();
    // What would be left of it must be worth a request, too.
    if (first.size() > sizes.piece && first.size() - sizes.piece > sizes.smallest) {
      first.end = (first.begin + sizes.piece) / kPage * kPage;
    }
    return Share{first, std::nullopt};
  }
  if (busy.empty()) return std::nullopt;
  const auto largest = std::max_element(busy.begin(), busy.end(), smaller);
  const std::uint64_t middle = (largest->begin + largest->size() / 2) / kPage * kPage;
  if (middle < largest->begin + sizes.smallest || largest->end < middle + sizes.smallest) {
    return std::nullopt;
  }
  return Share{{middle, largest->end}, static_cast<std::size_t>(largest - busy.begin())};
}

}  // namespace fvprefetch
