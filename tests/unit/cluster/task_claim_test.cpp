// Whether another process of a task has used MPI before.
#include "cluster/task_claim.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace fvprefetch {
namespace {

// A process that waits to be ended: the task of a launcher.
class Task {
 public:
  Task() : pid_(::fork()) {
    if (pid_ == 0) {
      for (;;) ::pause();
    }
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] ProcessInfo info() const { return real_processes().info(pid_).value(); }

 private:
  pid_t pid_;
};

TEST(TaskClaim, SecondUseInATaskIsKnown) {
  const Task task;
  EXPECT_EQ(claim_mpi(task.info()), MpiUse::kFirst);
  EXPECT_EQ(claim_mpi(task.info()), MpiUse::kRepeated);
  const Task other;
  EXPECT_EQ(claim_mpi(other.info()), MpiUse::kFirst);
}

TEST(TaskClaim, EndsWithTheTask) {
  ProcessInfo gone;
  {
    const Task task;
    gone = task.info();
    EXPECT_EQ(claim_mpi(gone), MpiUse::kFirst);
  }
  const Task next;
  EXPECT_EQ(claim_mpi(next.info()), MpiUse::kFirst);  // removes what says nothing any more
  EXPECT_EQ(claim_mpi(gone), MpiUse::kFirst);
}

TEST(TaskClaim, ATaskThatIsThisProcessLeavesNoClaim) {
  const ProcessInfo self = real_processes().info(real_processes().self()).value();
  EXPECT_EQ(claim_mpi(self), MpiUse::kFirst);
  EXPECT_EQ(claim_mpi(self), MpiUse::kFirst);
}

}  // namespace
}  // namespace fvprefetch
