// MPI_Init and MPI_Finalize return when all ranks have called them, and cannot be told to give up:
// where one never comes (its node lacks the MPI module, or hangs), the process has to end.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "cli/signals.h"
#include "cluster/launcher.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch::cli {

/// While it lives: after Options::rank_timeout, or at the deadline of MPI_Init, it names the ranks
/// that are known to have no MPI and ends the process with kNetwork's code; soon after a signal
/// with 128 + its number. Rank 0 says after 2 s that it waits. Without a further thread it does
/// nothing.
class InitWatch {
 public:
  enum class Call { kInit, kFinalize };
  InitWatch(const Launch& launch, const Options& options, const Signals& signals, bool quiet,
            Call call = Call::kInit);
  InitWatch(const InitWatch&) = delete;
  InitWatch& operator=(const InitWatch&) = delete;
  ~InitWatch();

 private:
  void watch();
  [[noreturn]] void end() const;

  const Launch& launch_;
  const Options& options_;
  const Signals& signals_;
  const bool quiet_;
  const Call call_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;  // under mutex_
  std::thread thread_;
};

}  // namespace fvprefetch::cli
