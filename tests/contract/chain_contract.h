// What the chain must do over any Collective; instantiated as collective_contract.h is.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "cluster/chain.h"
#include "contract/collective_contract.h"
#include "support/thread_tail.h"

namespace fvprefetch::testing {

class ChainContract : public ::testing::TestWithParam<CollectiveHarness> {
 protected:
  static void on_every_rank(const std::function<void(Collective&)>& body) { GetParam().run(body); }
};

/// Many frames of few bytes.
inline ChainOptions small_frames() {
  ChainOptions options;
  options.frame_bytes = 1000;
  options.frames = 3;
  options.word_every = 2;
  return options;
}

/// One rank's end of a stream of `size` known bytes.
struct TestEnd {
  TestEnd(std::size_t size, int takers)
      : whole(sample_bytes(size, 1)), got(static_cast<std::size_t>(takers)) {
    end.source = [this](std::span<std::byte> room) {
      const std::size_t length = std::min(room.size(), whole.size() - at);
      std::copy_n(whole.begin() + static_cast<std::ptrdiff_t>(at), length, room.begin());
      at += length;
      return length;
    };
    for (auto& mine : got) {
      end.takers.emplace_back([&mine](std::span<const std::byte> piece) {
        mine.insert(mine.end(), piece.begin(), piece.end());
      });
    }
    end.word = [] { return ChainWord{}; };
    end.go_on = [this](const ChainWord& sum) {
      sums.push_back(sum.out);
      return true;
    };
  }

  std::vector<std::byte> whole;
  std::vector<std::vector<std::byte>> got;  // by taker
  std::size_t at = 0;
  std::vector<std::uint32_t> sums;
  ChainEnd end;
};

TEST_P(ChainContract, GivesEveryTakerOfEveryRankTheWholeStream) {
  on_every_rank([](Collective& ranks) {
    for (const std::size_t size : std::vector<std::size_t>{0, 1, 999, 1000, 1001, 50'000}) {
      TestEnd mine(size, 2);
      const auto whole = run_chain(ranks, mine.end, small_frames());
      EXPECT_TRUE(whole.whole);
      for (const auto& got : mine.got) EXPECT_TRUE(got == mine.whole) << size << " bytes";
    }
    EXPECT_TRUE(ranks.quiet_wait());
  });
}

TEST_P(ChainContract, CarriesFramesThatNoMpiSendsAtOnce) {
  on_every_rank([](Collective& ranks) {
    ChainOptions options;
    options.frame_bytes = std::size_t{1} << 20U;
    TestEnd mine((std::size_t{10} << 20U) + 7, 1);
    const auto whole = run_chain(ranks, mine.end, options);
    EXPECT_TRUE(whole.whole);
    EXPECT_TRUE(mine.got[0] == mine.whole);
  });
}

TEST_P(ChainContract, ReturnsWhenAllOfItsThreadsHaveEnded) {
  on_every_rank([](Collective& ranks) {
    const auto ended = std::make_shared<std::atomic<bool>>(false);
    TestEnd mine(1000, 1);
    mine.end.takers[0] = [ended](std::span<const std::byte> /*piece*/) {
      give_thread_a_tail(ended);
    };
    EXPECT_TRUE(run_chain(ranks, mine.end, small_frames()).whole);
    EXPECT_TRUE(*ended);
  });
}

TEST_P(ChainContract, RankZeroHearsTheWordsOfAllRanks) {
  on_every_rank([](Collective& ranks) {
    TestEnd mine(20'000, 1);
    mine.end.word = [&] { return ChainWord{static_cast<std::uint32_t>(ranks.rank()), 0}; };
    const auto whole = run_chain(ranks, mine.end, small_frames());
    EXPECT_TRUE(whole.whole);
    const auto all = static_cast<std::uint32_t>(ranks.size() * (ranks.size() - 1) / 2);
    EXPECT_EQ(mine.sums.empty(), ranks.rank() != 0);
    for (const std::uint32_t sum : mine.sums) EXPECT_EQ(sum, all);
  });
}

TEST_P(ChainContract, RankZeroMayEndItEarlyAndEveryRankLearnsThatItWas) {
  on_every_rank([](Collective& ranks) {
    TestEnd mine(0, 1);
    mine.end.source = [&](std::span<std::byte> room) {  // without an end
      for (std::byte& byte : room) byte = static_cast<std::byte>(mine.at++ % 251);
      return room.size();
    };
    mine.end.word = [&] { return ChainWord{1, 0}; };
    mine.end.go_on = [&](const ChainWord& sum) {
      return sum.out < static_cast<std::uint32_t>(ranks.size());
    };
    const auto whole = run_chain(ranks, mine.end, small_frames());
    ASSERT_FALSE(whole.error);
    EXPECT_FALSE(whole.whole);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < mine.got[0].size(); ++i) {
      if (mine.got[0][i] != static_cast<std::byte>(i % 251)) ++wrong;
    }
    EXPECT_EQ(wrong, 0U);
    EXPECT_TRUE(ranks.quiet_wait());
  });
}

TEST_P(ChainContract, WaitsForASourceThatIsSlowerThanItsPatience) {
  on_every_rank([](Collective& ranks) {
    if (ranks.size() == 1) return;  // nobody who waits
    ChainOptions options = small_frames();
    // Long enough for ranks that share two busy cores to be heard of in time.
    options.patience = std::chrono::milliseconds(1500);
    TestEnd mine(1500, 1);
    const auto source = mine.end.source;
    bool slow = true;
    mine.end.source = [&](std::span<std::byte> room) {
      if (std::exchange(slow, false)) std::this_thread::sleep_for(options.patience * 3 / 2);
      return source(room);
    };
    const auto whole = run_chain(ranks, mine.end, options);
    EXPECT_TRUE(whole.whole) << (whole.error ? whole.error->message : "");
    EXPECT_TRUE(mine.got[0] == mine.whole);
  });
}

TEST_P(ChainContract, ATakerThatIsSlowerThanItsPatienceIsNotLost) {
  on_every_rank([](Collective& ranks) {
    if (ranks.size() == 1) return;
    ChainOptions options = small_frames();
    options.patience = std::chrono::milliseconds(1500);
    TestEnd mine(20'000, 1);
    const auto taker = mine.end.takers[0];
    bool slow = ranks.rank() == ranks.size() - 1;  // all others wait for its frames to be free
    mine.end.takers[0] = [&](std::span<const std::byte> piece) {
      if (std::exchange(slow, false)) std::this_thread::sleep_for(options.patience * 3 / 2);
      taker(piece);
    };
    const auto whole = run_chain(ranks, mine.end, options);
    EXPECT_TRUE(whole.whole) << (whole.error ? whole.error->message : "");
    EXPECT_TRUE(mine.got[0] == mine.whole);
    EXPECT_TRUE(ranks.quiet_wait());
  });
}

}  // namespace fvprefetch::testing
