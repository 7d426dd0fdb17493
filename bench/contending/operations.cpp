#include "operations.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "contender.h"

extern char** environ;

namespace fvprefetch::contending {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;

bool is_traced(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("TracerPid:")) return line.find_first_of("123456789") != std::string::npos;
  }
  return false;
}

}  // namespace

OperationCount::OperationCount(const std::vector<pid_t>& pids, const std::string& log) : log_(log) {
  if (pids.empty()) return;
  // -y: names of descriptors, so that a flock(5) is known to be one in the folder.
  std::vector<std::string> words = {
      "strace", "-f", "-qq", "-y", "-s", "4096", "-e", "trace=%file,%desc", "-o", log};
  for (const pid_t pid : pids) words.insert(words.end(), {"-p", std::to_string(pid)});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t quiet;
  posix_spawn_file_actions_init(&quiet);
  posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", 1 /* O_WRONLY */, 0);
  if (posix_spawnp(&strace_, argv[0], &quiet, nullptr, argv.data(), environ) != 0) strace_ = 0;
  posix_spawn_file_actions_destroy(&quiet);
  for (const pid_t pid : pids) {
    for (int i = 0; strace_ > 0 && !is_traced(pid); ++i) {
      if (i == 500 || ::waitpid(strace_, nullptr, WNOHANG) == strace_) {
        detach();
        return;
      }
      sleep_until_ns(now_ns() + 10 * kMillisecond);
    }
  }
}

OperationCount::~OperationCount() {
  detach();
  (void)::unlink(log_.c_str());
}

void OperationCount::detach() {
  if (strace_ <= 0) return;
  (void)::kill(strace_, SIGINT);
  for (int i = 0; i < 300; ++i) {
    if (::waitpid(strace_, nullptr, WNOHANG) != 0) break;
    if (i == 200) (void)::kill(strace_, SIGKILL);
    sleep_until_ns(now_ns() + 10 * kMillisecond);
  }
  strace_ = 0;
}

std::map<std::string, int> OperationCount::end(const std::string& folder) {
  detach();
  std::map<std::string, int> calls;
  std::ifstream log(log_);
  // 4242  flock(5</folder/x.lock>, LOCK_EX|LOCK_NB) = 0
  // 4242  <... flock resumed>) = 0            the second half of a call that was counted
  for (std::string line; std::getline(log, line);) {
    const std::size_t begin = line.find_first_not_of(' ', line.find(' '));
    const std::size_t bracket = line.find('(');
    if (begin == std::string::npos || bracket == std::string::npos || line[begin] == '<') continue;
    if (line.find(folder, bracket) == std::string::npos) continue;
    ++calls[line.substr(begin, bracket - begin)];
  }
  return calls;
}

}  // namespace fvprefetch::contending
