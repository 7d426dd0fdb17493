#include "cli/output.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>

#include "base/posix.h"

namespace fvprefetch::cli {
namespace {

Error write_error(int number) {
  if (number == EPIPE) {
    Error error = interrupted(SIGPIPE);
    error.message = "standard output was closed by its reader";
    error.hint = "the files are there; run again to get their paths";
    return error;
  }
  if (number == EBADF) {
    return fail(ErrorCode::kUsage, "standard output is closed",
                "send it to a file, or to /dev/null when the paths are not needed")
        .value();
  }
  Error error = posix::errno_error(number, "write", "standard output");
  // The table's hint speaks of the caches, and they are not what is full.
  error.hint = "the files are there; run again with standard output where it can be written";
  return error;
}

}  // namespace

void ensure_standard_descriptors() {
  // open() takes the lowest free number. Read-only for 1: writing there stays an error (EBADF).
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    (void)::open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
  }
}

posix::Fd take_standard_output() {
  constexpr int kLeast = 10;  // scripts use the ones below
  posix::Fd own(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, kLeast));
  // Without a further descriptor results go where they always went.
  if (own) (void)::dup2(STDERR_FILENO, STDOUT_FILENO);
  return own;
}

Status write_results(int fd, std::string_view text, const StopCheck& must_stop) {
  while (!text.empty()) {
    constexpr int kSliceMs = 100;
    pollfd ready{fd, POLLOUT, 0};
    if (must_stop && ::poll(&ready, 1, kSliceMs) == 0) {
      if (auto stop = must_stop()) return fail(*std::move(stop));
      continue;
    }
    // What poll() says of a pipe is true of so many bytes.
    const ssize_t written = ::write(fd, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
    if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (written < 0) return fail(write_error(errno));
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace fvprefetch::cli
