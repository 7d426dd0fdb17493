#include "base/idle.h"

#include <utility>

namespace fvprefetch {
namespace {

thread_local std::function<void()> chore_of_this_thread;

}  // namespace

Idle::Idle(std::function<void()> chore) {
  chore_of_this_thread = std::move(chore);
}

Idle::~Idle() {
  chore_of_this_thread = nullptr;
}

void idle() {
  if (chore_of_this_thread) chore_of_this_thread();
}

}  // namespace fvprefetch
