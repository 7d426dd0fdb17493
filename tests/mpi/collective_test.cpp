// The contract over MPI, and what is particular to MPI.
#include <mpi.h>

#include <string>

#include "contract/chain_contract.h"
#include "contract/collective_contract.h"
#include "mpi/mpi_collective.h"

namespace fvprefetch::testing {
namespace {

CollectiveHarness world(std::string name, std::size_t piece) {
  return {std::move(name), [piece](const auto& body) {
            mpi::MpiOptions options;
            options.broadcast_piece = piece;
            auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD, options);
            ASSERT_TRUE(ranks) << ranks.error().message;
            body(**ranks);
          }};
}

// In pieces of 64 KiB, a broadcast of a few MB takes the path of one of many GB.
INSTANTIATE_TEST_SUITE_P(Mpi, CollectiveContract,
                         ::testing::Values(world("World", mpi::kBroadcastPiece),
                                           world("WorldInSmallPieces", std::size_t{1} << 16U)),
                         harness_name);
INSTANTIATE_TEST_SUITE_P(Mpi, ChainContract,
                         ::testing::Values(world("World", mpi::kBroadcastPiece)), harness_name);

TEST(MpiCollective, IsTheRankAndSizeOfItsCommunicator) {
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  EXPECT_EQ((*ranks)->rank(), rank);
  EXPECT_EQ((*ranks)->size(), size);
}

TEST(MpiCollective, PutsTheRanksOfThisMachineOnOneNode) {
  const auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  EXPECT_EQ((*ranks)->nodes(), 1);
  EXPECT_EQ((*ranks)->node_leader(), (*ranks)->rank() == 0);
}

TEST(MpiCollective, ATextThatIsTooLongIsAnErrorOnEveryRankAndBreaksNothing) {
  const auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  const bool last = (*ranks)->rank() == (*ranks)->size() - 1;
  EXPECT_FALSE((*ranks)->all_gather(last ? std::string(std::size_t{2} << 20U, 'x') : "short"));
  EXPECT_TRUE((*ranks)->quiet_wait());
}

TEST(MpiCollective, RefusesANullCommunicator) {
  const auto ranks = mpi::make_mpi_collective(MPI_COMM_NULL);
  ASSERT_FALSE(ranks);
  EXPECT_EQ(ranks.error().code, ErrorCode::kUsage);
}

TEST(MpiCollective, LeavesTheCallersErrorHandlerAlone) {
  MPI_Errhandler before = MPI_ERRHANDLER_NULL;
  MPI_Errhandler during = MPI_ERRHANDLER_NULL;
  MPI_Comm_get_errhandler(MPI_COMM_WORLD, &before);
  {
    const auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
    ASSERT_TRUE(ranks);
    MPI_Comm_get_errhandler(MPI_COMM_WORLD, &during);
  }
  EXPECT_TRUE(before == MPI_ERRORS_ARE_FATAL);
  EXPECT_TRUE(during == before);
}

}  // namespace
}  // namespace fvprefetch::testing
