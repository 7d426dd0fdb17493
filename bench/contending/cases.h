// The cases of one N: what every primitive is measured by.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "field.h"
#include "figures.h"

namespace fvprefetch::contending {

struct Amount {
  int repeats = 3;                ///< the primitives take turns so often
  int cold_rounds = 30;           ///< in all
  int hand_offs = 400;            ///< in all, about
  int acquisitions = 50;          ///< load: of each contender
  std::int64_t hold = 1'000'000;  ///< ns
  /// ns for the rounds of one case, in one repeat; the least that are needed get `load_limit`.
  std::int64_t case_time = 5'000'000'000;
  std::int64_t load_limit = 60'000'000'000;
  std::int64_t wait = 3'000'000'000;  ///< ns that the waiters' CPU is measured over; 0: not
  bool operations = true;
};

/// Until when the rounds of a case may begin. The first `least` are not broken off for want of
/// time: on a machine that is busy with other things they give late figures rather than none.
class RoundsEnd {
 public:
  static constexpr int kLeast = 5;
  explicit RoundsEnd(const Amount& amount, int least = kLeast);
  [[nodiscard]] std::int64_t of(int round) const { return round < least_ ? late_ : usual_; }

 private:
  int least_;
  std::int64_t usual_;
  std::int64_t late_;
};

/// A primitive and who contends by it.
struct Contenders {
  std::string primitive;
  Crew* crew = nullptr;
};

/// Collective: all primitives, in turns.
[[nodiscard]] Result<std::vector<Row>> measure(Field& field, int n,
                                               const std::vector<Contenders>& all,
                                               const Amount& amount);

/// Collective: rank 0 brings it, a barrier, a broadcast. Of the first `n` MPI ranks.
[[nodiscard]] Result<Row> measure_collective(Field& field, MPI_Comm comm, int n,
                                             const Amount& amount);

}  // namespace fvprefetch::contending
