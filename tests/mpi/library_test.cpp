// fvprefetch::mpi as a program uses it: on a communicator of its own, with traffic of its own in
// flight. The manifests name paths that exist, so that no network is needed.
#include <fvprefetch/mpi.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <string>
#include <vector>

namespace fvprefetch {
namespace {

Options no_network() {
  Options options;
  options.offline = true;
  return options;
}

Entry path_entry(const std::string& name, const std::string& source) {
  Entry entry;
  entry.name = name;
  entry.source = source;
  return entry;
}

// The ranks of MPI_COMM_WORLD by parity, in reverse order: rank 0 of a half is not rank 0 of all.
class Half {
 public:
  Half() {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &comm_);
    parity_ = rank % 2;
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }
  Half(const Half&) = delete;
  Half& operator=(const Half&) = delete;
  ~Half() { MPI_Comm_free(&comm_); }
  [[nodiscard]] MPI_Comm comm() const { return comm_; }
  [[nodiscard]] int parity() const { return parity_; }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
  int parity_ = 0;
  int rank_ = 0;
  int size_ = 0;
};

TEST(MpiLibrary, EachHalfOfASplitGetsItsOwnAnswer) {
  const Half half;
  // Only rank 0's manifest counts; the others pass one that would fail.
  Manifest manifest;
  manifest.entries.push_back(
      path_entry("mine", half.rank() == 0 ? (half.parity() == 0 ? "/" : "/tmp") : "/nonexistent"));
  const Report report = mpi::prefetch(half.comm(), manifest, no_network());
  EXPECT_TRUE(report.ok()) << describe(report.error.value_or(Error{}));
  EXPECT_EQ(report.ranks, half.size());
  ASSERT_EQ(report.entries.size(), 1U);
  EXPECT_EQ(report.entries[0].path, half.parity() == 0 ? "/" : "/tmp");
}

TEST(MpiLibrary, ACallersPendingTrafficArrivesUnharmed) {
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  // Wildcard receives would take any message of ours that strayed onto the caller's communicator.
  int received = -1;
  const int token = 1000 + rank;
  MPI_Request receive = MPI_REQUEST_NULL;
  MPI_Irecv(&received, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &receive);

  Manifest manifest;
  manifest.entries.push_back(path_entry("root", "/"));
  EXPECT_TRUE(mpi::prefetch(MPI_COMM_WORLD, manifest, no_network()).ok());
  int arrived = 0;
  MPI_Test(&receive, &arrived, MPI_STATUS_IGNORE);
  EXPECT_EQ(arrived, 0);

  MPI_Barrier(MPI_COMM_WORLD);  // nobody sends before everybody has looked
  MPI_Request send = MPI_REQUEST_NULL;
  MPI_Isend(&token, 1, MPI_INT, (rank + 1) % size, 7, MPI_COMM_WORLD, &send);
  EXPECT_TRUE(mpi::prefetch(MPI_COMM_WORLD, manifest, no_network()).ok());
  MPI_Wait(&receive, MPI_STATUS_IGNORE);
  MPI_Wait(&send, MPI_STATUS_IGNORE);
  EXPECT_EQ(received, 1000 + (rank + size - 1) % size);
}

TEST(MpiLibrary, AFailedEntryIsTheSameErrorOnEveryRank) {
  Manifest manifest;
  manifest.entries.push_back(path_entry("there", "/"));
  manifest.entries.push_back(path_entry("gone", "/nonexistent/weights.pth"));
  const Report report = mpi::prefetch(MPI_COMM_WORLD, manifest, no_network());
  EXPECT_EQ(report.code(), ErrorCode::kNotFound);
}

TEST(MpiLibrary, EnsureCheckpointGivesEveryRankThePathOfRankZero) {
  const Half half;
  const auto path = mpi::ensure_checkpoint(
      half.comm(), "c", half.rank() == 0 ? "/tmp" : "/nonexistent", {}, no_network());
  ASSERT_TRUE(path) << describe(path.error());
  EXPECT_EQ(*path, "/tmp");
}

TEST(MpiLibrary, EnsureCheckpointFailsAlikeOnEveryRank) {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const auto path = mpi::ensure_checkpoint(
      MPI_COMM_WORLD, "c", rank == 0 ? "/nonexistent/weights.pth" : "/tmp", {}, no_network());
  ASSERT_FALSE(path);
  EXPECT_EQ(path.error().code, ErrorCode::kNotFound);
  EXPECT_NE(path.error().message.find("/nonexistent/weights.pth"), std::string::npos);
}

TEST(MpiLibrary, ANullCommunicatorIsAnErrorAndNoAbort) {
  EXPECT_EQ(mpi::prefetch(MPI_COMM_NULL, Manifest{}, no_network()).code(), ErrorCode::kUsage);
}

}  // namespace
}  // namespace fvprefetch
