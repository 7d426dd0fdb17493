/* GlusterFS when two clients make one name at the same moment: this one is told that the name is
   there, which it can see only later. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_there(const char* path) {
  struct stat status;
  return lstat(path, &status) == 0;
}

static void* make_directory(void* path) {
  usleep(50000);
  (void)syscall(SYS_mkdir, path, 0777);
  free(path);
  return NULL;
}

static void* make_file(void* path) {
  usleep(50000);
  const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  if (fd >= 0) close(fd);
  free(path);
  return NULL;
}

static int somebody_else_makes(const char* path, void* (*make)(void*)) {
  pthread_t other;
  if (pthread_create(&other, NULL, make, strdup(path)) != 0) abort();
  pthread_detach(other);
  errno = EEXIST;
  return -1;
}

int mkdir(const char* path, mode_t mode) {
  if (!is_there(path) && strstr(path, "/models") != NULL) {
    return somebody_else_makes(path, make_directory);
  }
  return (int)syscall(SYS_mkdir, path, mode);
}

/* glibc has it under two names. */
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const unsigned mode = (flags & O_CREAT) != 0 ? va_arg(arguments, unsigned) : 0;
  va_end(arguments);
  const char* end = strrchr(path, '.');
  if ((flags & (O_CREAT | O_EXCL)) == O_CREAT && end != NULL && strcmp(end, ".lock") == 0 &&
      !is_there(path)) {
    return somebody_else_makes(path, make_file);
  }
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int open(const char* path, int flags, ...) __attribute__((alias("open64")));
