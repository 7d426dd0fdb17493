/* A busy machine: every lock is granted, the first one of a process after a fifth of a second. */
#include "lock_calls.h"

#include <stdatomic.h>
#include <time.h>

static atomic_int calls;

static int lock(void) {
  struct timespec while_busy = {.tv_sec = 0, .tv_nsec = 200 * 1000 * 1000};
  if (atomic_fetch_add(&calls, 1) == 0) nanosleep(&while_busy, NULL);
  return 0;
}
