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

std::string proc(std::int64_t pid, const char* file) {
  return "/proc/" + std::to_string(pid) + "/" + file;
}

// The name in /proc/<pid>/stat, which stands in parentheses and may hold anything, and the fields
// that follow it.
std::optional<std::vector<std::string>> stat_fields(std::int64_t pid) {
  const auto stat = posix::read_stream(proc(pid, "stat"));
  if (!stat) return std::nullopt;
  const std::size_t open = stat->find('(');
  const std::size_t close = stat->rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return std::nullopt;
  std::vector<std::string> fields{stat->substr(open + 1, close - open - 1)};
  std::string_view rest = std::string_view(*stat).substr(close + 1);
  while (!rest.empty()) {
    const std::size_t begin = rest.find_first_not_of(" \n");
    if (begin == std::string_view::npos) break;
    rest.remove_prefix(begin);
    const std::size_t end = std::min(rest.find_first_of(" \n"), rest.size());
    fields.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end);
  }
  return fields;
}

template <typename Number>
std::optional<Number> number_at(const std::vector<std::string>& fields, std::size_t at) {
  if (at >= fields.size()) return std::nullopt;
  const std::string& text = fields[at];
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

// proc(5) counts from 1: 2 is the name, and so number 0 here.
constexpr std::size_t kParent = 4 - 2;
constexpr std::size_t kStarted = 22 - 2;

std::optional<std::uint64_t> start_of(std::int64_t pid) {
  const auto fields = stat_fields(pid);
  return fields ? number_at<std::uint64_t>(*fields, kStarted) : std::nullopt;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

class RealProcesses final : public Processes {
 public:
  [[nodiscard]] std::int64_t self() const override {
    // As this /proc counts, which may be that of another pid namespace.
    const auto link = posix::read_link("/proc/self");
    const auto pid = link ? number_at<std::int64_t>({*link}, 0) : std::nullopt;
    return pid.value_or(::getpid());
  }
  [[nodiscard]] std::optional<ProcessInfo> info(std::int64_t pid) const override {
    const auto fields = stat_fields(pid);
    const auto parent = fields ? number_at<std::int64_t>(*fields, kParent) : std::nullopt;
    if (!parent) return std::nullopt;
    ProcessInfo info;
    info.pid = pid;
    info.parent = *parent;
    info.started = number_at<std::uint64_t>(*fields, kStarted).value_or(0);
    info.command = fields->front();
    const auto owner = posix::stat("/proc/" + std::to_string(pid));
    info.other_user = owner && *owner && (*owner)->user != ::geteuid();
    return info;
  }
  [[nodiscard]] std::vector<std::string> arguments(std::int64_t pid) const override {
    return split(posix::read_stream(proc(pid, "cmdline")).value_or(""), '\0');
  }
  [[nodiscard]] std::optional<std::vector<std::string>> environment(
      std::int64_t pid) const override {
    const auto text = posix::read_stream(proc(pid, "environ"));
    if (!text) return std::nullopt;
    return split(*text, '\0');
  }
  [[nodiscard]] std::vector<std::string> mapped_files(std::int64_t pid) const override {
    std::vector<std::string> files;
    for (const std::string& line :
         split(posix::read_stream(proc(pid, "maps")).value_or(""), '\n')) {
      const std::size_t slash = line.find('/');
      if (slash == std::string::npos) continue;
      std::string path = line.substr(slash);
      if (files.empty() || files.back() != path) files.push_back(std::move(path));
    }
    return files;
  }
};

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

const Processes& real_processes() {
  static const RealProcesses processes;
  return processes;
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
