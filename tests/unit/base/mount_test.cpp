#include "base/mount.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/posix.h"
#include "support/temp_dir.h"

namespace fvprefetch::posix {
namespace {

constexpr std::string_view kMounts =
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw,errors=remount-ro\n"
    "30 22 0:40 / /shared ro,noatime - nfs4 head:/export rw,vers=4.1,local_lock=none\n"
    "31 30 0:41 / /shared/deep\\040er rw - fuse.x https://user:word@host/dav rw,password=abc,ok\n"
    "32 22 0:42 / /twice rw - tmpfs first rw\n"
    "33 32 0:43 / /twice rw master:1 propagate_from:2 - tmpfs second rw\n"
    "nonsense\n";

TEST(Mount, IsTheDeepestThatHoldsThePath) {
  const auto mount = mount_of(kMounts, "/shared/eval");
  ASSERT_TRUE(mount);
  EXPECT_EQ(mount->type, "nfs4");
  EXPECT_EQ(mount->source, "head:/export");
  EXPECT_EQ(mount->point, "/shared");
}

TEST(Mount, HasTheOptionsOfMountAndFileSystemAndTheMountsRightToWrite) {
  EXPECT_EQ(mount_of(kMounts, "/shared")->options, "ro,noatime,vers=4.1,local_lock=none");
}

TEST(Mount, EndsAtAWholeName) {
  EXPECT_EQ(mount_of(kMounts, "/sharedfolder")->point, "/");
}

TEST(Mount, KnowsBlanksAndTellsNoSecret) {
  const auto mount = mount_of(kMounts, "/shared/deep er/x");
  ASSERT_TRUE(mount);
  EXPECT_EQ(mount->point, "/shared/deep er");
  EXPECT_EQ(mount->source, "https://host/dav");
  EXPECT_EQ(mount->options, "rw,ok");
}

TEST(Mount, OfTwoOnOnePointIsTheLaterOne) {
  EXPECT_EQ(mount_of(kMounts, "/twice/x")->source, "second");
}

TEST(Mount, IsNotKnownWhereNothingIsTold) {
  EXPECT_FALSE(mount_of("", "/x"));
}

TEST(Rights, AreThoseOfTheDirectory) {
  const fvprefetch::testing::TempDir dir;
  const auto rights = rights_in(dir.path());
  ASSERT_TRUE(rights);
  EXPECT_EQ(rights->mode, "drwx------");
  EXPECT_EQ(rights->owner, ::geteuid());
  EXPECT_TRUE(rights->write);
  const auto space = space_of(dir.path());
  ASSERT_TRUE(space);
  EXPECT_GE(space->bytes_total, space->bytes_free);
}

TEST(Rights, OfWhatIsNotThereAreAnError) {
  const auto rights = rights_in("/nonexistent/fvprefetch");
  ASSERT_FALSE(rights);
  EXPECT_EQ(rights.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace fvprefetch::posix
