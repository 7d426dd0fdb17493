/* A file system that never answers when a lock file is opened, or a link made, below
 * FVPREFETCH_SHIM_BELOW: FVPREFETCH_SHIM_HANGS_IN is "open" or "link". */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void hang_in(const char* call, const char* path, const char* ending) {
  const char* in = getenv("FVPREFETCH_SHIM_HANGS_IN");
  const char* below = getenv("FVPREFETCH_SHIM_BELOW");
  const size_t length = strlen(path), end = strlen(ending);
  if (!in || !below || strcmp(in, call) != 0 || strncmp(path, below, strlen(below)) != 0) return;
  if (length < end || strcmp(path + length - end, ending) != 0) return;
  for (;;) pause();
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, int) : 0;
  va_end(arguments);
  if (flags & O_CREAT) hang_in("open", path, ".lock");
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int open(const char* path, int flags, ...) __attribute__((alias("open64")));

int link(const char* from, const char* to) {
  hang_in("link", to, ".lease");
  return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}
