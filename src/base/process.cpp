#include "base/process.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <optional>
#include <string_view>

#include "base/posix.h"

namespace fvprefetch {
namespace {

// The 22nd field of /proc/<pid>/stat; the second one, in parentheses, may hold anything.
std::optional<std::uint64_t> start_of(std::int64_t pid) {
  const auto stat = posix::read_stream("/proc/" + std::to_string(pid) + "/stat");
  if (!stat) return std::nullopt;
  std::string_view rest = *stat;
  rest.remove_prefix(std::min(rest.size(), rest.rfind(')') + 1));
  constexpr int kFieldsBetween = 19;
  for (int field = 0; field < kFieldsBetween; ++field) {
    const std::size_t blank = rest.find(' ', 1);
    if (blank == std::string_view::npos) return std::nullopt;
    rest.remove_prefix(blank);
  }
  rest.remove_prefix(1);
  std::uint64_t started = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), started);
  return error == std::errc() ? std::optional(started) : std::nullopt;
}

ProcessName look() {
  ProcessName name;
  name.host = posix::host_name();
  if (auto boot = posix::read_stream("/proc/sys/kernel/random/boot_id")) {
    name.boot = boot->substr(0, boot->find('\n'));
  }
  name.pid_namespace = posix::read_link("/proc/self/ns/pid").value_or("");
  name.pid = ::getpid();
  name.started = start_of(name.pid).value_or(0);
  return name;
}

}  // namespace

const ProcessName& this_process() {
  // Looked at again after a fork, whose child is another process.
  static thread_local ProcessName name;
  if (name.pid != ::getpid()) name = look();
  return name;
}

Liveness liveness(const ProcessName& process) {
  const ProcessName& here = this_process();
  const bool same_kernel = !here.boot.empty() && process.boot == here.boot &&
                           !here.pid_namespace.empty() &&
                           process.pid_namespace == here.pid_namespace;
  // A /proc that does not even show ourselves shows nobody.
  if (!same_kernel || here.started == 0 || process.started == 0) return Liveness::kUnknown;
  // Where /proc hides the processes of others (hidepid), kill() still tells that they are there.
  if (process.pid <= 0) return Liveness::kUnknown;  // not one process, to kill()
  if (::kill(static_cast<pid_t>(process.pid), 0) != 0 && errno == ESRCH) return Liveness::kGone;
  const auto started = start_of(process.pid);
  if (!started) return Liveness::kUnknown;
  return *started == process.started ? Liveness::kAlive : Liveness::kGone;
}

}  // namespace fvprefetch
