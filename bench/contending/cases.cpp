#include "cases.h"

#include <algorithm>
#include <set>

#include "base/try.h"
#include "contender.h"

namespace fvprefetch::contending {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

/// The figures of one primitive, as they come in.
class Tally {
 public:
  Tally(int n, const Contenders& who, const Amount& amount)
      : crew_(*who.crew), primitive_(who.primitive), amount_(amount) {
    row_.ranks = n;
    row_.primitive = primitive_;
  }

  Status cold(Field& field) {
    const int rounds = std::max(1, (amount_.cold_rounds + amount_.repeats - 1) / amount_.repeats);
    // Two, each on a node of its own, are those of whom the goals ask for a number of rounds.
    const RoundsEnd end(amount_, row_.ranks == 2 ? rounds : RoundsEnd::kLeast);
    for (int i = 0; i < rounds; ++i) {
      FVP_TRY(const Outcome outcome, field.run(crew_, cold_task(), end.of(i)));
      if (!outcome.done) break;
      note(outcome);
      if (outcome.had.empty()) continue;
      const std::int64_t last = *std::max_element(outcome.had.begin(), outcome.had.end());
      row_.each["cold_ms"].push_back(static_cast<double>(last - outcome.start) / 1e6);
      if (outcome.publications > 1) ++duplicates_;
      if (outcome.publications == 0) continue;
      const auto after = std::max<std::int64_t>(last - outcome.published, 0);
      row_.each["after_publication_ms"].push_back(static_cast<double>(after) / 1e6);
    }
    return {};
  }

  Status warm(Field& field) {
    Task task = cold_task();
    task.warm = true;
    for (int i = 0; i < 5; ++i) {
      FVP_TRY(const Outcome outcome, field.run(crew_, task, now_ns() + amount_.case_time));
      note(outcome);
      if (!outcome.done || outcome.had.empty()) break;
      const std::int64_t last = *std::max_element(outcome.had.begin(), outcome.had.end());
      row_.each["warm_ms"].push_back(static_cast<double>(last - outcome.start) / 1e6);
    }
    return {};
  }

  // All want it once, at the same moment: N - 1 hand-offs, and nobody comes back for more.
  Status hand_off(Field& field) {
    if (row_.ranks < 2) return {};
    const RoundsEnd end(amount_);
    const int wanted = amount_.hand_offs / amount_.repeats / (row_.ranks - 1) + 1;
    for (int i = 0; i < std::min(wanted, 100); ++i) {
      FVP_TRY(const Outcome outcome, field.run(crew_, turns_task(1), end.of(i)));
      if (!outcome.done) break;
      note(outcome);
      const TurnFigures figures = figures_of(outcome.turns, outcome.start, outcome.clock_error);
      add(figures);
      hand_off_ms_.insert(hand_off_ms_.end(), figures.hand_off_ms.begin(),
                          figures.hand_off_ms.end());
      row_.figures["clock_error_ms"] = static_cast<double>(outcome.clock_error) / 1e6;
    }
    return {};
  }

  Status load(Field& field) {
    const int count = amount_.acquisitions;
    Task task = turns_task(count);
    task.limit = amount_.load_limit;
    FVP_TRY(const Outcome outcome, field.run(crew_, task, now_ns() + kSecond));
    note(outcome);
    if (!outcome.done || outcome.turns.empty()) return {};
    const TurnFigures figures = figures_of(outcome.turns, outcome.start, outcome.clock_error);
    add(figures);
    row_.each["load_s"].push_back(figures.total_s);
    row_.each["load_done"].push_back(static_cast<double>(outcome.turns.size()) /
                                     (count * row_.ranks));
    if (row_.ranks < 2) return {};
    row_.each["longest_wait_ms"].push_back(figures.longest_wait_ms);
    const double fair_ms = figures.total_s * 1e3 / count;
    row_.each["longest_over_fair"].push_back(figures.longest_wait_ms / fair_ms);
    row_.each["least_share"].push_back(figures.least_share);
    return {};
  }

  // One has it for long, the others wait.
  Status wait(Field& field) {
    if (row_.ranks < 2 || amount_.wait == 0) return {};
    Task task = turns_task(1);
    task.hold = 0;
    task.first_holds = amount_.wait;
    task.limit = amount_.wait + 30 * kSecond;
    FVP_TRY(const Outcome outcome, field.run(crew_, task, now_ns() + kSecond));
    note(outcome);
    std::vector<double> percent;
    const double waited = static_cast<double>(amount_.wait) / 1e9;
    for (const auto& [who, cpu] : outcome.cpu_s) {
      if (who != 0) percent.push_back(cpu / waited * 100);
    }
    if (!outcome.done || percent.empty()) return {};
    row_.figures["waiter_cpu_percent"] = mean(percent);
    row_.figures["waiter_cpu_percent_max"] = *std::max_element(percent.begin(), percent.end());
    row_.figures["waited_s"] = waited;
    return {};
  }

  Status operations(Field& field) {
    if (!amount_.operations) return {};
    Task task = cold_task();
    task.count_operations = true;
    FVP_TRY(const Outcome outcome, field.run(crew_, task, now_ns() + kSecond));
    note(outcome);
    if (!outcome.done || outcome.calls.empty()) return {};
    double all = 0;
    for (const auto& [name, count] : outcome.calls) {
      all += count;
      row_.each["calls " + name].push_back(count);
    }
    row_.figures["operations"] = all / row_.ranks;
    return {};
  }

  [[nodiscard]] Row finish() {
    auto& figures = row_.figures;
    for (const char* name : {"cold_ms", "after_publication_ms", "warm_ms", "load_s", "load_done",
                             "longest_wait_ms", "longest_over_fair", "least_share"}) {
      const auto found = row_.each.find(name);
      if (found != row_.each.end()) figures[name] = quantile(found->second, 0.5);
    }
    for (const char* name : {"cold_ms", "after_publication_ms"}) {
      const auto found = row_.each.find(name);
      if (found != row_.each.end())
        figures[name + std::string("_max")] = quantile(found->second, 1);
    }
    if (!hand_off_ms_.empty()) {
      figures["hand_off_p50_ms"] = quantile(hand_off_ms_, 0.5);
      figures["hand_off_p99_ms"] = quantile(hand_off_ms_, 0.99);
      figures["hand_off_max_ms"] = quantile(hand_off_ms_, 1);
      figures["hand_offs"] = static_cast<double>(hand_off_ms_.size());
    }
    if (row_.each.contains("load_s")) {
      figures["load_acquisitions"] = amount_.acquisitions * row_.ranks;
    }
    if (row_.each.contains("cold_ms")) {
      figures["cold_rounds"] = static_cast<double>(row_.each["cold_ms"].size());
      figures["duplicate_downloads"] = duplicates_;
    }
    figures["violations"] = violations_;
    figures["lost_additions"] = lost_;
    for (const std::string& error : errors_) row_.remarks.push_back(primitive_ + ": " + error);
    return row_;
  }

 private:
  [[nodiscard]] Task cold_task() const {
    Task task;
    task.verb = "cold";
    task.primitive = primitive_;
    task.limit = 60 * kSecond;
    return task;
  }
  [[nodiscard]] Task turns_task(int count) const {
    Task task;
    task.verb = "turns";
    task.primitive = primitive_;
    task.count = count;
    task.hold = amount_.hold;
    task.limit = 60 * kSecond;
    return task;
  }

  void note(const Outcome& outcome) {
    errors_.insert(outcome.errors.begin(), outcome.errors.end());
    if (outcome.counted)
      lost_ += static_cast<double>(outcome.turns.size()) - static_cast<double>(*outcome.counted);
  }
  void add(const TurnFigures& figures) { violations_ += figures.violations; }

  Crew& crew_;
  std::string primitive_;
  Amount amount_;
  Row row_;
  std::vector<double> hand_off_ms_;  ///< thousands; the quantiles say it
  double duplicates_ = 0;
  double violations_ = 0;
  double lost_ = 0;
  std::set<std::string> errors_;
};

}  // namespace

RoundsEnd::RoundsEnd(const Amount& amount, int least)
    : least_(least),
      usual_(now_ns() + amount.case_time),
      late_(now_ns() + std::max(amount.case_time, amount.load_limit)) {}

Result<std::vector<Row>> measure(Field& field, int n, const std::vector<Contenders>& all,
                                 const Amount& amount) {
  std::vector<Tally> tallies;
  for (const Contenders& who : all) tallies.emplace_back(n, who, amount);
  for (int repeat = 0; repeat < amount.repeats; ++repeat) {
    field.set_clock();
    for (std::size_t i = 0; i < tallies.size(); ++i) {
      // Another one begins each time: what the machine does besides meets all of them alike.
      Tally& tally = tallies[(i + static_cast<std::size_t>(repeat)) % tallies.size()];
      FVP_CHECK_OK(tally.cold(field));
      FVP_CHECK_OK(tally.hand_off(field));
    }
    for (std::size_t i = 0; i < tallies.size(); ++i) {
      FVP_CHECK_OK(tallies[(i + static_cast<std::size_t>(repeat)) % tallies.size()].load(field));
    }
  }
  std::vector<Row> rows;
  for (Tally& tally : tallies) {
    FVP_CHECK_OK(tally.warm(field));
    FVP_CHECK_OK(tally.wait(field));
    FVP_CHECK_OK(tally.operations(field));
    rows.push_back(tally.finish());
  }
  return rows;
}

}  // namespace fvprefetch::contending
