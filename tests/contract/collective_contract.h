// What every Collective must do, whatever carries it. A user of this header says how to run a body
// on all ranks and instantiates the suite:
//
//   INSTANTIATE_TEST_SUITE_P(Threads, CollectiveContract, ::testing::Values(...), harness_name);
//
// Every rank runs the whole body: an expectation may fail on one rank, but no rank may leave a body
// early, or the others would wait for it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <climits>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cluster/collective.h"

namespace fvprefetch::testing {

struct CollectiveHarness {
  std::string name;
  /// Runs the body on every rank; returns when the ranks of this process are done.
  std::function<void(const std::function<void(Collective&)>&)> run;
};

inline std::string harness_name(const ::testing::TestParamInfo<CollectiveHarness>& info) {
  return info.param.name;
}

class CollectiveContract : public ::testing::TestWithParam<CollectiveHarness> {
 protected:
  static void on_every_rank(const std::function<void(Collective&)>& body) { GetParam().run(body); }
};

inline Error sample_error(int rank) {
  Error error;
  error.code = ErrorCode::kNoSpace;
  error.message = "no space for rank " + std::to_string(rank);
  error.hint = "free some";
  error.context = {"while writing x"};
  error.subject = "/cache/x";
  error.retry_after = std::chrono::seconds(7);
  return error;
}

TEST_P(CollectiveContract, NumbersTheRanksFromZero) {
  on_every_rank([](Collective& ranks) {
    const auto numbers = ranks.all_gather(std::to_string(ranks.rank()));
    ASSERT_TRUE(numbers);
    ASSERT_EQ(numbers->size(), static_cast<std::size_t>(ranks.size()));
    for (std::size_t i = 0; i < numbers->size(); ++i) EXPECT_EQ((*numbers)[i], std::to_string(i));
  });
}

TEST_P(CollectiveContract, MakesTheLowestRankOfEachNodeItsLeader) {
  on_every_rank([](Collective& ranks) {
    EXPECT_FALSE(ranks.node().empty());
    const auto nodes = ranks.all_gather(ranks.node());
    const auto leaders = ranks.all_gather(ranks.node_leader() ? "leader" : "");
    ASSERT_TRUE(nodes && leaders);
    std::map<std::string, std::size_t> lowest;
    for (std::size_t i = 0; i < nodes->size(); ++i) lowest.try_emplace((*nodes)[i], i);
    EXPECT_EQ(static_cast<std::size_t>(ranks.nodes()), lowest.size());
    for (std::size_t i = 0; i < nodes->size(); ++i) {
      EXPECT_EQ((*leaders)[i] == "leader", lowest[(*nodes)[i]] == i) << "rank " << i;
    }
  });
}

TEST_P(CollectiveContract, BroadcastGivesEveryRankTheBytesOfRankZero) {
  const std::string bytes("a\0b\xff", 4);
  on_every_rank([&](Collective& ranks) {
    const auto got = ranks.broadcast(ranks.rank() == 0 ? bytes : "other words, and more of them");
    ASSERT_TRUE(got);
    EXPECT_EQ(*got, bytes);
  });
}

TEST_P(CollectiveContract, BroadcastCanBeEmpty) {
  on_every_rank([](Collective& ranks) {
    const auto got = ranks.broadcast(ranks.rank() == 0 ? "" : "ignored");
    ASSERT_TRUE(got);
    EXPECT_EQ(*got, "");
  });
}

TEST_P(CollectiveContract, BroadcastCarriesMegabytes) {
  std::string bytes((std::size_t{3} << 20U) + 5, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 / 7);
  on_every_rank([&](Collective& ranks) {
    const auto got = ranks.broadcast(ranks.rank() == 0 ? bytes : "");
    ASSERT_TRUE(got);
    EXPECT_TRUE(*got == bytes);  // not EXPECT_EQ, which would print them
  });
}

TEST_P(CollectiveContract, MaxIsTheLargestValueOfAnyRank) {
  on_every_rank([](Collective& ranks) {
    const auto rising = ranks.max(ranks.rank());
    const auto falling = ranks.max(-ranks.rank() - 1);
    const auto extreme = ranks.max(ranks.rank() == ranks.size() - 1 ? INT_MAX : INT_MIN);
    ASSERT_TRUE(rising && falling && extreme);
    EXPECT_EQ(*rising, ranks.size() - 1);
    EXPECT_EQ(*falling, -1);
    EXPECT_EQ(*extreme, INT_MAX);
  });
}

TEST_P(CollectiveContract, AllGatherKeepsEmptyAndUnequalTexts) {
  const auto text_of = [](int rank) {
    return rank % 2 == 0 ? std::string(static_cast<std::size_t>(rank) * 100, '\0') : "odd";
  };
  on_every_rank([&](Collective& ranks) {
    const auto texts = ranks.all_gather(text_of(ranks.rank()));
    ASSERT_TRUE(texts);
    ASSERT_EQ(texts->size(), static_cast<std::size_t>(ranks.size()));
    for (int rank = 0; rank < ranks.size(); ++rank) {
      EXPECT_EQ((*texts)[static_cast<std::size_t>(rank)], text_of(rank));
    }
  });
}

TEST_P(CollectiveContract, NoRankLeavesQuietWaitBeforeAllHaveCome) {
  on_every_rank([](Collective& ranks) {
    std::string pattern = (std::filesystem::temp_directory_path() / "fvp-wait-XXXXXX").string();
    if (ranks.rank() == 0 && mkdtemp(pattern.data()) == nullptr) pattern.clear();
    const auto directory = ranks.broadcast(pattern);
    ASSERT_TRUE(directory);
    ASSERT_NE(*directory, "");
    const auto mark = [&](int round, int rank) {
      return *directory + "/" + std::to_string(round) + "." + std::to_string(rank);
    };
    int missing = 0;
    // Several rounds: a barrier that does not wait lets a fast rank through in one of them.
    for (int round = 0; round < 10; ++round) {
      std::ofstream(mark(round, ranks.rank())).close();
      EXPECT_TRUE(ranks.quiet_wait());
      for (int rank = 0; rank < ranks.size(); ++rank) {
        if (!std::filesystem::exists(mark(round, rank))) ++missing;
      }
    }
    EXPECT_EQ(missing, 0);
    EXPECT_TRUE(ranks.quiet_wait());  // everybody has looked
    if (ranks.rank() == 0) std::filesystem::remove_all(*directory);
  });
}

TEST_P(CollectiveContract, TheLeadersMeetAmongThemselvesInTheOrderOfTheirRanks) {
  on_every_rank([](Collective& ranks) {
    for (int round = 0; round < 2; ++round) {
      auto leaders = ranks.leaders();
      ASSERT_TRUE(leaders);
      EXPECT_EQ(*leaders != nullptr, ranks.node_leader());
      EXPECT_EQ(ranks.node_leader(), ranks.leader() == ranks.rank());
      if (*leaders != nullptr) {
        EXPECT_EQ((*leaders)->size(), ranks.nodes());
        EXPECT_TRUE((*leaders)->node_leader());
        EXPECT_EQ((*leaders)->node(), ranks.node());
        const auto numbers = (*leaders)->all_gather(std::to_string(ranks.rank()));
        ASSERT_TRUE(numbers);
        for (std::size_t i = 1; i < numbers->size(); ++i) {
          EXPECT_LT(std::stoi((*numbers)[i - 1]), std::stoi((*numbers)[i]));
        }
      }
      EXPECT_TRUE(ranks.quiet_wait());
    }
  });
}

inline std::vector<std::byte> sample_bytes(std::size_t size, int seed) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>((i * 7 + static_cast<std::size_t>(seed)) / 3);
  }
  return bytes;
}

inline void see_through(Pending& message) {
  for (;;) {
    const auto done = message.done();
    ASSERT_TRUE(done) << done.error().message;
    if (*done) return;
    std::this_thread::yield();
  }
}

TEST_P(CollectiveContract, MessagesFromOneRankToTheNextArriveInOrderAndWhole) {
  on_every_rank([](Collective& ranks) {
    if (ranks.size() == 1) return;
    // Around the ring, several at once, of a size that no MPI sends without being asked for it.
    const std::vector<std::size_t> sizes{3, std::size_t{5} << 20U, 0, 100'000};
    const int next = (ranks.rank() + 1) % ranks.size();
    const int before = (ranks.rank() + ranks.size() - 1) % ranks.size();
    std::vector<std::vector<std::byte>> sent;
    std::vector<std::vector<std::byte>> received;
    std::vector<std::unique_ptr<Pending>> pending;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      sent.push_back(sample_bytes(sizes[i], ranks.rank() + static_cast<int>(i)));
      received.emplace_back(sizes[i] + 10);  // room for more than comes
    }
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      auto in = ranks.receive(before, Mail::kStream, received[i]);
      auto out = ranks.send(next, Mail::kStream, sent[i]);
      ASSERT_TRUE(in && out);
      pending.push_back(*std::move(in));
      pending.push_back(*std::move(out));
    }
    for (const auto& message : pending) see_through(*message);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      received[i].resize(sizes[i]);
      EXPECT_TRUE(received[i] == sample_bytes(sizes[i], before + static_cast<int>(i)));
    }
    EXPECT_TRUE(ranks.quiet_wait());
  });
}

TEST_P(CollectiveContract, FirstFailureIsNothingWhenNobodyFails) {
  on_every_rank([](Collective& ranks) {
    const auto failure = first_failure(ranks, std::nullopt);
    ASSERT_TRUE(failure);
    EXPECT_FALSE(failure->has_value());
  });
}

TEST_P(CollectiveContract, FirstFailureTellsEveryRankOfTheOnlyOne) {
  on_every_rank([](Collective& ranks) {
    const int failing = ranks.size() - 1;
    const auto failure = first_failure(
        ranks, ranks.rank() == failing ? std::optional(sample_error(failing)) : std::nullopt);
    ASSERT_TRUE(failure);
    ASSERT_TRUE(failure->has_value());
    const Error& error = **failure;
    const Error expected = sample_error(failing);
    EXPECT_EQ(error.code, expected.code);
    EXPECT_EQ(error.message, expected.message);
    EXPECT_EQ(error.hint, expected.hint);
    EXPECT_EQ(error.subject, expected.subject);
    EXPECT_EQ(error.retry_after, expected.retry_after);
    ASSERT_FALSE(error.context.empty());
    EXPECT_EQ(error.context.front(), "while writing x");
    if (ranks.size() > 1) {
      EXPECT_EQ(error.context.back().rfind("on rank " + std::to_string(failing), 0), 0U);
    }
  });
}

TEST_P(CollectiveContract, FirstFailureIsTheLowestRanksAndCountsTheOthers) {
  on_every_rank([](Collective& ranks) {
    const int lowest = ranks.size() > 1 ? 1 : 0;
    const auto failure = first_failure(
        ranks, ranks.rank() >= lowest ? std::optional(sample_error(ranks.rank())) : std::nullopt);
    ASSERT_TRUE(failure);
    ASSERT_TRUE(failure->has_value());
    EXPECT_EQ((*failure)->message, sample_error(lowest).message);
    const int failed = ranks.size() - lowest;
    if (failed > 1) {
      EXPECT_EQ((*failure)->context.back(),
                std::to_string(failed) + " of " + std::to_string(ranks.size()) + " ranks failed");
    }
  });
}

}  // namespace fvprefetch::testing
