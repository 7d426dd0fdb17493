// Work on a second thread, while the thread that owns MPI attends to the other ranks: heartbeats,
// signals, the deadline. So none of these depends on what the work is doing: a system call that
// does not return delays no heartbeat, and ends no later than kGrace after a signal.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/try.h"
#include "cluster/collective.h"
#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch {

/// How long work has, after it was told to end, to do so in good order.
inline constexpr std::chrono::milliseconds kGrace{3'000};

/// How the calling thread attends, and when the work has to end.
struct Attendance {
  Vigil vigil;
  /// Why this rank has to end: a signal or the deadline; nullopt: it may go on. May be empty.
  std::function<std::optional<Error>()> must_stop;
};

/// Runs `work` on a second thread and returns when it has returned. Not collective: await_work()
/// follows. An error means that it did not return, or was not begun:
///   as must_stop() told   kGrace ago, and the work still does not end: it is left behind on its
///                         thread, and must own all that it uses
///   kNoSpace              no thread can be had. (A process that is alone in its job goes on
///   without.)
[[nodiscard]] Status run_attended(Collective& ranks, const Attendance& attendance,
                                  std::function<void()> work);

/// The same with a result. Exceptions of `work` become errors.
template <typename Work>
[[nodiscard]] auto attended(Collective& ranks, const Attendance& attendance, Work work)
    -> std::invoke_result_t<Work&> {
  using Answer = std::invoke_result_t<Work&>;
  const auto answer = std::make_shared<std::optional<Answer>>();
  FVP_CHECK_OK(run_attended(ranks, attendance, [answer, work = std::move(work)]() mutable {
    answer->emplace(guard(work));
  }));
  return *std::move(*answer);
}

/// kNoSpace: the error of a thread that cannot be had.
[[nodiscard]] Error no_thread_left();

/// Threads of this process that were left behind and still run. A process that ends meanwhile must
/// do so by _exit(): they use what static destructors destroy.
[[nodiscard]] int left_behind();
/// By the one that leaves threads behind, and by each of them when it has ended after all.
void count_left_behind(int change);

/// Options that a thread which is left behind may go on using: after close() none of the caller's
/// functions is called any more.
class OwnedOptions {
 public:
  explicit OwnedOptions(const Options& options);
  OwnedOptions(const OwnedOptions&) = delete;
  OwnedOptions& operator=(const OwnedOptions&) = delete;
  ~OwnedOptions() { close(); }

  /// To be copied into the work.
  [[nodiscard]] const Options& options() const { return options_; }
  /// Waits for a call of the caller's functions that is being made.
  void close();

 private:
  struct Gate;
  std::shared_ptr<Gate> gate_;
  Options options_;
};

}  // namespace fvprefetch
