// What a thread does besides while it waits or reads at length. MPI may be called by one thread
// alone; when that one works for all ranks, in code that knows of no ranks, this is how it hears
// from them, and they from it.
#pragma once

#include <functional>

namespace fvprefetch {

/// While it lives, this thread calls `chore` whenever it comes by idle(). One at a time per thread.
class Idle {
 public:
  explicit Idle(std::function<void()> chore);
  Idle(const Idle&) = delete;
  Idle& operator=(const Idle&) = delete;
  ~Idle();
};

/// Called in every wait of this thread, several times a second, and between pieces of long work.
/// Does nothing on a thread without a chore. The chore must be quick, and must not throw.
void idle();

}  // namespace fvprefetch
