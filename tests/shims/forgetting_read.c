/* GlusterFS where a lease is removed between open() and the look at it or read(): what is open goes with its name. Once
   for each of the two in a process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

typedef ssize_t (*read_call)(int, void*, size_t, off_t);
typedef int (*look_call)(int, void*);

static int is_forgotten(int fd, int* once) {
  char link[64];
  char path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 6 || memcmp(path + length - 6, ".lease", 6) != 0 || (*once)++) return 0;
  errno = ENOENT;
  return 1;
}

#define READ(name)                                                                               \
  ssize_t name(int fd, void* to, size_t size, off_t at) {                                       \
    return is_forgotten(fd, &reads) ? -1 : ((read_call)dlsym(RTLD_NEXT, #name))(fd, to, size, at); \
  }
#define LOOK(name, status)                                                              \
  int name(int fd, struct status* to) {                                                 \
    return is_forgotten(fd, &looks) ? -1 : ((look_call)dlsym(RTLD_NEXT, #name))(fd, to); \
  }
static int reads, looks;
READ(pread)
READ(pread64)
LOOK(fstat, stat)
LOOK(fstat64, stat64)
