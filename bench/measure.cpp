// Question: what did this command cost? Runs commands one after the other and writes wall time, CPU
// time and peak memory of each, with all their children, as one line of JSON:
//
//   measure RESULT -- curl -o f URL --then sha256sum -c sums
//
// A program of its own since it must be small: a child's peak memory begins with its parent's
// (ru_maxrss survives exec), and a fork of Python costs milliseconds. Ends with the first status
// that is not 0; the rest is not run.
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

extern char** environ;

namespace {

double seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || std::strcmp(argv[2], "--") != 0) return 2;
  std::vector<std::vector<char*>> steps(1);
  for (int i = 3; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--then") {
      steps.emplace_back();
    } else {
      steps.back().push_back(argv[i]);
    }
  }
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  std::string lines;
  int code = 0;
  const Clock::time_point begin = Clock::now();
  for (std::vector<char*>& step : steps) {
    if (code != 0 || step.empty()) break;
    step.push_back(nullptr);
    const Clock::time_point step_begin = Clock::now();
    pid_t pid = 0;
    int status = 0;
    rusage usage{};
    if (posix_spawnp(&pid, step[0], nullptr, nullptr, step.data(), environ) != 0 ||
        wait4(pid, &status, 0, &usage) != pid) {
      std::fprintf(stderr, "cannot run %s\n", step[0]);
      return 127;
    }
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    char line[256];
    std::snprintf(line, sizeof line,
                  R"(%s{"wall": %.6f, "cpu": %.6f, "peak_kib": %ld, "status": %d})",
                  lines.empty() ? "" : ", ", since(step_begin),
                  seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss, code);
    lines += line;
  }
  const double wall = since(begin);
  std::FILE* out = std::fopen(argv[1], "w");
  if (out == nullptr) return 1;
  std::fprintf(out, "{\"wall\": %.6f, \"steps\": [%s]}\n", wall, lines.c_str());
  return std::fclose(out) == 0 ? code : 1;
}
