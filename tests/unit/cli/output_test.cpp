#include "cli/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/posix.h"
#include "support/matchers.h"

namespace fvprefetch::cli {
namespace {

using testing::FailsWith;
using testing::IsOk;

TEST(Results, AreWrittenWhole) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const posix::Fd reader(ends[0]);
  const posix::Fd writer(ends[1]);
  ASSERT_TRUE(IsOk(write_results(writer.get(), "a\t/cache/a\n")));
  std::array<char, 64> text{};
  const ssize_t size = ::read(reader.get(), text.data(), text.size());
  EXPECT_EQ(std::string(text.data(), static_cast<std::size_t>(size)), "a\t/cache/a\n");
}

TEST(Results, OnAFullDiskAreNoSpaceAndTheHintDoesNotBlameTheCaches) {
  const posix::Fd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(full);
  const Status written = write_results(full.get(), "x");
  EXPECT_TRUE(FailsWith(written, ErrorCode::kNoSpace, "standard output"));
  EXPECT_EQ(written.error().hint.find("--cache-dir"), std::string::npos);
}

TEST(Results, ThatNobodyReadsAnyMoreEndLikeSigpipe) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  { const posix::Fd reader(ends[0]); }
  const posix::Fd writer(ends[1]);
  (void)::signal(SIGPIPE, SIG_IGN);  // as Signals has it
  const Status written = write_results(writer.get(), "x");
  ASSERT_FALSE(written);
  EXPECT_EQ(exit_code(written.error().code), 128 + SIGPIPE);
}

TEST(Results, OnAClosedDescriptorAreAUsageError) {
  const posix::Fd read_only(::open("/dev/null", O_RDONLY | O_CLOEXEC));  // what a closed stdout is
  EXPECT_TRUE(FailsWith(write_results(read_only.get(), "x"), ErrorCode::kUsage, "closed"));
}

}  // namespace
}  // namespace fvprefetch::cli
