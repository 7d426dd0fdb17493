// What a library keeps for a thread and destroys at the thread's very end: whether that has
// happened.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

namespace fvprefetch::testing {

/// Gives the calling thread something that takes a while to be destroyed, and then sets `ended`.
/// Who only hears of the thread's result, and does not join it, finds it false.
inline void give_thread_a_tail(std::shared_ptr<std::atomic<bool>> ended) {
  struct Tail {
    ~Tail() {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      if (ended) *ended = true;
    }
    std::shared_ptr<std::atomic<bool>> ended;
  };
  thread_local Tail tail;
  tail.ended = std::move(ended);
}

}  // namespace fvprefetch::testing
