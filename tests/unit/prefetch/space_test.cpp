#include "prefetch/space.h"

#include <gtest/gtest.h>

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
