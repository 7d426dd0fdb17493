#include "transfer/worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <semaphore>
#include <thread>

namespace fvprefetch {
namespace {

TEST(Worker, DropsWhatItsTasksPostWhileItIsDestroyed) {
  std::atomic<bool> ends = false;
  std::atomic<int> begun = 0;
  std::binary_semaphore runs{0};
  {
    const std::unique_ptr<Worker> worker = make_worker(64);
    worker->post([&, &pool = *worker] {
      runs.release();
      while (!ends) std::this_thread::yield();
      // The destructor joins the threads meanwhile; a task that is posted may want one of its own.
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
      while (std::chrono::steady_clock::now() < end) pool.post([&] { ++begun; });
    });
    runs.acquire();
    ends = true;
  }
  // Reached at all is what matters: a thread that nobody joins ends the program.
  const int after = begun;
  std::this_thread::yield();
  EXPECT_EQ(begun, after);
}

TEST(Worker, TellsTheEndOfATaskThatIsPostedFromATask) {
  const std::unique_ptr<Worker> worker = make_worker(1);
  std::atomic<int> done = 0;
  worker->post([&, &pool = *worker] {
    ++done;
    pool.post([&] { ++done; });
  });
  const auto limit = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (done < 2 && std::chrono::steady_clock::now() < limit) worker->wait(limit, {});
  EXPECT_EQ(done, 2);
}

}  // namespace
}  // namespace fvprefetch
