#include "base/process.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

namespace fvprefetch {
namespace {

TEST(Process, KnowsItself) {
  const ProcessName& self = this_process();
  EXPECT_EQ(self.pid, ::getpid());
  EXPECT_NE(self.boot, "");
  EXPECT_NE(self.started, 0U);
  EXPECT_EQ(liveness(self), Liveness::kAlive);
}

TEST(Process, IsTheSameWhateverItDoes) {
  const std::uint64_t before = this_process().started;
  const std::vector<char> grown(64U << 20U, 'x');
  EXPECT_EQ(liveness(this_process()), Liveness::kAlive);
  EXPECT_EQ(this_process().started, before);
  EXPECT_EQ(grown.back(), 'x');
}

TEST(Process, IsGoneWhenItsPidIsAnothers) {
  ProcessName name = this_process();
  name.started += 1;
  EXPECT_EQ(liveness(name), Liveness::kGone);
}

TEST(Process, IsGoneWhenItsPidIsNobodys) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ASSERT_GT(child, 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ProcessName name = this_process();
  name.pid = child;
  EXPECT_EQ(liveness(name), Liveness::kGone);
}

TEST(Process, OfAnotherKernelCannotBeJudged) {
  ProcessName name = this_process();
  name.started += 1;
  name.boot = "another";
  EXPECT_EQ(liveness(name), Liveness::kUnknown);
}

TEST(Process, OfAnotherContainerCannotBeJudged) {
  ProcessName name = this_process();
  name.started += 1;
  name.pid_namespace = "pid:[1]";
  EXPECT_EQ(liveness(name), Liveness::kUnknown);
}

TEST(Process, WithoutAStartCannotBeJudged) {
  ProcessName name = this_process();
  name.started = 0;
  EXPECT_EQ(liveness(name), Liveness::kUnknown);
}

TEST(Process, IsAnotherOneAfterAFork) {
  (void)this_process();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(this_process().pid == ::getpid() ? 0 : 1);
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace fvprefetch
