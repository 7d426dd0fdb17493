// Renames that fail, or that are done and whose answer is lost, as over NFS. This program's
// rename() and renameat2() stand in for libc's.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "base/posix.h"
#include "cache/url_store.h"
#include "support/matchers.h"
#include "support/temp_dir.h"

namespace {

// Of the next renames: errno that is told although it was done; else errno in place of doing it.
std::function<int(const std::string& to)> lost_answer;
std::function<int(const std::string& to, unsigned flags)> refusal;

int do_rename(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  if (refusal) {
    if (const int number = refusal(to, flags)) {
      errno = number;
      return -1;
    }
  }
  const auto done = static_cast<int>(::syscall(SYS_renameat2, from_at, from, to_at, to, flags));
  if (done != 0 || !lost_answer) return done;
  errno = lost_answer(to);
  return errno == 0 ? 0 : -1;
}

}  // namespace

extern "C" int rename(const char* from, const char* to) noexcept {
  return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0);
}
extern "C" int renameat2(int from_at, const char* from, int to_at, const char* to,
                         unsigned flags) noexcept {
  return do_rename(from_at, from, to_at, to, flags);
}

namespace fvprefetch {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::TempDir;
namespace fs = std::filesystem;

class RenameFaults : public ::testing::Test {
 protected:
  ~RenameFaults() override {
    lost_answer = nullptr;
    refusal = nullptr;
  }
  const TempDir dir_;
};

TEST_F(RenameFaults, APrivateFileThatWasRenamedAlthoughTheAnswerWasLostIsRenamed) {
  dir_.write("a", "1");
  lost_answer = [](const std::string&) { return ENOENT; };
  EXPECT_TRUE(IsOk(posix::rename_private(dir_ / "a", dir_ / "b")));
  EXPECT_EQ(dir_.read("b"), "1");
  EXPECT_TRUE(FailsWith(posix::rename_private(dir_ / "a", dir_ / "b"), ErrorCode::kNotFound));
}

// NFS has no exchange; the server goes away after the old folder was moved aside.
TEST_F(RenameFaults, AFolderWhoseReplacementFailsAndThatCannotBePutBackIsKept) {
  dir_.write("torch/hub/good.txt", "the only copy");
  const UrlStore store(dir_.path(), "torch/hub");
  ASSERT_TRUE(IsOk(store.prepare()));
  fs::create_directories(store.paths().unpacking("0123abcd"));
  std::ofstream(store.paths().unpacking("0123abcd") + "/new.txt") << "new";
  for (const bool for_ever : {true, false}) {
    bool aside = false;
    refusal = [&](const std::string& to, unsigned flags) {
      if (flags != 0) return EINVAL;
      if (to == store.paths().path()) return aside ? EIO : ENOTEMPTY;
      if (aside && for_ever) return EIO;
      aside = true;
      return 0;
    };
    const Status published = store.publish_directory("0123abcd");
    refusal = nullptr;
    ASSERT_TRUE(FailsWith(published, ErrorCode::kInternal, "what was there is kept as "));
    const std::string& message = published.error().message;
    const std::string kept = message.substr(message.rfind(' ') + 1);
    EXPECT_TRUE(fs::exists(kept + "/good.txt")) << message;
    fs::remove_all(dir_ / "torch/hub");
    fs::rename(kept, dir_ / "torch/hub");
    fs::create_directories(store.paths().unpacking("0123abcd"));
  }
}

}  // namespace
}  // namespace fvprefetch
