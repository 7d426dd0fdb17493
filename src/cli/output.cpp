#include "cli/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
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

Status write_results(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail(write_error(errno));
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace fvprefetch::cli
