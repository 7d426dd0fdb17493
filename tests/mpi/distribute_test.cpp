// One rank does the work over MPI; whatever becomes of it, every rank has the same report.
#include "cluster/distribute.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <stdexcept>
#include <string>

#include "mpi/mpi_collective.h"

namespace fvprefetch {
namespace {

// distribute() on the world; checks on every rank that all have the same report.
Report agreed(const std::function<Report()>& work) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  if (!ranks) {
    ADD_FAILURE() << ranks.error().message;
    return failed_report(ranks.error());
  }
  DistributeOptions options;
  options.visible_timeout = std::chrono::milliseconds(0);
  options.launcher = "test";
  const Report report = distribute(**ranks, work, options);
  const std::string mine = to_json(report);
  const auto all = (*ranks)->all_gather(mine);
  EXPECT_TRUE(all);
  if (all) {
    for (const std::string& other : *all) EXPECT_EQ(other, mine);
  }
  return report;
}

Report report_with_path(const std::string& path) {
  EntryReport entry;
  entry.name = "e";
  entry.state = EntryState::kHit;
  entry.path = path;
  Report report;
  report.entries.push_back(entry);
  return report;
}

TEST(MpiDistribute, GivesEveryRankTheReportOfRankZeroAlone) {
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  int runs = 0;
  const Report report = agreed([&] {
    ++runs;
    return report_with_path("/");
  });
  EXPECT_TRUE(report.ok());
  ASSERT_EQ(report.entries.size(), 1U);
  EXPECT_EQ(report.entries[0].path, "/");
  EXPECT_EQ(report.ranks, size);
  EXPECT_EQ(report.nodes, 1);
  EXPECT_EQ(report.launcher, "test");
  EXPECT_EQ(runs, rank == 0 ? 1 : 0);
}

TEST(MpiDistribute, ARankZeroThatFailsGivesEveryRankItsError) {
  const Report report = agreed([] {
    Error error;
    error.code = ErrorCode::kNotFound;
    error.message = "404 for `third`";
    return failed_report(error);
  });
  EXPECT_EQ(report.code(), ErrorCode::kNotFound);
  ASSERT_TRUE(report.error);
  EXPECT_EQ(report.error->message, "404 for `third`");
}

TEST(MpiDistribute, ARankZeroThatThrowsGivesEveryRankAnInternalError) {
  const Report report = agreed([]() -> Report { throw std::runtime_error("boom"); });
  EXPECT_EQ(report.code(), ErrorCode::kInternal);
  ASSERT_TRUE(report.error);
  EXPECT_NE(report.error->message.find("boom"), std::string::npos);
}

TEST(MpiDistribute, APathThatIsNotThereIsNotVisibleOnEveryRank) {
  const Report report = agreed([] { return report_with_path("/nonexistent/fvprefetch"); });
  EXPECT_EQ(report.code(), ErrorCode::kNotVisible);
}

TEST(MpiDistribute, AReportOfThousandsOfEntriesArrivesWhole) {
  const Report report = agreed([] {
    Report big = report_with_path("/");
    big.entries.resize(2'000, big.entries.front());
    return big;
  });
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.entries.size(), 2'000U);
}

}  // namespace
}  // namespace fvprefetch
