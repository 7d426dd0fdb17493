// Preloaded into the command by a test: a quota that is used up. When the writes of this process
// have brought FVPREFETCH_TEST_QUOTA bytes in all, each further one fails as one over a quota does.
//
// Why not a real one: root is above the quotas of ext4 and XFS, both want a block device of their
// own, which a container seldom has, and the quotas of tmpfs are an option of newer kernels.
#include <dlfcn.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

namespace {

std::atomic<long long> left{[] {
  const char* const text = std::getenv("FVPREFETCH_TEST_QUOTA");
  return text == nullptr ? 1LL << 62 : std::strtoll(text, nullptr, 10);
}()};

ssize_t limited(const char* name, int fd, const void* data, size_t size, off_t offset) {
  using Function = ssize_t (*)(int, const void*, size_t, off_t);
  if (left.fetch_sub(static_cast<long long>(size)) < static_cast<long long>(size)) {
    errno = EDQUOT;
    return -1;
  }
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name))(fd, data, size, offset);
}

}  // namespace

// Both names of one function: which one a program calls depends on how it was built.
extern "C" ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  return limited("pwrite", fd, data, size, offset);
}
extern "C" ssize_t pwrite64(int fd, const void* data, size_t size, off_t offset) {
  return limited("pwrite64", fd, data, size, offset);
}
