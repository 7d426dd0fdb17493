// How many operations on the file system does a process make? strace is attached to it while it
// runs, and the calls that name the folder, or a file in it that is open, are counted. Not all of
// them reach a server (a stat may be answered from the client's memory): it is an upper bound.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace fvprefetch::contending {

class OperationCount {
 public:
  /// Attaches to `pids`; attached() is false where there is no strace, or it may not.
  OperationCount(const std::vector<pid_t>& pids, const std::string& log);
  OperationCount(const OperationCount&) = delete;
  OperationCount& operator=(const OperationCount&) = delete;
  ~OperationCount();

  [[nodiscard]] bool attached() const { return strace_ > 0; }
  /// Detaches. Calls by name, of all of them together.
  [[nodiscard]] std::map<std::string, int> end(const std::string& folder);

 private:
  void detach();

  pid_t strace_ = 0;
  std::string log_;
};

}  // namespace fvprefetch::contending
