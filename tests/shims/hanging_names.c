/* A file system that never answers when a lock file is opened, a link made, or the record of a
 * lease written again, below FVPREFETCH_SHIM_BELOW: FVPREFETCH_SHIM_HANGS_IN is "open", "link" or
 * "renew". */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
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

ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  char name[64], path[4096] = "";
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  if (readlink(name, path, sizeof path - 1) > 0 && lseek64(fd, 0, SEEK_END) > 0) {
    hang_in("renew", path, ".lease-record");
  }
  return syscall(SYS_pwrite64, fd, data, size, offset);
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t offset)
    __attribute__((alias("pwrite64")));

int link(const char* from, const char* to) {
  hang_in("link", to, ".lease");
  return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}
