#include "cli/signals.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <future>
#include <stop_token>

namespace fvprefetch::cli {
namespace {

constexpr std::chrono::seconds kPatience{30};  // until a stop counts as never coming

// A finished Signals leaves its signals ignored: each test begins as a process does.
class SignalsTest : public ::testing::Test {
 protected:
  SignalsTest() {
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) (void)::signal(number, SIG_DFL);
  }
};

TEST_F(SignalsTest, AskTheRunToStopAndTellTheNumber) {
  const Signals signals;
  std::promise<void> stopped;
  const std::stop_callback told(signals.token(), [&] { stopped.set_value(); });
  EXPECT_EQ(signals.number(), SIGTERM);  // what is reported when no signal came
  EXPECT_FALSE(signals.token().stop_requested());
  ASSERT_EQ(::kill(::getpid(), SIGINT), 0);
  ASSERT_EQ(stopped.get_future().wait_for(kPatience), std::future_status::ready);
  EXPECT_EQ(signals.number(), SIGINT);
}

TEST_F(SignalsTest, OfAFinishedRunChangeNothing) {
  { const Signals signals; }
  ASSERT_EQ(::kill(::getpid(), SIGTERM), 0);  // the launcher ends the other ranks: still here
  sigset_t pending;
  ASSERT_EQ(::sigpending(&pending), 0);
  EXPECT_EQ(::sigismember(&pending, SIGTERM), 0);
}

TEST_F(SignalsTest, ThatTheCallerIgnoresStayIgnored) {
  (void)::signal(SIGHUP, SIG_IGN);  // nohup
  const Signals signals;
  sigset_t blocked;
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, nullptr, &blocked), 0);
  EXPECT_EQ(::sigismember(&blocked, SIGHUP), 0);
}

}  // namespace
}  // namespace fvprefetch::cli
