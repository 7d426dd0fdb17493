// Processes of this host: which one wrote a record, whether it is gone for certain, and who started
// whom.
//
// A pid alone says little: it is given again, another host has the same one, and so has another
// container of this host. Only the kernel that the process ran under can say that it is gone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

/// A process as /proc shows it.
struct ProcessInfo {
  std::int64_t pid = 0;
  std::int64_t parent = 0;    ///< 0: none that this /proc shows (the first one of a container)
  std::uint64_t started = 0;  ///< clock ticks after the boot
  std::string command;        ///< its name, 15 bytes at most; not the program's path
  bool other_user = false;    ///< it belongs to another user than this process
};

/// What /proc tells. A seam: tests pass a table of their own.
class Processes {
 public:
  virtual ~Processes() = default;
  [[nodiscard]] virtual std::int64_t self() const = 0;
  /// nullopt: it is gone, or hidden from this user.
  [[nodiscard]] virtual std::optional<ProcessInfo> info(std::int64_t pid) const = 0;
  /// Its command line; empty when it cannot be read.
  [[nodiscard]] virtual std::vector<std::string> arguments(std::int64_t pid) const = 0;
  /// "NAME=value" of the environment that it was started with; nullopt when it cannot be read.
  [[nodiscard]] virtual std::optional<std::vector<std::string>> environment(
      std::int64_t pid) const = 0;
  /// Paths of the files that are mapped into it; empty when they cannot be read.
  [[nodiscard]] virtual std::vector<std::string> mapped_files(std::int64_t pid) const = 0;
};
[[nodiscard]] const Processes& real_processes();

}  // namespace fvprefetch
