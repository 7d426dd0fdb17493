// A call that may never return, as calls on a file system whose server is gone do (cluster-facts
// B2): made on a thread of its own, which is left behind when it is late.
//
// A thread that has told its result is joined all the same: what libraries keep for each thread is
// destroyed at its very end, and OpenSSL's must not be while the process ends.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

namespace fvprefetch {

/// What `f` returns; nullopt when it has not within `patience`, or has thrown. `f` goes on then, so
/// it must own all that it uses.
template <typename F>
std::optional<std::invoke_result_t<F>> within(std::chrono::milliseconds patience, F f) {
  struct Shared {
    std::mutex mutex;
    std::condition_variable over;
    bool done = false;                              // under mutex
    std::optional<std::invoke_result_t<F>> result;  // under mutex
  };
  const auto shared = std::make_shared<Shared>();
  std::thread thread;
  try {
    thread = std::thread([shared, work = std::move(f)]() mutable {
      std::optional<std::invoke_result_t<F>> result;
      try {
        result.emplace(work());
      } catch (...) {  // the same as no answer
      }
      const std::lock_guard guard(shared->mutex);
      shared->result = std::move(result);
      shared->done = true;
      shared->over.notify_all();
    });
  } catch (const std::system_error&) {
    return std::nullopt;  // no thread can be had
  }
  std::unique_lock guard(shared->mutex);
  if (!shared->over.wait_for(guard, patience, [&] { return shared->done; })) {
    thread.detach();
    return std::nullopt;
  }
  guard.unlock();
  thread.join();
  return std::move(shared->result);
}

}  // namespace fvprefetch
