#include "prefetch/space.h"

#include <gtest/gtest.h>

#include <limits>

namespace fvprefetch {
namespace {

TEST(SpaceCheck, TwoDisksWithAsMuchRoomAreTwo) {
  SpaceCheck space([](const std::string& directory) {
    return SpaceCheck::Place{100, directory == "/a" ? "1" : "2"};
  });
  EXPECT_TRUE(space.take("/a", 60).fits);
  EXPECT_TRUE(space.take("/b", 60).fits);
}

TEST(SpaceCheck, OneDiskIsOneHoweverItsRoomChangesMeanwhile) {
  std::uint64_t free = 100;
  SpaceCheck space([&free](const std::string&) { return SpaceCheck::Place{free--, "1"}; });
  EXPECT_TRUE(space.take("/a", 60).fits);
  const SpaceCheck::Answer second = space.take("/b", 60);
  EXPECT_FALSE(second.fits);
  EXPECT_EQ(second.others, 60U);
  EXPECT_EQ(second.free, 99U);
  EXPECT_TRUE(space.take("/b", 39).fits);  // what does not fit takes nothing
}

TEST(SpaceCheck, ADiskThatDoesNotTellIsNoAnswer) {
  SpaceCheck space([](const std::string&) { return SpaceCheck::Place{std::nullopt, "1"}; });
  EXPECT_FALSE(space.take("/a", 60).free);
}

SpaceCheck few_files(std::optional<std::uint64_t> free_bytes) {
  return SpaceCheck([free_bytes](const std::string&) {
    return SpaceCheck::Place{free_bytes, "1", 10};
  });
}

TEST(SpaceCheck, MoreFilesThanADiskTakesDoNotFit) {
  SpaceCheck space = few_files(100);
  EXPECT_TRUE(space.take("/a", 1, 6).fits);
  const SpaceCheck::Answer more = space.take("/b", 1, 5);
  EXPECT_FALSE(more.fits);
  EXPECT_EQ(more.free_files, 10U);
  EXPECT_TRUE(space.take("/b", 1, 4).fits);  // what does not fit takes nothing
}

TEST(SpaceCheck, FilesAreCountedWhereBytesAreNotTold) {
  SpaceCheck space = few_files(std::nullopt);
  EXPECT_FALSE(space.take("/a", 1, 10).free_files);
  EXPECT_EQ(space.take("/a", 1, 1).free_files, 10U);
}

TEST(SpaceCheck, TooManyBytesAreToldBeforeTooManyFiles) {
  SpaceCheck space = few_files(100);
  const SpaceCheck::Answer answer = space.take("/a", 101, 11);
  EXPECT_FALSE(answer.fits);
  EXPECT_FALSE(answer.free_files);
}

TEST(AddSizes, EndsAtTheLargestNumber) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(add_sizes(1, 2), 3U);
  EXPECT_EQ(add_sizes(kMost - 1, 1), kMost);
  EXPECT_EQ(add_sizes(kMost, kMost), kMost);
}

TEST(SpaceCheck, ADirectoryThatIsNotThereIsOnTheDiskOfTheOneAboveIt) {
  SpaceCheck space;
  const auto above = space.take("/tmp", 0);
  const auto below = space.take("/tmp/not/there/yet", 0);
  ASSERT_TRUE(above.free);
  EXPECT_TRUE(below.fits);
  EXPECT_EQ(below.device, above.device);
}

}  // namespace
}  // namespace fvprefetch
