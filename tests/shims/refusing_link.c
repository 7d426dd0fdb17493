/* A file system without hard links: an object store, some FUSE. */
#include <errno.h>

int link(const char* from, const char* to) {
  (void)from;
  (void)to;
  errno = EPERM;
  return -1;
}
