#include "source/wording.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "base/ascii.h"
#include "base/printable.h"

namespace fvprefetch {
namespace {

constexpr std::size_t kLongest = 120;  // bytes of foreign text in one message

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;
}

/// Insertions, deletions, substitutions and swaps of neighbours from `a` to `b`, case ignored.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_previous(b.size() + 1);
  std::vector<std::size_t> previous(b.size() + 1);
  std::vector<std::size_t> current(b.size() + 1);
  std::iota(previous.begin(), previous.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, previous[j - 1] + change});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
          lower(a[i - 2]) == lower(b[j - 1])) {
        current[j] = std::min(current[j], before_previous[j - 2] + 1);
      }
    }
    std::swap(before_previous, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

}  // namespace

std::string printable(std::string_view text) {
  std::string cut;
  if (text.size() > kLongest) {
    std::size_t head = kLongest * 2 / 3;
    std::size_t tail = text.size() - kLongest / 3;
    while (head > 0 && is_continuation(text[head])) --head;  // never half a character
    while (tail < text.size() && is_continuation(text[tail])) ++tail;
    cut.append(text.substr(0, head)).append("...").append(text.substr(tail));
    text = cut;
  }
  return escaped(text);
}

std::string_view nearest(std::string_view word, std::span<const std::string_view> known) {
  if (word.size() > 256) return {};
  std::string_view best;
  std::size_t best_distance = word.size() / 3 + 1;  // one slip in a short word, more in a long one
  for (const std::string_view candidate : known) {
    if (candidate.size() > word.size() + best_distance) continue;
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance || (distance == best_distance && best.empty())) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace fvprefetch
