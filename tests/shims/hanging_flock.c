/* A file system on which no lock call returns, not even the non-blocking one: NFS without its
 * server. */
#include "lock_calls.h"

static int lock(void) {
  while (pause() != 0) continue;
  return -1;
}
