// A process between a launcher and the command, as a container runtime is: forks, waits, passes
// signals on.
//
//   apptainer [--codes DIR] CMD...
//
// Without --codes it ends as CMD does. With it the launcher is told of no failure (it would kill
// the other ranks), and DIR gets the files pid.RANK, with the pid of CMD, and RANK, with its exit
// code (128 + N for signal N).
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int kCannotRun = 127;

std::string rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"}) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  }
  return "0";
}

// Under its name only when it is whole: others wait for the file and read it at once.
void record(const std::string& path, int number) {
  const std::string unfinished = path + ".unfinished";
  std::FILE* file = std::fopen(unfinished.c_str(), "w");
  const bool written = file != nullptr && std::fprintf(file, "%d\n", number) > 0;
  const bool closed = file != nullptr && std::fclose(file) == 0;
  if (!written || !closed || std::rename(unfinished.c_str(), path.c_str()) != 0) {
    std::perror(path.c_str());
    std::exit(kCannotRun);
  }
}

[[noreturn]] void become(char** command, pid_t parent, const sigset_t& before) {
  // SIGKILL cannot be passed on.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kCannotRun);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  execvp(command[0], command);
  std::fprintf(stderr, "%s: %s\n", command[0], std::strerror(errno));
  _exit(kCannotRun);
}

// Passes signals on until `child` has ended; returns its exit code.
int attend(pid_t child, const sigset_t& heeded) {
  for (;;) {
    const int received = sigwaitinfo(&heeded, nullptr);
    if (received > 0 && received != SIGCHLD) kill(child, received);
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) {
      return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string codes;
  char** command = argv + 1;
  if (argc > 2 && std::strcmp(argv[1], "--codes") == 0) {
    codes = argv[2];
    command += 2;
  }
  if (*command == nullptr) {
    std::fprintf(stderr, "usage: %s [--codes DIR] CMD...\n", argv[0]);
    return 2;
  }
  sigset_t heeded;
  sigset_t before;
  sigemptyset(&heeded);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&heeded, number);
  sigprocmask(SIG_BLOCK, &heeded, &before);

  const pid_t self = getpid();
  const pid_t child = fork();
  if (child == 0) become(command, self, before);
  if (child < 0) {
    std::perror("fork");
    return kCannotRun;
  }
  if (!codes.empty()) record(codes + "/pid." + rank(), child);
  const int code = attend(child, heeded);
  if (codes.empty()) return code;
  record(codes + "/" + rank(), code);
  return 0;
}
