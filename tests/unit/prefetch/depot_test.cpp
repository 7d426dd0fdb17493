// What a node looks at before it takes what is staged. This program's stat() and lstat() count
// before they do what libc's do.
#include "prefetch/depot.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "support/matchers.h"
#include "support/temp_dir.h"

namespace {

std::string counted;  // looks at what has this in its path
int looks = 0;

int look(const char* path, struct ::stat* status, int flags) {
  if (!counted.empty() && std::string_view(path).find(counted) != std::string_view::npos) ++looks;
  return ::fstatat(AT_FDCWD, path, status, flags);
}

}  // namespace

extern "C" int stat(const char* path, struct ::stat* status) noexcept {
  return look(path, status, 0);
}
extern "C" int lstat(const char* path, struct ::stat* status) noexcept {
  return look(path, status, AT_SYMLINK_NOFOLLOW);
}

namespace fvprefetch {
namespace {

using testing::IsOk;
using testing::TempDir;

constexpr std::size_t kFiles = 100;

Cargo repository_of_many_files(const TempDir& dir) {
  Cargo cargo;
  cargo.place = place_in(dir / "stage");
  CargoEntry entry;
  entry.commit = std::string(40, 'c');
  entry.tree.emplace();
  for (std::size_t i = 0; i < kFiles; ++i) {
    RepoFile file;
    file.path = "f" + std::to_string(100 + i);
    file.size = 1;
    file.git_oid = std::string(37, 'a') + std::to_string(100 + i);
    CargoFile carried;
    carried.spec.path = file.path;
    carried.spec.size = file.size;
    carried.spec.blob = file.git_oid;
    carried.spec.digest = Digest{Digest::Kind::kGitSha1, file.git_oid};
    entry.files.push_back(std::move(carried));
    entry.tree->push_back(std::move(file));
  }
  cargo.entries.push_back(std::move(entry));
  Entry wanted;
  wanted.name = "m";
  wanted.source = "org/model";
  cargo.manifest.entries.push_back(std::move(wanted));
  return cargo;
}

TEST(Depot, LooksOnceForARepositoryThatIsNotThereThoughTheCacheIs) {
  const TempDir dir;
  const Cargo cargo = repository_of_many_files(dir);
  dir.write("stage/hub/CACHEDIR.TAG", "");  // another repository was staged before
  Depot depot(cargo);
  ASSERT_TRUE(IsOk(depot.open()));
  counted = "models--org--model";
  looks = 0;
  const auto missing = depot.missing();
  counted.clear();
  ASSERT_TRUE(IsOk(missing));
  EXPECT_EQ(std::count(missing->begin(), missing->end(), true),
            static_cast<std::ptrdiff_t>(kFiles));
  EXPECT_GT(looks, 0);
  EXPECT_LT(looks, static_cast<int>(kFiles) * 2);
}

}  // namespace
}  // namespace fvprefetch
