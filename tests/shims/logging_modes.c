/* Writes down which names get another mode or group after they were made: a line "<call> <path>"
   for each, in the file that FVP_SHIM_LOG names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(const char* call, const char* path) {
  char line[PATH_MAX + 32];
  const char* log = getenv("FVP_SHIM_LOG");
  const int length = snprintf(line, sizeof line, "%s %s\n", call, path);
  const int fd = log == NULL ? -1 : open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return;
  if (write(fd, line, (size_t)length) != length) abort();
  close(fd);
}

static void note_fd(const char* call, int fd) {
  char link[64];
  char path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return;
  path[length] = '\0';
  note(call, path);
}

int fchmod(int fd, mode_t mode) {
  int (*real)(int, mode_t) = (int (*)(int, mode_t))dlsym(RTLD_NEXT, "fchmod");
  note_fd("fchmod", fd);
  return real(fd, mode);
}

int chmod(const char* path, mode_t mode) {
  int (*real)(const char*, mode_t) = (int (*)(const char*, mode_t))dlsym(RTLD_NEXT, "chmod");
  note("chmod", path);
  return real(path, mode);
}

int fchown(int fd, uid_t user, gid_t group) {
  int (*real)(int, uid_t, gid_t) = (int (*)(int, uid_t, gid_t))dlsym(RTLD_NEXT, "fchown");
  note_fd("fchown", fd);
  return real(fd, user, group);
}
