// SIGINT, SIGTERM and SIGHUP ask the run to stop; SIGPIPE becomes a failed write.
//
// The signals are blocked in every thread and read by one of ours (signalfd): a stop_token cannot
// be asked from a signal handler, and so nothing has to be. Make the object before any other thread
// exists, MPI's included: they inherit the mask.
//
// On rank 0 the work sees the token. Other ranks tell rank 0 of a signal and go on waiting: rank
// 0's result decides for everybody.
#pragma once

#include <atomic>
#include <chrono>
#include <csignal>
#include <optional>
#include <stop_token>
#include <thread>

#include "base/clock.h"
#include "base/posix.h"

namespace fvprefetch::cli {

/// What a signal means, given those before it. Pure.
class SignalPolicy {
 public:
  enum class Action {
    kStop,    ///< the first: end in good order
    kIgnore,  ///< an echo of it: launchers and `timeout` signal the process and then its group
    kExit     ///< somebody means it
  };
  [[nodiscard]] Action on_signal(Clock::TimePoint now);

 private:
  std::optional<Clock::TimePoint> first_;
};

class Signals {
 public:
  Signals();
  ~Signals();  ///< gives the signals back
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  [[nodiscard]] std::stop_token token() const { return stop_.get_token(); }
  /// As if this process had been sent the signal.
  void raise(int number);
  /// The signal that asked to stop; SIGTERM when none has.
  [[nodiscard]] int number() const { return number_; }

 private:
  void listen();

  std::stop_source stop_;
  std::atomic<int> number_;
  posix::Fd signals_;
  posix::Fd quit_;
  std::thread thread_;
  sigset_t before_{};
};

}  // namespace fvprefetch::cli
