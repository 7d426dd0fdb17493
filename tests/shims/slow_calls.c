/* A slow file system. FVP_SLOW names the calls and the seconds that each one takes longer:
 * "fsync=6", "stat=0.005", "open=0.02" (of files to be written), "read=1", "write=0.5"; several with commas.
 * With FVP_SLOW_PATH only those on files with this in their path; FVP_SLOW_MARK is a file that the first one makes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static double seconds_of(const char* call) {
  const char* at = getenv("FVP_SLOW");
  const size_t length = strlen(call);
  while (at != NULL && *at != '\0') {
    if (strncmp(at, call, length) == 0 && at[length] == '=') return atof(at + length + 1);
    at = strchr(at, ',');
    if (at != NULL) ++at;
  }
  return 0;
}

static void delay(const char* call, const char* path) {
  const int before = errno;
  const double seconds = seconds_of(call);
  const char* only = getenv("FVP_SLOW_PATH");
  if (seconds > 0 && (only == NULL || (path != NULL && strstr(path, only) != NULL))) {
    const char* mark = getenv("FVP_SLOW_MARK");
    if (mark != NULL) {
      const long made = syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
      if (made >= 0) close((int)made);
    }
    struct timespec rest = {.tv_sec = (time_t)seconds};
    rest.tv_nsec = (long)((seconds - (double)rest.tv_sec) * 1e9);
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
    }
  }
  errno = before;
}

static void delay_on(const char* call, int fd) {
  char name[64];
  char path[4096];
  const int before = errno;
  if (seconds_of(call) <= 0) return;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(name, path, sizeof path - 1);
  path[length > 0 ? length : 0] = '\0';
  errno = before;
  delay(call, path);
}

#define NEXT(type, name, ...)   \
  type (*next)(__VA_ARGS__);    \
  *(void**)&next = dlsym(RTLD_NEXT, name)

int fsync(int fd) {
  NEXT(int, "fsync", int);
  delay_on("fsync", fd);
  return next(fd);
}
int fdatasync(int fd) {
  NEXT(int, "fdatasync", int);
  delay_on("fsync", fd);
  return next(fd);
}

int stat(const char* restrict path, struct stat* restrict to) {
  NEXT(int, "stat", const char*, struct stat*);
  delay("stat", path);
  return next(path, to);
}
int lstat(const char* restrict path, struct stat* restrict to) {
  NEXT(int, "lstat", const char*, struct stat*);
  delay("stat", path);
  return next(path, to);
}
int fstatat(int at, const char* restrict path, struct stat* restrict to, int flags) {
  NEXT(int, "fstatat", int, const char*, struct stat*, int);
  delay("stat", path);
  return next(at, path, to, flags);
}
int stat64(const char* restrict path, struct stat64* restrict to) {
  NEXT(int, "stat64", const char*, struct stat64*);
  delay("stat", path);
  return next(path, to);
}
int lstat64(const char* restrict path, struct stat64* restrict to) {
  NEXT(int, "lstat64", const char*, struct stat64*);
  delay("stat", path);
  return next(path, to);
}
int fstatat64(int at, const char* restrict path, struct stat64* restrict to, int flags) {
  NEXT(int, "fstatat64", int, const char*, struct stat64*, int);
  delay("stat", path);
  return next(at, path, to, flags);
}
int statx(int at, const char* restrict path, int flags, unsigned int mask, struct statx* restrict to) {
  NEXT(int, "statx", int, const char*, int, unsigned int, struct statx*);
  delay("stat", path);
  return next(at, path, flags, mask, to);
}

static mode_t mode_of(int flags, va_list more) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, mode_t) : 0;
}
#define OPENING(name, at_parameter, at_argument, at_type)            \
  int name(at_parameter const char* path, int flags, ...) {          \
    NEXT(int, #name, at_type const char*, int, ...);                 \
    va_list more;                                                    \
    va_start(more, flags);                                           \
    const mode_t mode = mode_of(flags, more);                        \
    va_end(more);                                                    \
    if ((flags & O_ACCMODE) != O_RDONLY) delay("open", path);        \
    return next(at_argument path, flags, mode);                      \
  }
#define COMMA ,
OPENING(open, , , )
OPENING(open64, , , )
OPENING(openat, int at COMMA, at COMMA, int COMMA)
OPENING(openat64, int at COMMA, at COMMA, int COMMA)

ssize_t read(int fd, void* data, size_t size) {
  NEXT(ssize_t, "read", int, void*, size_t);
  delay_on("read", fd);
  return next(fd, data, size);
}
ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  NEXT(ssize_t, "pread", int, void*, size_t, off_t);
  delay_on("read", fd);
  return next(fd, data, size, offset);
}
ssize_t pread64(int fd, void* data, size_t size, off64_t offset) {
  NEXT(ssize_t, "pread64", int, void*, size_t, off64_t);
  delay_on("read", fd);
  return next(fd, data, size, offset);
}

ssize_t write(int fd, const void* data, size_t size) {
  NEXT(ssize_t, "write", int, const void*, size_t);
  delay_on("write", fd);
  return next(fd, data, size);
}
ssize_t writev(int fd, const struct iovec* parts, int count) {
  NEXT(ssize_t, "writev", int, const struct iovec*, int);
  delay_on("write", fd);
  return next(fd, parts, count);
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  NEXT(ssize_t, "pwrite", int, const void*, size_t, off_t);
  delay_on("write", fd);
  return next(fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  NEXT(ssize_t, "pwrite64", int, const void*, size_t, off64_t);
  delay_on("write", fd);
  return next(fd, data, size, offset);
}
ssize_t copy_file_range(int from, off64_t* from_offset, int to, off64_t* to_offset, size_t size, unsigned int flags) {
  NEXT(ssize_t, "copy_file_range", int, off64_t*, int, off64_t*, size_t, unsigned int);
  delay_on("write", to);
  return next(from, from_offset, to, to_offset, size, flags);
}
