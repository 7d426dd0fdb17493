#include "cli/mpi_module.h"

#include <gtest/gtest.h>

#include "support/matchers.h"
#include "support/temp_dir.h"

namespace fvprefetch::cli {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::TempDir;

std::optional<std::string> no_variables(std::string_view) {
  return std::nullopt;
}

TEST(MpiModule, IsFoundBesideTheExecutable) {
  const TempDir dir;
  const std::string path = dir.write("fvprefetch-mpi.so", "");
  const auto found = find_mpi_module(no_variables, dir.path());
  ASSERT_TRUE(IsOk(found));
  EXPECT_EQ(*found, path);
}

TEST(MpiModule, ThatIsNowhereIsAnErrorThatNamesThePlaces) {
  const TempDir dir;
  EXPECT_TRUE(
      FailsWith(find_mpi_module(no_variables, dir / "bin"), ErrorCode::kLauncher, dir / "bin"));
}

TEST(MpiModule, ThatTheUserNamesWins) {
  const TempDir dir;
  dir.write("fvprefetch-mpi.so", "");
  const std::string other = dir.write("other.so", "");
  const auto found = find_mpi_module(
      [&](std::string_view name) -> std::optional<std::string> {
        return name == "FVPREFETCH_MPI_MODULE" ? std::optional(other) : std::nullopt;
      },
      dir.path());
  ASSERT_TRUE(IsOk(found));
  EXPECT_EQ(*found, other);
}

TEST(MpiModule, ThatCannotBeLoadedIsAnErrorAndNoCrash) {
  const TempDir dir;
  EXPECT_TRUE(FailsWith(load_mpi_module(dir.write("bad.so", "no library")), ErrorCode::kLauncher,
                        "bad.so"));
}

}  // namespace
}  // namespace fvprefetch::cli
