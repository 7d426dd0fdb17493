#include "cluster/task_claim.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/claim.h"
#include "base/posix.h"

namespace fvprefetch {
namespace {

// Of this node, of every container that shares its memory, and empty after a boot.
constexpr const char* kDirectory = "/dev/shm";

std::string prefix() {
  return "fvprefetch-mpi." + std::to_string(::geteuid()) + ".";
}

// "<pid namespace>.<pid>.<start>"
std::string suffix_of(const std::string& pid_namespace, std::int64_t pid, std::uint64_t started) {
  std::string digits;
  for (const char c : pid_namespace) {  // "pid:[4026531836]"
    if (c >= '0' && c <= '9') digits += c;
  }
  return digits + "." + std::to_string(pid) + "." + std::to_string(started);
}

// A claim of this user whose task is gone says nothing any more.
void remove_old_claims() {
  const ProcessName& here = this_process();
  const std::string of_here = prefix() + suffix_of(here.pid_namespace, 0, 0);
  const std::string_view begin = std::string_view(of_here).substr(0, of_here.size() - 3);  // "0.0"
  const auto names = posix::list(kDirectory);
  if (!names) return;
  for (const std::string& name : *names) {
    if (!name.starts_with(begin)) continue;
    ProcessName task = here;
    const char* const end = name.data() + name.size();
    const auto pid = std::from_chars(name.data() + begin.size(), end, task.pid);
    if (pid.ec != std::errc() || pid.ptr == end || *pid.ptr != '.') continue;
    const auto started = std::from_chars(pid.ptr + 1, end, task.started);
    if (started.ec != std::errc() || started.ptr != end) continue;
    if (liveness(task) != Liveness::kGone) continue;
    (void)posix::remove_directory(std::string(kDirectory) + "/" + name);  // best effort
  }
}

}  // namespace

MpiUse claim_mpi(const ProcessInfo& task) {
  const ProcessName& here = this_process();
  if (task.pid == 0 || task.started == 0 || here.pid_namespace.empty()) return MpiUse::kFirst;
  const std::string path = std::string(kDirectory) + "/" + prefix() +
                           suffix_of(here.pid_namespace, task.pid, task.started);
  if (task.pid != here.pid) {
    remove_old_claims();
    if (posix::make_directory(path) != EEXIST) return MpiUse::kFirst;
  }
  const auto there = posix::lstat(path);
  // Another user cannot keep us from MPI.
  const bool ours = there && *there && (*there)->directory && (*there)->user == ::geteuid();
  return ours ? MpiUse::kRepeated : MpiUse::kFirst;
}

}  // namespace fvprefetch
