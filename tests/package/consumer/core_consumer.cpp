#include <fvprefetch/checkpoint.h>
#include <fvprefetch/prefetch.h>

#include <cstdio>

int main(int, char** argv) {
  const auto path = fvprefetch::ensure_checkpoint("mine", argv[1]);
  if (!path) {
    std::fprintf(stderr, "%s\n", fvprefetch::describe(path.error()).c_str());
    return fvprefetch::exit_code(path.error().code);
  }
  std::puts(path->c_str());
  return 0;
}
