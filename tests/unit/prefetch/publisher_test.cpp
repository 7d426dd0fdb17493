#include "prefetch/publisher.h"

#include <gtest/gtest.h>

#include <chrono>
#include <latch>
#include <map>
#include <memory>
#include <semaphore>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/matchers.h"

namespace fvprefetch {
namespace {

using testing::FailsWith;
using testing::IsOk;

std::map<std::size_t, Status> all_of(Publisher& publisher) {
  std::map<std::size_t, Status> results;
  while (publisher.open() > 0) {
    publisher.wait(std::chrono::seconds(10));
    for (auto& [key, status] : publisher.take()) results.emplace(key, std::move(status));
  }
  return results;
}

TEST(Publisher, TellsWhatBecameOfEachPiece) {
  Publisher publisher(make_worker(2));
  publisher.submit(7, [] { return Status{}; });
  publisher.submit(8, []() -> Status { return fail(ErrorCode::kNoSpace, "full"); });
  publisher.submit(9, []() -> Status { throw std::runtime_error("broken"); });
  const auto results = all_of(publisher);
  ASSERT_EQ(results.size(), 3U);
  EXPECT_TRUE(IsOk(results.at(7)));
  EXPECT_TRUE(FailsWith(results.at(8), ErrorCode::kNoSpace));
  EXPECT_TRUE(FailsWith(results.at(9), ErrorCode::kInternal, "broken"));
}

TEST(Publisher, WorksOnAsManyAtOnceAsItHasThreads) {
  constexpr int kThreads = 4;
  Publisher publisher(make_worker(kThreads));
  std::latch together(kThreads);  // passed only when all are under way
  for (std::size_t i = 0; i < kThreads; ++i) {
    publisher.submit(i, [&together] {
      together.arrive_and_wait();
      return Status{};
    });
  }
  EXPECT_EQ(all_of(publisher).size(), std::size_t{kThreads});
}

TEST(Publisher, LeavesAllToOneThreadThatKeepsUp) {
  constexpr std::size_t kTasks = 100;
  Publisher publisher(make_worker(4, std::chrono::hours(1)));
  std::set<std::thread::id> threads;  // of one thread, or ThreadSanitizer has something to say
  for (std::size_t i = 0; i < kTasks; ++i) {
    publisher.submit(i, [&threads] {
      threads.insert(std::this_thread::get_id());
      return Status{};
    });
  }
  EXPECT_EQ(all_of(publisher).size(), kTasks);
  EXPECT_EQ(threads.size(), 1U);
}

TEST(Publisher, DoesNotLeaveWorkBehindWhatTakesLong) {
  for (const bool by_waiting : {true, false}) {
    std::binary_semaphore has_begun{0};
    std::binary_semaphore next_has_begun{0};
    Publisher publisher(make_worker(2, std::chrono::milliseconds(1)));
    publisher.submit(1, [&has_begun, &next_has_begun]() -> Status {
      has_begun.release();
      if (next_has_begun.try_acquire_for(std::chrono::seconds(10))) return {};
      return fail(ErrorCode::kInternal, "nobody has begun the next");
    });
    ASSERT_TRUE(has_begun.try_acquire_for(std::chrono::seconds(10)));
    publisher.submit(2, [&next_has_begun] {
      next_has_begun.release();
      return Status{};
    });
    while (!by_waiting && publisher.open() > 0) {
      for (const auto& [key, status] : publisher.take()) EXPECT_TRUE(IsOk(status));
    }
    for (const auto& [key, status] : all_of(publisher)) EXPECT_TRUE(IsOk(status));
  }
}

class NotedLock final : public HeldLock {
 public:
  explicit NotedLock(std::vector<std::string>& notes) : notes_(notes) {}
  NotedLock(const NotedLock&) = delete;
  NotedLock& operator=(const NotedLock&) = delete;
  ~NotedLock() override { notes_.emplace_back("let go"); }
  void tell() override {}
  [[nodiscard]] bool lost() override { return false; }

 private:
  std::vector<std::string>& notes_;
};

TEST(Publisher, LetsGoOfALockAfterTheNextPieceOfWork) {
  std::vector<std::string> notes;
  Publisher publisher(make_inline_worker());
  publisher.let_go(std::make_unique<NotedLock>(notes), nullptr);
  publisher.submit(1, [&notes] {
    notes.emplace_back("published");
    return Status{};
  });
  EXPECT_EQ(notes, (std::vector<std::string>{"published", "let go"}));
}

TEST(Publisher, LetsGoOfALockWhenNoMoreWorkComes) {
  std::vector<std::string> notes;
  {
    Publisher publisher(make_inline_worker());
    publisher.let_go(std::make_unique<NotedLock>(notes), nullptr);
    publisher.flush();
    EXPECT_EQ(notes.size(), 1U);
    publisher.let_go(std::make_unique<NotedLock>(notes), nullptr);
  }
  EXPECT_EQ(notes.size(), 2U);
}

TEST(Publisher, HereTheWorkIsDoneAtOnce) {
  Publisher publisher(make_inline_worker());
  bool done = false;
  publisher.submit(1, [&done] {
    done = true;
    return Status{};
  });
  EXPECT_TRUE(done);
  EXPECT_EQ(publisher.take().size(), 1U);
}

}  // namespace
}  // namespace fvprefetch
