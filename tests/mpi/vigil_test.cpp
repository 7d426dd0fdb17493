// While rank 0 works the others wait for it: they tell it of signals, and notice when it is dead.
#include <gtest/gtest.h>
#include <mpi.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "cluster/chain.h"
#include "mpi/mpi_collective.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

void work_for(milliseconds time, const std::function<void()>& between) {
  for (const auto end = steady_clock::now() + time; steady_clock::now() < end;) {
    between();
    std::this_thread::sleep_for(milliseconds(10));
  }
}

TEST(Vigil, WorkThatTakesLongerThanThePatienceOfTheOthersIsWaitedFor) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  Vigil vigil;
  vigil.patience = milliseconds(1000);
  for (int round = 0; round < 2; ++round) {  // nothing is left over from the first
    if ((*ranks)->rank() == 0) {
      work_for(3 * vigil.patience, [&] { EXPECT_EQ((*ranks)->attend(vigil), 0); });
    }
    const Status waited = (*ranks)->await_work(vigil);
    EXPECT_TRUE(waited) << (waited ? "" : waited.error().message);
  }
  EXPECT_TRUE((*ranks)->quiet_wait());
}

TEST(Vigil, ARankThatWasAtWorkItselfIsNotLateForAllTheSignsOfLifeThatItMissed) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  Vigil vigil;
  vigil.patience = milliseconds(1000);  // so there is one every 100 ms
  const milliseconds work(12'000);
  if ((*ranks)->rank() == 0) {
    work_for(work, [&] { EXPECT_EQ((*ranks)->attend(vigil), 0); });
  } else {
    std::this_thread::sleep_for(work);
  }
  const Status waited = (*ranks)->await_work(vigil);
  EXPECT_TRUE(waited) << (waited ? "" : waited.error().message);
}

TEST(Vigil, RankZeroHearsOfASignalThatAnotherRankWasSent) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  const int size = (*ranks)->size();
  for (int told = 1; told < size; ++told) {
    Vigil vigil;
    vigil.signal = [&] { return (*ranks)->rank() >= told ? SIGINT : 0; };
    int heard = 0;
    if ((*ranks)->rank() == 0) {
      const auto end = steady_clock::now() + std::chrono::seconds(60);
      while (heard == 0 && steady_clock::now() < end) {
        heard = (*ranks)->attend(vigil);
        std::this_thread::sleep_for(milliseconds(1));
      }
      EXPECT_EQ(heard, SIGINT);
    }
    EXPECT_TRUE((*ranks)->await_work(vigil));
  }
  // Of several that were told it has heard one, and none of the others disturbs what comes next.
  Vigil vigil;
  if ((*ranks)->rank() == 0) {
    work_for(milliseconds(300), [&] { EXPECT_EQ((*ranks)->attend(vigil), 0); });
  }
  EXPECT_TRUE((*ranks)->await_work(vigil));
}

TEST(Vigil, ARankZeroThatGivesNoSignOfLifeIsGivenUpByAllOthers) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  Vigil vigil;
  vigil.patience = milliseconds(500);
  if ((*ranks)->rank() == 0) {
    std::this_thread::sleep_for(6 * vigil.patience);  // as if it were dead
    return;
  }
  const Status waited = (*ranks)->await_work(vigil);
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().code, ErrorCode::kNetwork);
  EXPECT_EQ(waited.error().reason, kPeerLost);
  // Everything after it fails at once instead of waiting.
  EXPECT_FALSE((*ranks)->quiet_wait());
}

TEST(Vigil, ARankThatDoesNotComeWithinTheLimitIsGivenUpByAllOthers) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  const WaitLimit limit(**ranks, milliseconds(500));
  if ((*ranks)->rank() == (*ranks)->size() - 1) {
    std::this_thread::sleep_for(milliseconds(3000));  // as if it were dead
    return;
  }
  const auto met = (*ranks)->all_gather("here");
  ASSERT_FALSE(met);
  EXPECT_EQ(met.error().reason, kPeerLost);
  EXPECT_FALSE((*ranks)->quiet_wait());
}

TEST(Vigil, ALimitEndsWhereItBegan) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  {
    const WaitLimit outer(**ranks, milliseconds(60'000));
    { const WaitLimit inner(**ranks, milliseconds(100)); }
    if ((*ranks)->rank() == 0) std::this_thread::sleep_for(milliseconds(300));
    EXPECT_TRUE((*ranks)->quiet_wait());
  }
  if ((*ranks)->rank() == 0) std::this_thread::sleep_for(milliseconds(300));
  EXPECT_TRUE((*ranks)->quiet_wait());
}

// A rank that is dead in the middle of a stream: its neighbours miss its signs of life, and the
// others hear of it from them.
TEST(Vigil, ARankThatDiesInTheChainIsNamedAndEverybodyHearsOfIt) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  const int size = (*ranks)->size();
  ASSERT_GE(size, 3);  // one has to be no neighbour of the dead one
  const int dead = size - 1;
  ChainOptions options;
  options.frames = 3;
  options.patience = milliseconds(1000);
  if ((*ranks)->rank() == dead) {
    std::this_thread::sleep_for(6 * options.patience);
    return;
  }
  ChainEnd end;
  end.source = [](std::span<std::byte> room) { return room.size(); };  // without an end
  end.word = [] { return ChainWord{}; };
  end.go_on = [](const ChainWord&) { return true; };
  for (int rank = 0; rank < size; ++rank) end.names.push_back("n" + std::to_string(rank));
  const auto whole = run_chain(**ranks, end, options);
  ASSERT_FALSE(whole);
  EXPECT_EQ(whole.error().reason, kPeerLost);
  const bool next_to_it = (*ranks)->rank() == dead - 1;
  EXPECT_EQ(whole.error().message,
            next_to_it ? "node n" + std::to_string(dead) + " has given no sign of life for 1 s"
                       : "node n" + std::to_string((*ranks)->rank() + 1) +
                             " says that a node of the job is lost");
}

}  // namespace
}  // namespace fvprefetch
