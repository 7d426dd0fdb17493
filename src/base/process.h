// Which process wrote a record, and whether it is gone for certain.
//
// A pid alone says little: it is given again, another host has the same one, and so has another
// container of this host. Only the kernel that the process ran under can say that it is gone.
#pragma once

#include <cstdint>
#include <string>

namespace fvprefetch {

struct ProcessName {
  std::string host;           ///< for people
  std::string boot;           ///< this run of this machine's kernel
  std::string pid_namespace;  ///< in which `pid` counts
  std::int64_t pid = 0;
  std::uint64_t started = 0;  ///< clock ticks after the boot

  bool operator==(const ProcessName&) const = default;
};

enum class Liveness { kAlive, kGone, kUnknown };

/// The calling process.
[[nodiscard]] const ProcessName& this_process();

/// kGone only when this very kernel says so.
[[nodiscard]] Liveness liveness(const ProcessName& process);

}  // namespace fvprefetch
