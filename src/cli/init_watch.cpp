#include "cli/init_watch.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <system_error>

#include "base/awake_time.h"
#include "base/posix.h"
#include "base/within.h"
#include "cli/console.h"
#include "cluster/file_barrier.h"

namespace fvprefetch::cli {
namespace {

using std::chrono::milliseconds;

const char* name_of(InitWatch::Call call) {
  return call == InitWatch::Call::kInit ? "MPI_Init" : "MPI_Finalize";
}

}  // namespace

InitWatch::InitWatch(const Launch& launch, const Options& options, const Signals& signals,
                     bool quiet, Call call)
    : launch_(launch), options_(options), signals_(signals), quiet_(quiet), call_(call) {
  try {
    thread_ = std::thread([this] { watch(); });
  } catch (const std::system_error&) {  // MPI_Init needs threads of its own, and tells of it
  }
}

InitWatch::~InitWatch() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void InitWatch::watch() {
  constexpr milliseconds kSlice(100);
  constexpr milliseconds kFirst(2'000);
  constexpr milliseconds kGraceOfSignal(2'000);
  milliseconds patience = options_.rank_timeout;
  if (options_.deadline && call_ == Call::kInit) {
    patience = std::min(patience, *options_.deadline);
  }
  AwakeTime time;
  const Clock::TimePoint begin = time.now();
  bool said = false;
  std::optional<Clock::TimePoint> asked;
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kSlice, [this] { return over_; })) {
    const Clock::TimePoint now = time.now();
    if (signals_.token().stop_requested()) {
      if (!asked) asked = now;
      // Its launcher ends the others, too.
      if (now - *asked >= kGraceOfSignal) ::_exit(128 + signals_.number());
    }
    if (now - begin >= patience) end();
    if (!said && !quiet_ && launch_.rank.value_or(0) == 0 && now - begin >= kFirst) {
      said = true;
      Console console(STDERR_FILENO, {}, {}, real_clock());
      console.note(std::string("waiting for all ranks to come to ") + name_of(call_) +
                   " (--rank-timeout)");
    }
  }
}

void InitWatch::end() const {
  Error error;
  error.code = ErrorCode::kNetwork;
  error.message = std::string(name_of(call_)) +
                  " has not returned: a rank has not come to it, or it takes longer than "
                  "--rank-timeout or --deadline allow";
  // The caches may not answer either.
  const auto notes = within(milliseconds(2'000), [launch = launch_, options = options_] {
    return notes_without_mpi(launch, options);
  });
  for (const std::string& note : notes.value_or(std::vector<std::string>())) {
    error.message += "; " + note;
  }
  Console console(STDERR_FILENO, {}, {}, real_clock());
  console.error_line(
      error, "rank " + std::to_string(launch_.rank.value_or(0)) + " on " + posix::host_name());
  ::_exit(exit_code(error.code));
}

}  // namespace fvprefetch::cli
