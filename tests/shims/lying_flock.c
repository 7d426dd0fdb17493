/* A file system on which every lock is granted: BeeGFS as it comes, NFS with nolock, Lustre with
   localflock seen from two nodes. */
#include "lock_calls.h"

static int lock(void) {
  return 0;
}
