#include "figures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fvprefetch::contending {

double quantile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto last = static_cast<double>(values.size() - 1);
  return values[static_cast<std::size_t>(std::ceil(part * last))];
}

double mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TurnFigures figures_of(std::vector<Turn> turns, std::int64_t start, std::int64_t clock_error) {
  TurnFigures figures;
  if (turns.empty()) return figures;
  std::sort(turns.begin(), turns.end(), [](const Turn& a, const Turn& b) { return a.got < b.got; });
  std::int64_t end = start;
  std::int64_t held_until = start;
  std::map<int, int> had;
  std::map<int, std::int64_t> last_of;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const Turn& turn = turns[i];
    if (i > 0) {
      if (turn.got + clock_error < held_until) ++figures.violations;
      const Turn& before = turns[i - 1];
      // Who wanted it only after it was free was not handed anything.
      if (before.who != turn.who && turn.wanted <= before.left) {
        const std::int64_t late = std::max<std::int64_t>(turn.got - before.left, 0);
        figures.hand_off_ms.push_back(static_cast<double>(late) / 1e6);
      }
    }
    held_until = std::max(held_until, turn.left);
    end = std::max(end, turn.left);
    figures.longest_wait_ms =
        std::max(figures.longest_wait_ms, static_cast<double>(turn.got - turn.wanted) / 1e6);
    last_of[turn.who] = std::max(last_of[turn.who], turn.left);
  }
  figures.total_s = static_cast<double>(end - start) / 1e9;
  std::int64_t first_end = end;
  for (const auto& [who, last] : last_of) first_end = std::min(first_end, last);
  for (const auto& [who, last] : last_of) had[who] = 0;
  for (const Turn& turn : turns) {
    if (turn.left <= first_end) ++had[turn.who];
  }
  int least = static_cast<int>(turns.size());
  int most = 1;
  for (const auto& [who, count] : had) {
    least = std::min(least, count);
    most = std::max(most, count);
  }
  figures.least_share = static_cast<double>(least) / most;
  return figures;
}

const std::vector<Column>& columns() {
  static const std::vector<Column> all = {
      {"cold_ms", "cold ms", 1},  // start to "the last one has the path", median
      {"cold_ms_max", "", 1},
      {"after_publication_ms", "after", 1},  // publication to "the last one has the path", median
      {"after_publication_ms_max", "max", 1},
      {"cold_rounds", "", 0},
      {"duplicate_downloads", "twice", 0},  // rounds in which more than one brought the file
      {"warm_ms", "warm ms", 2},
      {"hand_off_p50_ms", "p50", 3},
      {"hand_off_p99_ms", "p99", 3},
      {"hand_off_max_ms", "max", 2},
      {"hand_offs", "", 0},
      {"clock_error_ms", "+-", 3},  // of a hand-off between nodes, at most
      {"load_s", "load s", 2},      // N x acquisitions, median
      {"load_acquisitions", "", 0},
      {"load_done", "done", 2},  // part of them that was reached before the deadline
      {"longest_wait_ms", "wait", 1},
      {"longest_over_fair", "/fair", 2},  // longest wait over load_s / acquisitions of each
      {"least_share", "least", 2},
      {"waiter_cpu_percent", "cpu %", 3},  // mean of those who waited
      {"waiter_cpu_percent_max", "", 3},
      {"waited_s", "", 1},
      {"operations", "ops", 1},             // calls on the folder for each rank, cold
      {"operations_follower", "foll.", 1},  // the most of a rank that leads no node
      {"operations_leader", "", 1},         // the most of a leader that is not rank 0
      {"operations_first", "", 1},          // of rank 0
      {"violations", "viol.", 0},
      {"lost_additions", "", 0},
  };
  return all;
}

}  // namespace fvprefetch::contending
