// The product's path with MPI: rank 0 alone looks and takes the lock, a quiet barrier, a broadcast;
// then one rank of each further node looks whether it sees the file. N ranks cost one lock.
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/posix.h"
#include "base/try.h"
#include "cases.h"
#include "contender.h"
#include "mpi/mpi_collective.h"
#include "operations.h"
#include "way.h"

namespace fvprefetch::contending {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

class CollectiveCase {
 public:
  CollectiveCase(Field& field, std::unique_ptr<Collective> ranks, int n, const Amount& amount)
      : field_(field), ranks_(std::move(ranks)), amount_(amount) {
    row_.ranks = n;
    row_.primitive = "collective";
  }

  Result<Row> measure() {
    std::set<std::string> errors;
    const RoundsEnd end(amount_);
    for (int i = 0; i < amount_.cold_rounds; ++i) {
      FVP_TRY(const Outcome outcome, run({}, end.of(i)));
      if (!outcome.done) break;
      errors.insert(outcome.errors.begin(), outcome.errors.end());
      note_path("cold_ms", outcome);
      if (outcome.had.empty() || outcome.published == 0) continue;
      const std::int64_t last = *std::max_element(outcome.had.begin(), outcome.had.end());
      row_.each["after_publication_ms"].push_back(static_cast<double>(last - outcome.published) /
                                                  1e6);
    }
    for (int i = 0; i < 5; ++i) {
      FVP_TRY(const Outcome outcome, run({.warm = true}, now_ns() + kSecond));
      note_path("warm_ms", outcome);
    }
    if (row_.ranks > 1 && amount_.wait > 0) {
      FVP_TRY(const Outcome outcome, run({.holds = amount_.wait}, now_ns() + kSecond));
      note_cpu(outcome);
    }
    if (amount_.operations) {
      FVP_TRY(const Outcome outcome, run({.operations = true}, now_ns() + kSecond));
      errors.insert(outcome.errors.begin(), outcome.errors.end());
      FVP_CHECK_OK(note_operations(outcome));
      if (row_.ranks > 1 && !row_.figures.contains("operations_leader")) {
        FVP_TRY(const Outcome led, run({.operations = true, .all_lead = true}, now_ns() + kSecond));
        note_leaders(led);
      }
    }
    for (const char* name : {"cold_ms", "after_publication_ms", "warm_ms"}) {
      const auto found = row_.each.find(name);
      if (found != row_.each.end()) row_.figures[name] = quantile(found->second, 0.5);
    }
    for (const char* name : {"cold_ms", "after_publication_ms"}) {
      const auto found = row_.each.find(name);
      if (found != row_.each.end()) {
        row_.figures[name + std::string("_max")] = quantile(found->second, 1);
      }
    }
    if (row_.each.contains("cold_ms")) {
      row_.figures["cold_rounds"] = static_cast<double>(row_.each["cold_ms"].size());
      row_.figures["duplicate_downloads"] = 0;  // rank 0 alone can
    }
    for (const std::string& error : errors) row_.remarks.push_back("collective: " + error);
    return row_;
  }

 private:
  struct Kind {
    bool warm = false;
    bool operations = false;
    /// Each does what the leader of a node does: how much that is can be counted on one node, too.
    bool all_lead = false;
    std::int64_t holds = 0;  ///< how long rank 0 downloads
  };

  [[nodiscard]] Result<Outcome> run(const Kind& kind, std::int64_t end) {
    Task task;
    task.verb = "cold";
    task.warm = kind.warm;
    Field::Part part;
    if (ranks_) {
      part = [&](const std::string& folder, std::int64_t start) {
        return take_part(kind, folder, start);
      };
    }
    return field_.run(part, task, end);
  }

  [[nodiscard]] std::vector<std::string> take_part(const Kind& kind, const std::string& folder,
                                                   std::int64_t start) {
    std::vector<std::string> lines;
    std::optional<OperationCount> operations;
    if (kind.operations) {
      operations.emplace(
          std::vector<pid_t>{::getpid()},
          posix::parent(field_.scratch()) + "/.fvp-strace." + std::to_string(ranks_->rank()));
      (void)ranks_->quiet_wait();  // all are watched
      if (!operations->attached()) lines.emplace_back("error no strace");
    }
    sleep_until_ns(start);
    const std::int64_t cpu = cpu_ns();
    std::int64_t published = 0;
    Status done = ranks_->rank() == 0 ? bring(folder, kind.holds, published) : Status{};
    std::string path;
    if (done) done = ranks_->quiet_wait();
    if (done) {
      auto told = ranks_->broadcast(folder + "/file");
      if (told) path = *told;
    }
    if ((kind.all_lead || ranks_->node_leader()) && ranks_->rank() != 0) see(path);
    const std::int64_t have = now_ns();
    const std::int64_t used = cpu_ns() - cpu;
    if (!done) lines.push_back("error " + done.error().message);
    if (done && !kind.operations) {
      lines.push_back("had " + std::to_string(have) + " " + std::to_string(published));
    }
    lines.push_back("cpu " + std::to_string(used));
    if (operations) {
      for (const auto& [name, count] : operations->end(folder)) {
        lines.push_back("calls " + name + " " + std::to_string(count));
      }
    }
    return lines;
  }

  // What rank 0 does for all.
  static Status bring(const std::string& folder, std::int64_t holds, std::int64_t& published) {
    const std::string file = folder + "/file";
    const auto hit = [&file] { return posix::exists(file); };
    const std::unique_ptr<Way> way = make_way(Primitive::kAuto);
    const auto deadline = Clock::TimePoint(std::chrono::nanoseconds(now_ns() + 60 * kSecond));
    FVP_TRY(const std::unique_ptr<HeldLock> held, way->take(folder + "/x.lock", hit, deadline));
    if (!held || hit()) return {};
    sleep_until_ns(now_ns() + holds);
    FVP_CHECK_OK(posix::publish_text(folder + "/file." + posix::random_tag(), file, "weights"));
    published = now_ns();
    return {};
  }

  // What a leader does for its node.
  static void see(const std::string& path) {
    posix::look_afresh(posix::parent(path));
    (void)posix::open_read(path);
  }

  void note_path(const char* name, const Outcome& outcome) {
    if (!outcome.done || outcome.had.empty()) return;
    const std::int64_t last = *std::max_element(outcome.had.begin(), outcome.had.end());
    row_.each[name].push_back(static_cast<double>(last - outcome.start) / 1e6);
  }

  void note_cpu(const Outcome& outcome) {
    std::vector<double> percent;
    const double waited = static_cast<double>(amount_.wait) / 1e9;
    for (const auto& [who, cpu] : outcome.cpu_s) {
      if (who != 0) percent.push_back(cpu / waited * 100);
    }
    if (percent.empty()) return;
    row_.figures["waiter_cpu_percent"] = mean(percent);
    row_.figures["waiter_cpu_percent_max"] = *std::max_element(percent.begin(), percent.end());
    row_.figures["waited_s"] = waited;
  }

  Status note_operations(const Outcome& outcome) {
    const bool leads = ranks_ && ranks_->node_leader();
    FVP_TRY(const auto roles, field_.ranks().all_gather(leads ? "leader" : "follower"));
    if (!outcome.done || outcome.calls.empty()) return {};
    double all = 0;
    double leader = 0;
    double follower = 0;
    for (int rank = 0; rank < row_.ranks; ++rank) {
      const auto found = outcome.calls_of.find(rank);
      const double calls = found == outcome.calls_of.end() ? 0 : found->second;
      all += calls;
      if (rank == 0) {
        row_.figures["operations_first"] = calls;
      } else if (roles[static_cast<std::size_t>(rank)] == "leader") {
        leader = std::max(leader, calls);
      } else {
        follower = std::max(follower, calls);
      }
    }
    row_.figures["operations"] = all / row_.ranks;
    if (leader > 0) row_.figures["operations_leader"] = leader;
    row_.figures["operations_follower"] = follower;
    return {};
  }

  void note_leaders(const Outcome& outcome) {
    int most = 0;
    for (const auto& [rank, calls] : outcome.calls_of) {
      if (rank != 0) most = std::max(most, calls);
    }
    if (most > 0) row_.figures["operations_leader"] = most;
  }

  Field& field_;
  std::unique_ptr<Collective> ranks_;  ///< of the first N; nullptr on the others
  Amount amount_;
  Row row_;
};

}  // namespace

Result<Row> measure_collective(Field& field, MPI_Comm comm, int n, const Amount& amount) {
  const int rank = field.ranks().rank();
  MPI_Comm part = MPI_COMM_NULL;
  MPI_Comm_split(comm, rank < n ? 0 : MPI_UNDEFINED, rank, &part);
  std::unique_ptr<Collective> ranks;
  if (part != MPI_COMM_NULL) {
    FVP_TRY(ranks, mpi::make_mpi_collective(part));
  }
  field.set_clock();
  auto row = CollectiveCase(field, std::move(ranks), n, amount).measure();
  if (part != MPI_COMM_NULL) MPI_Comm_free(&part);
  return row;
}

}  // namespace fvprefetch::contending
