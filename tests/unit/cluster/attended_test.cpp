// Work on a second thread: it is attended while it runs, and left behind when it does not end.
#include "cluster/attended.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "cluster/collective.h"
#include "fvprefetch/progress.h"
#include "support/thread_tail.h"

namespace fvprefetch {
namespace {

// Counts how often it is attended to.
class CountingCollective final : public Collective {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int leader() const override { return 0; }
  int nodes() const override { return 1; }
  const std::string& node() const override { return node_; }
  Status quiet_wait() override { return {}; }
  int attend(const Vigil&) override { return ++attended > 3 ? SIGUSR1 : 0; }
  Result<std::string> broadcast(std::string bytes) override { return bytes; }
  Result<int> max(int value) override { return value; }
  Result<std::vector<std::string>> all_gather(const std::string& text) override {
    return std::vector<std::string>{text};
  }

  std::atomic<int> attended = 0;

 private:
  std::string node_ = "n";
};

TEST(Attended, ReturnsWhatTheWorkReturns) {
  const auto self = make_self_collective("n");
  const auto value = attended(*self, {}, []() -> Result<int> { return 7; });
  ASSERT_TRUE(value);
  EXPECT_EQ(*value, 7);
  const auto failed =
      attended(*self, {}, []() -> Result<int> { return fail(ErrorCode::kNoSpace, "full"); });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kNoSpace);
}

TEST(Attended, ReturnsWhenAllOfTheThreadHasEnded) {
  const auto self = make_self_collective("n");
  const auto ended = std::make_shared<std::atomic<bool>>(false);
  ASSERT_TRUE(attended(*self, {}, [ended]() -> Status {
    testing::give_thread_a_tail(ended);
    return {};
  }));
  EXPECT_TRUE(*ended);
}

TEST(Attended, WorkThatThrowsIsAnError) {
  const auto self = make_self_collective("n");
  const auto thrown =
      attended(*self, {}, []() -> Result<int> { throw std::runtime_error("boom"); });
  ASSERT_FALSE(thrown);
  EXPECT_NE(thrown.error().message.find("boom"), std::string::npos);
}

TEST(Attended, IsAttendedToOnTheCallingThreadUntilASignalOfAnotherRankEndsTheWork) {
  CountingCollective ranks;
  std::atomic<bool> stop = false;
  Attendance attendance;
  const auto caller = std::this_thread::get_id();
  attendance.vigil.on_signal = [&](int number) {
    EXPECT_EQ(number, SIGUSR1);
    EXPECT_EQ(std::this_thread::get_id(), caller);
    stop = true;
  };
  const auto done = attended(ranks, attendance, [&]() -> Result<std::thread::id> {
    while (!stop) std::this_thread::yield();
    return std::this_thread::get_id();
  });
  ASSERT_TRUE(done);
  EXPECT_NE(*done, caller);
  EXPECT_GT(ranks.attended, 3);
}

TEST(Attended, WorkThatDoesNotEndAfterASignalIsLeftBehindAndOwnsWhatItUses) {
  const auto self = make_self_collective("n");
  const auto hangs = std::make_shared<std::promise<void>>();
  const auto ended = std::make_shared<std::promise<int>>();
  Attendance attendance;
  attendance.must_stop = [] { return interrupted(SIGTERM); };
  const int before = left_behind();
  const auto result =
      attended(*self, attendance, [hangs, ended, owned = std::string(100, 'x')]() -> Result<int> {
        hangs->get_future().wait();  // a system call that does not return
        ended->set_value(static_cast<int>(owned.size()));
        return 1;
      });
  ASSERT_FALSE(result);
  EXPECT_EQ(exit_code(result.error().code), 128 + SIGTERM);
  EXPECT_EQ(left_behind(), before + 1);
  hangs->set_value();
  EXPECT_EQ(ended->get_future().get(), 100);
  while (left_behind() != before) std::this_thread::yield();
}

TEST(Attended, OwnedOptionsCallNothingOfTheCallersAfterTheyWereClosed) {
  struct : Observer {
    void on_event(const Event&) override { ++events; }
    int events = 0;
  } observer;
  Options options;
  options.observer = &observer;
  options.environment = [](std::string_view) { return std::optional<std::string>("value"); };
  int asked = 0;
  options.stop_signal = [&asked] {
    ++asked;
    return SIGINT;
  };
  Options kept;
  {
    OwnedOptions owned(options);
    kept = owned.options();
    kept.observer->on_event(Warned{"", "a"});
    EXPECT_EQ(kept.stop_signal(), SIGINT);
    EXPECT_EQ(kept.environment("X"), "value");
  }
  kept.observer->on_event(Warned{"", "b"});
  EXPECT_EQ(kept.stop_signal(), SIGINT);  // as it was told last
  EXPECT_EQ(kept.environment("X"), std::nullopt);
  EXPECT_EQ(observer.events, 1);
  EXPECT_EQ(asked, 1);
}

}  // namespace
}  // namespace fvprefetch
