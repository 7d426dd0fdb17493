/* The lock calls of a program that has the shim preloaded: lock() stands in for each that would
   take a lock, by flock(2) or fcntl(2). All others go to the kernel. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the call returns; sets errno. */
static int lock(void);

int flock(int fd, int operation) {
  if (operation & (LOCK_EX | LOCK_SH)) return lock();
  return (int)syscall(SYS_flock, fd, operation);
}

static int takes_a_lock(int command, const struct flock* range) {
  switch (command) {
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
      return range->l_type != F_UNLCK;
    default:
      return 0;
  }
}

/* glibc has it under two names. */
int fcntl64(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (takes_a_lock(command, argument)) return lock();
  return (int)syscall(SYS_fcntl, fd, command, argument);
}
int fcntl(int fd, int command, ...) __attribute__((alias("fcntl64")));
