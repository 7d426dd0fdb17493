/* A file system that cannot exchange two names: NFS. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  if (flags == 0) return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
  errno = EINVAL;
  return -1;
}
