/* A file system that refuses every lock, with the number in FVP_SHIM_ERRNO: 37 ENOLCK, 38 ENOSYS,
   9 EBADF, 524. Without it: ENOLCK. */
#include "lock_calls.h"

#include <stdlib.h>

static int lock(void) {
  const char* number = getenv("FVP_SHIM_ERRNO");
  errno = number == NULL ? ENOLCK : atoi(number);
  return -1;
}
