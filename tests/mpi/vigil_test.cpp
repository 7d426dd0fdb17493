// While rank 0 works the others wait for it: they tell it of signals, and notice when it is dead.
#include <gtest/gtest.h>
#include <mpi.h>

#include <chrono>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

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

TEST(Vigil, WorkOfAnyRankThatTakesLongerThanThePatienceIsWaitedFor) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  Vigil vigil;
  vigil.patience = milliseconds(1000);
  std::vector<std::string> waited_for;
  vigil.on_wait = [&](const std::string& whom, milliseconds) { waited_for.push_back(whom); };
  const int last = (*ranks)->size() - 1;
  for (int round = 0; round < 2; ++round) {
    if ((*ranks)->rank() == last) {
      work_for(3 * vigil.patience, [&] { EXPECT_EQ((*ranks)->attend(vigil), 0); });
    }
    const Status waited = (*ranks)->await_work(vigil);
    EXPECT_TRUE(waited) << (waited ? "" : waited.error().message);
  }
  if ((*ranks)->rank() == 0) {
    ASSERT_EQ(waited_for.size(), 2U);  // once a round, after 2 s
    EXPECT_EQ(waited_for[0], "rank " + std::to_string(last) + " on " + (*ranks)->node());
  } else {
    EXPECT_TRUE(waited_for.empty());
  }
}

TEST(Vigil, ASignalOfOneRankReachesAllOthersThatWork) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  const int told = (*ranks)->size() - 1;
  int heard = 0;
  Vigil vigil;
  vigil.signal = [&] { return (*ranks)->rank() == told ? SIGINT : heard; };
  const auto end = steady_clock::now() + std::chrono::seconds(60);
  while ((*ranks)->rank() != told && heard == 0 && steady_clock::now() < end) {
    heard = (*ranks)->attend(vigil);
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_EQ(heard, (*ranks)->rank() == told ? 0 : SIGINT);
  EXPECT_TRUE((*ranks)->await_work(vigil));
  EXPECT_TRUE((*ranks)->quiet_wait());
}

TEST(Vigil, AMessageOfTheNextWaitIsNotLostInTheOneBefore) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  Vigil vigil;
  vigil.patience = milliseconds(10'000);
  // Each rank tells its signal at once, in each wait.
  vigil.signal = [&] { return (*ranks)->rank() > 0 ? SIGTERM : 0; };
  for (int round = 0; round < 200; ++round) {
    const Status waited = (*ranks)->await_work(vigil);
    ASSERT_TRUE(waited) << round << ": " << waited.error().message;
  }
  EXPECT_TRUE((*ranks)->quiet_wait());
}

// MPI goes on writing to what a broken communicator's requests use. What the program allocates
// after it must not be that memory.
TEST(Vigil, ARankThatWasOnlySuspendedWritesIntoNothingOfTheProgramAfterwards) {
  auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  Vigil vigil;
  vigil.patience = milliseconds(500);
  if ((*ranks)->rank() == 0) {
    std::this_thread::sleep_for(6 * vigil.patience);
    work_for(milliseconds(500), [&] { (void)(*ranks)->attend(vigil); });
    (void)(*ranks)->await_work(vigil);
    return;
  }
  EXPECT_FALSE((*ranks)->await_work(vigil));
  ranks->reset();
  constexpr unsigned char kByte = 0xAA;
  std::vector<std::vector<unsigned char>> blocks;
  for (std::size_t size = 8; size <= 2048; size += 8) {
    for (int i = 0; i < 8; ++i) blocks.emplace_back(size, kByte);
  }
  // Until rank 0's messages have come: MPI moves on when it is called.
  work_for(10 * vigil.patience, [] {
    int flag = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
  });
  for (const auto& block : blocks) {
    for (std::size_t i = 0; i < block.size(); ++i) {
      ASSERT_EQ(block[i], kByte) << "byte " << i << " of a block of " << block.size();
    }
  }
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
  ASSERT_TRUE(whole.error);
  EXPECT_EQ(whole.error->reason, kPeerLost);
  const bool next_to_it = (*ranks)->rank() == dead - 1;
  EXPECT_EQ(whole.error->message,
            next_to_it ? "no heartbeat from node n" + std::to_string(dead) + " for 1 s"
                       : "node n" + std::to_string((*ranks)->rank() + 1) + " reported a lost node");
}

}  // namespace
}  // namespace fvprefetch
