// A second process of this host as rank 1, for what one process cannot find out alone: whether a
// lock excludes another process. Made by fork(), so before any thread is; it ends when this one
// does, or is done with it.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "cluster/collective.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

class SecondProcess {
 public:
  /// Forks. `work` runs in the other process as rank 1 of 2, both on `node`; its collectives
  /// fail when this process goes away. Nothing that it writes to stdout is flushed.
  [[nodiscard]] static Result<std::unique_ptr<SecondProcess>> start(
      const std::string& node, const std::function<void(Collective&)>& work);
  SecondProcess(const SecondProcess&) = delete;
  SecondProcess& operator=(const SecondProcess&) = delete;
  ~SecondProcess();  ///< ends it

  /// This process as rank 0.
  [[nodiscard]] Collective& ranks() { return *ranks_; }

 private:
  SecondProcess(pid_t pid, std::unique_ptr<Collective> ranks)
      : pid_(pid), ranks_(std::move(ranks)) {}

  pid_t pid_;
  std::unique_ptr<Collective> ranks_;
};

}  // namespace fvprefetch
