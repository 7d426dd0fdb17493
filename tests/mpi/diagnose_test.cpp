// `doctor` over MPI: all ranks have one answer, also when one of them fails, and leave nothing.
#include "cluster/diagnose.h"

#include <gtest/gtest.h>
#include <mpi.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "mpi/mpi_collective.h"

namespace fvprefetch {
namespace {

namespace fs = std::filesystem;

// A directory that all ranks know.
class Shared {
 public:
  explicit Shared(Collective& ranks) : ranks_(ranks) {
    std::string path = (fs::temp_directory_path() / "fvprefetch-mpi.XXXXXX").string();
    if (ranks.rank() == 0 && ::mkdtemp(path.data()) == nullptr) ADD_FAILURE();
    path_ = ranks.broadcast(path).value();
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() {
    (void)ranks_.quiet_wait();
    std::error_code ignored;
    if (ranks_.rank() == 0) fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  Collective& ranks_;
  std::string path_;
};

Options options_in(const std::string& path) {
  Options options;
  options.cache_dir = path;
  options.hf_cache_dir = path;
  options.environment = [path](std::string_view name) -> std::optional<std::string> {
    return name == "HOME" ? std::optional(path) : std::nullopt;
  };
  return options;
}

void expect_agreement(Collective& ranks, const Diagnosis& found) {
  const auto codes = ranks.all_gather(std::to_string(exit_code(found.code())));
  ASSERT_TRUE(codes);
  for (const std::string& code : *codes) EXPECT_EQ(code, codes->front());
}

TEST(MpiDiagnose, TestsTheLocksOfADirectoryAndLeavesNothing) {
  const auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  const Shared shared(**ranks);
  const Diagnosis found = diagnose(**ranks, options_in(shared.path()), {});
  EXPECT_FALSE(found.error);
  expect_agreement(**ranks, found);
  ASSERT_EQ(found.tested.size(), 2U);
  if ((*ranks)->size() > 1) {
    for (const TriedPrimitive& tried : found.tested[0].test.tried) {
      EXPECT_EQ(tried.verdict, Verdict::kExcludes) << name(tried.primitive) << tried.detail;
    }
  }
  EXPECT_TRUE(fs::is_empty(shared.path()));
}

TEST(MpiDiagnose, EndsAlikeOnAllRanksWhenOneSeesAnotherDirectory) {
  const auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  const Shared shared(**ranks);
  std::string path = shared.path();
  if ((*ranks)->rank() == 1) path += "/elsewhere";
  DiagnoseOptions how;
  how.self_test.visible_timeout = std::chrono::milliseconds(100);
  const Diagnosis found = diagnose(**ranks, options_in(path), how);
  expect_agreement(**ranks, found);
}

TEST(MpiDiagnose, EndsAlikeOnAllRanksWhenRankZeroCannotWrite) {
  const auto ranks = mpi::make_mpi_collective(MPI_COMM_WORLD);
  ASSERT_TRUE(ranks);
  const Diagnosis found = diagnose(**ranks, options_in("/proc/fvprefetch"), {});
  EXPECT_TRUE(found.error);
  expect_agreement(**ranks, found);
}

}  // namespace
}  // namespace fvprefetch
