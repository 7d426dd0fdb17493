// From answers to figures. All times are on rank 0's clock, in nanoseconds.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fvprefetch::contending {

/// One time that one contender had the lock.
struct Turn {
  int who = 0;
  std::int64_t wanted = 0;
  std::int64_t got = 0;
  std::int64_t left = 0;  ///< when it began to let go
};

/// The value below which `part` of them lie; 0 of none.
[[nodiscard]] double quantile(std::vector<double> values, double part);
[[nodiscard]] double mean(const std::vector<double>& values);

/// Of a round in which all wanted it at once.
struct TurnFigures {
  std::vector<double> hand_off_ms;  ///< from "begins to let go" to "has it", between two processes
  double longest_wait_ms = 0;
  double total_s = 0;  ///< from the start to the last one's end
  /// Of the turns that the first one to finish had, the least that anybody had had by then.
  double least_share = 1;
  int violations = 0;  ///< two had it at once, for longer than the clocks may err
};
[[nodiscard]] TurnFigures figures_of(std::vector<Turn> turns, std::int64_t start,
                                     std::int64_t clock_error);

/// What a case came to: figures by name (`columns()` says which there are and what they mean), and
/// what the ratios of one run are made from.
struct Row {
  int ranks = 0;
  std::string primitive;
  std::map<std::string, double> figures;
  std::map<std::string, std::vector<double>> each;
  std::vector<std::string> remarks;
};

struct Column {
  const char* name;
  const char* title;  ///< in the table; "" when it is in the files alone
  int digits;
};
[[nodiscard]] const std::vector<Column>& columns();

}  // namespace fvprefetch::contending
