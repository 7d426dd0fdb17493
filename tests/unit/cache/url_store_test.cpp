#include "cache/url_store.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "support/matchers.h"
#include "support/temp_dir.h"
#include "support/tiny_disk.h"

namespace fvprefetch {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::TempDir;
using testing::TinyDisk;
namespace fs = std::filesystem;

// A finished private file of the store, as the engine leaves it.
Result<posix::Fd> private_file(const std::string& path, std::string_view text) {
  auto fd = posix::create_private(path);
  if (!fd) return fd;
  const Status written =
      posix::write_at(*fd, 0, std::as_bytes(std::span(text.data(), text.size())), path);
  if (!written) return fail(written.error());
  return fd;
}

TEST(UrlStore, LookupOfNothingIsNothing) {
  const TempDir dir;
  const auto info = UrlStore(dir.path(), "models/x").lookup();
  ASSERT_TRUE(IsOk(info));
  EXPECT_FALSE(info->has_value());
}

TEST(UrlStore, LookupWritesNothing) {
  const TempDir dir;
  (void)UrlStore(dir.path(), "models/x").lookup();
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(UrlStore, LookupFollowsALinkThatAUserMade) {
  const TempDir dir;
  dir.write("elsewhere", "123");
  fs::create_directory(dir / "models");
  fs::create_symlink("../elsewhere", dir / "models/x");
  const auto info = UrlStore(dir.path(), "models/x").lookup();
  ASSERT_TRUE(IsOk(info));
  EXPECT_EQ(info->value().size, 3U);
}

TEST(UrlStore, DirectoryAtTheDestinationIsAMistake) {
  const TempDir dir;
  fs::create_directories(dir / "models/x");
  EXPECT_TRUE(
      FailsWith(UrlStore(dir.path(), "models/x").lookup(), ErrorCode::kUsage, "is a directory"));
}

TEST(UrlStore, PrepareMakesTheDirectoriesOfAllItsFiles) {
  const TempDir dir;
  const UrlStore store(dir.path(), "torch/hub/checkpoints/x.pth");
  ASSERT_TRUE(IsOk(store.prepare()));
  EXPECT_TRUE(fs::is_directory(dir / "torch/hub/checkpoints"));
  EXPECT_TRUE(fs::is_directory(posix::parent(store.paths().lock())));
  EXPECT_TRUE(fs::is_directory(posix::parent(store.paths().receipt())));
  EXPECT_TRUE(fs::is_directory(store.paths().temporaries()));
}

TEST(UrlStore, PublishReplacesTheFileAndLeavesNoPrivateOne) {
  const TempDir dir;
  const UrlStore store(dir.path(), "models/x");
  ASSERT_TRUE(IsOk(store.prepare()));
  dir.write("models/x", "old");
  const std::string partial = store.paths().partial("00c0ffee");
  auto fd = private_file(partial, "new");
  ASSERT_TRUE(IsOk(fd));
  EXPECT_TRUE(IsOk(store.publish(*std::move(fd), partial)));
  EXPECT_EQ(dir.read("models/x"), "new");
  EXPECT_EQ(dir.files("models"), std::vector<std::string>{"x"});
}

TEST(UrlStore, PublishReplacesALinkAndNotWhatItLeadsTo) {
  const TempDir dir;
  const UrlStore store(dir.path(), "models/x");
  ASSERT_TRUE(IsOk(store.prepare()));
  dir.write("elsewhere", "another's");
  fs::create_symlink("../elsewhere", dir / "models/x");
  const std::string partial = store.paths().partial("00c0ffee");
  auto fd = private_file(partial, "new");
  ASSERT_TRUE(IsOk(fd));
  ASSERT_TRUE(IsOk(store.publish(*std::move(fd), partial)));
  EXPECT_EQ(dir.read("elsewhere"), "another's");
  EXPECT_EQ(dir.read("models/x"), "new");
}

TEST(UrlStore, FailedPublishLeavesNoPrivateFile) {
  const TempDir dir;
  const UrlStore store(dir.path(), "models/x");
  ASSERT_TRUE(IsOk(store.prepare()));
  const std::string partial = store.paths().partial("00c0ffee");
  auto fd = private_file(partial, "new");
  ASSERT_TRUE(IsOk(fd));
  fs::create_directory(dir / "models/x");
  EXPECT_FALSE(store.publish(*std::move(fd), partial).has_value());
  EXPECT_TRUE(dir.files("models").empty());
}

TEST(UrlStore, FullDiskIsNoSpaceAndLeavesTheFileAsItWas) {
  const TinyDisk disk;
  const UrlStore store(disk.dir().path(), "models/x");
  ASSERT_TRUE(IsOk(store.prepare()));
  disk.dir().write("models/x", "old");
  disk.fill();
  const std::string partial = store.paths().partial("00c0ffee");
  EXPECT_TRUE(FailsWith(private_file(partial, std::string(64U << 10U, 'x')), ErrorCode::kNoSpace));
  EXPECT_EQ(disk.dir().read("models/x"), "old");
}

TEST(UrlStore, TellsTheBytesOfTheLargestPartial) {
  const TempDir dir;
  const UrlStore store(dir.path(), "models/x");
  EXPECT_EQ(store.partial_bytes(), 0U);
  dir.write("models/.x.00c0ffee.fvprefetch-part", "123");
  dir.write("models/.x.deadbeef.fvprefetch-part", "12345");
  dir.write("models/.y.deadbeef.fvprefetch-part", "of another file");
  EXPECT_EQ(store.partial_bytes(), 5U);
}

}  // namespace
}  // namespace fvprefetch
