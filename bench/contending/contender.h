// The process that contends: one of ours here, one of Python's in filelock_worker.py; both speak
// this. A line on standard input is a task, its answer are lines on standard output:
//
//   cold PRIMITIVE START DEADLINE FOLDER               wants <FOLDER>/file, as a job does: looks
//   for it,
//                                                      takes the lock, looks again, brings it
//     -> had HAVE PUBLISHED                            when it had the path; when it published (0:
//     others did)
//   turns PRIMITIVE START DEADLINE COUNT HOLD FOLDER   takes the lock COUNT times and holds it HOLD
//   long
//     -> turn WANTED GOT LEFT                          for each
//   both end with
//     -> done CPU                                      user and system time of the task
//   and "error TEXT" may come before it.
//
// Times are nanoseconds, those with a date on this node's monotonic clock (Python's monotonic_ns is
// the same). The end of standard input is the end of the process. What is held adds one to the
// number in <FOLDER>/count, so that two at a time lose an addition.
#pragma once

#include <cstdint>

namespace fvprefetch::contending {

/// This node's monotonic clock.
[[nodiscard]] std::int64_t now_ns();
void sleep_until_ns(std::int64_t at);
/// User and system time of this process.
[[nodiscard]] std::int64_t cpu_ns();

/// Works off the tasks; the exit status.
[[nodiscard]] int run_contender();

}  // namespace fvprefetch::contending
