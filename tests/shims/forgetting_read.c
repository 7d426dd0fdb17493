/* GlusterFS where a lease is removed between open() and read(): what is open goes with its name. Once in a process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef ssize_t (*read_call)(int, void*, size_t, off_t);

static int is_forgotten(int fd) {
  static int once;
  char link[64];
  char path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 6 || memcmp(path + length - 6, ".lease", 6) != 0 || once++) return 0;
  errno = ENOENT;
  return 1;
}

#define SHIM(name)                                                                              \
  ssize_t name(int fd, void* to, size_t size, off_t at) {                                       \
    return is_forgotten(fd) ? -1 : ((read_call)dlsym(RTLD_NEXT, #name))(fd, to, size, at);      \
  }
SHIM(pread)
SHIM(pread64)
