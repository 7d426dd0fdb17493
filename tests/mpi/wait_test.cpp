// What waiting costs: while rank 0 is busy for FVPREFETCH_TEST_WAIT_SECONDS (10), each other rank
// may use less than 0.2 s of CPU. The figures are printed and recorded; a rank in a blocking
// MPI_Barrier would use nearly all of the time.
#include <gtest/gtest.h>
#include <mpi.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "cluster/distribute.h"
#include "mpi/mpi_collective.h"

namespace fvprefetch {
namespace {

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::chrono::seconds busy_time() {
  const char* const text = std::getenv("FVPREFETCH_TEST_WAIT_SECONDS");
  return std::chrono::seconds(text != nullptr ? std::atoi(text) : 10);
}

TEST(MpiWait, WaitingRanksUseNextToNoCpu) {
  const auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  const auto busy = busy_time();
  ASSERT_TRUE((*ranks)->quiet_wait());

  const double before = cpu_seconds();
  // Stands for a download: rank 0 is away, and waiting is the thing under test.
  const Report report = distribute(**ranks,
                                   [&] {
                                     std::this_thread::sleep_for(busy);
                                     return Report{};
                                   },
                                   {});
  const double used = cpu_seconds() - before;
  EXPECT_TRUE(report.ok());

  const auto all = (*ranks)->all_gather(std::to_string(used));
  ASSERT_TRUE(all);
  if ((*ranks)->rank() == 0) {
    std::string figures;
    double worst = 0;
    for (std::size_t rank = 1; rank < all->size(); ++rank) {
      figures += (rank > 1 ? ", " : "") + (*all)[rank] + " s";
      worst = std::max(worst, std::stod((*all)[rank]));
    }
    std::printf("CPU of the waiting ranks over %lld s: %s\n", static_cast<long long>(busy.count()),
                figures.c_str());
    RecordProperty("worst_cpu_seconds_of_a_waiting_rank", std::to_string(worst));
  }
  const bool waited = (*ranks)->rank() != 0;
  EXPECT_TRUE(!waited || used < 0.2) << used << " s of CPU";
}

}  // namespace
}  // namespace fvprefetch
