// Which bytes of a file are there, and which of the others somebody should ask for next. Pure.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace fvprefetch {

/// Bytes from `begin` up to, but not including, `end`.
struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  [[nodiscard]] std::uint64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

/// The end of a file whose size nobody has told.
inline constexpr std::uint64_t kNoEnd = std::numeric_limits<std::uint64_t>::max();

/// Disjoint ranges in order; those that touch are one.
class RangeSet {
 public:
  void add(Range range);
  void clear() { ranges_.clear(); }
  /// Forgets what lies at `end` and behind it.
  void clip(std::uint64_t end);

  /// How far the file is there from its beginning without a hole.
  [[nodiscard]] std::uint64_t front() const;
  [[nodiscard]] std::uint64_t bytes() const;
  [[nodiscard]] bool has(Range range) const;
  /// What of `within` is not there.
  [[nodiscard]] std::vector<Range> missing(Range within) const;
  [[nodiscard]] const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

/// Work for one more connection.
struct Share {
  Range range;
  /// Index of the busy range that `range` is the back of; nullopt: nobody was at it.
  std::optional<std::size_t> taken_from;

  bool operator==(const Share&) const = default;
};

/// How large shares are, bytes.
struct ShareSizes {
  std::uint64_t piece = kNoEnd;  ///< what one connection is given at once
  std::uint64_t smallest = 0;    ///< less is not worth a request of its own
};

/// What one more connection should fetch of a file of `total` bytes: the first piece that is
/// missing and nobody is at, so that the file grows from its front; else the back half of the
/// largest busy range, unless a half would be smaller than `smallest`. nullopt: nothing that pays.
[[nodiscard]] std::optional<Share> next_share(const RangeSet& done, std::uint64_t total,
                                              std::span<const Range> busy, ShareSizes sizes);

}  // namespace fvprefetch
