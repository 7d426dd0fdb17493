// The contenders of one rank: processes that it starts, gives tasks to and hears out.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/posix.h"

namespace fvprefetch::contending {

/// What one contender answered to one task.
struct Answer {
  std::vector<std::string> lines;  ///< without "done"
  std::int64_t cpu = 0;            ///< nanoseconds
  bool late = false;               ///< it did not answer in time and was ended
};

class Crew {
 public:
  /// Starts `count` processes of `command` and waits until they are ready; size() is 0 when one of
  /// them is not.
  Crew(std::vector<std::string> command, int count);
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  ~Crew();

  [[nodiscard]] int size() const { return static_cast<int>(members_.size()); }
  [[nodiscard]] const std::string& why_empty() const { return why_empty_; }
  [[nodiscard]] std::vector<pid_t> pids() const;

  void tell(int member, const std::string& task);
  /// The answers of all who were told something, by member. Who is silent at `deadline` (monotonic,
  /// ns) is ended, and another one is started in his place.
  [[nodiscard]] std::vector<Answer> answers(std::int64_t deadline);

 private:
  struct Member {
    pid_t pid = 0;
    posix::Fd to;
    posix::Fd from;
    std::string text;  ///< read, and not yet taken
    bool told = false;
    bool gone = false;  ///< its output has ended
  };
  [[nodiscard]] bool start(Member& member);
  /// Reads what is there, after a wait; false: nobody is left to hear, or it is the deadline.
  [[nodiscard]] bool hear(std::int64_t deadline);
  static void end(Member& member);

  std::vector<std::string> command_;
  std::vector<Member> members_;
  std::string why_empty_;
};

/// Set by SIGINT and SIGTERM: whatever waits here returns.
void notice_signals();
[[nodiscard]] bool stopping();

}  // namespace fvprefetch::contending
