#include "base/posix.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <set>
#include <thread>

#include "base/claim.h"
#include "support/matchers.h"
#include "support/temp_dir.h"
#include "support/tiny_disk.h"

// What fsync says in this program: the linker takes this one before libc's.
static int fsync_fails_with = 0;
static int fsync_calls = 0;
static int fsync_fails_from = 0;  // this call on
extern "C" int fsync(int fd) {
  if (++fsync_calls >= fsync_fails_from && fsync_fails_with != 0) {
    errno = fsync_fails_with;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

namespace fvprefetch::posix {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::row_name;
using testing::TempDir;
using testing::TinyDisk;
namespace fs = std::filesystem;

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

mode_t mode_of(const std::string& path) {
  struct ::stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 07777U;
}

// The umask of a test, put back at its end.
class Umask {
 public:
  explicit Umask(mode_t mask) : before_(::umask(mask)) {}
  Umask(const Umask&) = delete;
  Umask& operator=(const Umask&) = delete;
  ~Umask() { (void)::umask(before_); }

 private:
  mode_t before_;
};

struct Errno {
  const char* name;
  int number;
  ErrorCode code;
};
constexpr Errno kErrnos[] = {
    {"enoent", ENOENT, ErrorCode::kNotFound}, {"enospc", ENOSPC, ErrorCode::kNoSpace},
    {"edquot", EDQUOT, ErrorCode::kNoSpace},  {"eacces", EACCES, ErrorCode::kPermission},
    {"eperm", EPERM, ErrorCode::kPermission}, {"erofs", EROFS, ErrorCode::kPermission},
    {"eio", EIO, ErrorCode::kInternal},       {"eisdir", EISDIR, ErrorCode::kPermission},
    {"eloop", ELOOP, ErrorCode::kPermission}, {"enotsupp_524", 524, ErrorCode::kInternal},
    {"emfile", EMFILE, ErrorCode::kNoSpace},  {"enfile", ENFILE, ErrorCode::kNoSpace},
    {"efbig", EFBIG, ErrorCode::kNoSpace},
};
class PosixErrno : public ::testing::TestWithParam<Errno> {};
TEST_P(PosixErrno, HasItsCode) {
  EXPECT_EQ(errno_error(GetParam().number, "write", "/x").code, GetParam().code);
}
INSTANTIATE_TEST_SUITE_P(Rows, PosixErrno, ::testing::ValuesIn(kErrnos), row_name<Errno>);

TEST(PosixErrno, SaysWhatFailedOnWhatAndWhy) {
  const Error error = errno_error(ENOSPC, "write", "/cache/f");
  EXPECT_EQ(error.message, "cannot write /cache/f: No space left on device");
  EXPECT_EQ(error.subject, "/cache/f");
}

TEST(PosixErrno, TellsOfTheLimitOfOpenFiles) {
  for (const int number : {EMFILE, ENFILE}) {
    const Error error = errno_error(number, "open", "/cache/f");
    EXPECT_TRUE(is_descriptor_shortage(error));
    EXPECT_NE(hint(error).find("ulimit -n"), std::string::npos) << hint(error);
  }
  EXPECT_FALSE(is_descriptor_shortage(errno_error(EIO, "open", "/cache/f")));
}

TEST(Descriptors, AreFewerWhenSomeAreOpen) {
  struct ::rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const struct ::rlimit few { 64, before.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  const std::size_t free = free_descriptors();
  EXPECT_EQ(descriptor_shortage(), 0);
  std::vector<Fd> open;
  for (auto fd = open_read("/proc/self/exe"); fd; fd = open_read("/proc/self/exe")) {
    open.push_back(*std::move(fd));
  }
  EXPECT_EQ(descriptor_shortage(), EMFILE);
  EXPECT_EQ(free_descriptors(), 0U);
  EXPECT_EQ(open.size(), free);
  open.clear();
  EXPECT_EQ(free_descriptors(), free);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(PosixErrno, NamesTheQuotaWhereThatIsUsedUpAndNotTheDisk) {
  EXPECT_NE(errno_error(EDQUOT, "write", "/cache/f").hint.find("quota"), std::string::npos);
  EXPECT_EQ(errno_error(ENOSPC, "write", "/cache/f").hint.find("quota"), std::string::npos);
}

TEST(PosixErrno, NamesTheLimitOfAFilesSize) {
  struct ::rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const struct ::rlimit few { 4096, before.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &few), 0);
  const Error error = errno_error(EFBIG, "write", "/cache/f");
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_NE(error.message.find("no file larger than 4096 bytes"), std::string::npos)
      << error.message;
  EXPECT_NE(error.hint.find("ulimit -f"), std::string::npos) << error.hint;
}

struct Parent {
  const char* name;
  const char* path;
  const char* parent;
};
constexpr Parent kParents[] = {
    {"nested", "/a/b/c", "/a/b"},
    {"top", "/a", "/"},
    {"root", "/", "/"},
    {"bare", "a", "."},
    {"relative", "a/b", "a"},
    {"trailing_slash", "/a/b/", "/a"},
    {"double_slash", "/a//b", "/a"},
    {"empty", "", "."},
};
class PosixParent : public ::testing::TestWithParam<Parent> {};
TEST_P(PosixParent, IsTheDirectory) {
  EXPECT_EQ(parent(GetParam().path), GetParam().parent);
}
INSTANTIATE_TEST_SUITE_P(Rows, PosixParent, ::testing::ValuesIn(kParents), row_name<Parent>);

// Looking

TEST(Stat, FollowsLinksToTheirEnd) {
  const TempDir dir;
  dir.write("store/payload", "12345");
  fs::create_symlink("store/payload", dir / "blob");
  fs::create_symlink("blob", dir / "pointer");
  const auto info = stat(dir / "pointer");
  ASSERT_TRUE(IsOk(info));
  ASSERT_TRUE(info->has_value());
  EXPECT_TRUE((*info)->regular);
  EXPECT_EQ((*info)->size, 5U);
}

TEST(Stat, DanglingLinkIsNothing) {
  const TempDir dir;
  fs::create_symlink("gone", dir / "pointer");
  const auto info = stat(dir / "pointer");
  ASSERT_TRUE(IsOk(info));
  EXPECT_FALSE(info->has_value());
  EXPECT_FALSE(exists(dir / "pointer"));
  EXPECT_TRUE(is_link(dir / "pointer"));
}

TEST(Stat, WhatLiesBelowAFileIsNothing) {
  const TempDir dir;
  const auto info = stat(dir.write("f", "") + "/x");
  ASSERT_TRUE(IsOk(info));
  EXPECT_FALSE(info->has_value());
}

TEST(Stat, LoopOfLinksIsAnError) {
  const TempDir dir;
  fs::create_symlink("b", dir / "a");
  fs::create_symlink("a", dir / "b");
  EXPECT_TRUE(FailsWith(stat(dir / "a"), ErrorCode::kPermission, "cannot look at"));
}

TEST(RealPath, SurvivesALoopOfLinks) {
  const TempDir dir;
  fs::create_symlink("b", dir / "a");
  fs::create_symlink("a", dir / "b");
  EXPECT_TRUE(real_path(dir / "a/x").starts_with(dir.path()));
}

TEST(RealPath, ParentOfALinkIsTheTargetsParent) {
  const TempDir dir;
  fs::create_directories(dir / "deep/er");
  fs::create_directory_symlink("deep/er", dir / "link");
  EXPECT_EQ(real_path(dir / "link/../x"), dir / "deep/x");
}

TEST(RealPath, AboveTheRootIsTheRoot) {
  EXPECT_EQ(real_path("/../.."), "/");
}

TEST(ReadLink, TellsTheTextAndNothingElse) {
  const TempDir dir;
  fs::create_symlink("../../blobs/abc", dir / "l");
  EXPECT_EQ(read_link(dir / "l"), "../../blobs/abc");
  EXPECT_EQ(read_link(dir.write("f", "")), std::nullopt);
  EXPECT_EQ(read_link(dir / "none"), std::nullopt);
}

TEST(List, IsSortedAndWithoutDots) {
  const TempDir dir;
  dir.write("b", "");
  dir.write(".a", "");
  const auto names = list(dir.path());
  ASSERT_TRUE(IsOk(names));
  EXPECT_EQ(*names, (std::vector<std::string>{".a", "b"}));
}

TEST(List, MissingDirectoryIsEmpty) {
  const TempDir dir;
  const auto names = list(dir / "none");
  ASSERT_TRUE(IsOk(names));
  EXPECT_TRUE(names->empty());
}

TEST(ReadSmall, ReadsAllBytesWithTheirNuls) {
  const TempDir dir;
  const std::string text("a\0b", 3);
  const auto read = read_small(dir.write("f", text));
  ASSERT_TRUE(IsOk(read));
  EXPECT_EQ(*read, text);
}

TEST(ReadSmall, MissingIsNothing) {
  const TempDir dir;
  const auto read = read_small(dir / "none");
  ASSERT_TRUE(IsOk(read));
  EXPECT_FALSE(read->has_value());
}

TEST(ReadSmall, RefusesMoreThanItsLimit) {
  const TempDir dir;
  EXPECT_TRUE(IsOk(read_small(dir.write("f", "1234"), 4)));
  EXPECT_TRUE(FailsWith(read_small(dir.write("g", "12345"), 4), ErrorCode::kInternal, "4 bytes"));
}

TEST(ReadSmall, AFifoIsNotWaitedFor) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "f").c_str(), 0600), 0);
  EXPECT_TRUE(FailsWith(read_small(dir / "f"), ErrorCode::kUsage, "no regular file"));
  EXPECT_TRUE(FailsWith(open_read(dir / "f"), ErrorCode::kUsage, "no regular file"));
}

TEST(ReadStream, ReadsAPipeToItsEnd) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reader(ends[0]);
  std::jthread writer([fd = Fd(ends[1])] { EXPECT_EQ(::write(fd.get(), "manifest", 8), 8); });
  const auto read = read_stream("/dev/fd/" + std::to_string(reader.get()));
  writer.join();
  ASSERT_TRUE(IsOk(read));
  EXPECT_EQ(*read, "manifest");
}

// Making

TEST(MakeDirectories, MakesAllOfThemAndIsFineWithExistingOnes) {
  const TempDir dir;
  EXPECT_TRUE(IsOk(make_directories(dir / "a/b/c")));
  EXPECT_TRUE(IsOk(make_directories(dir / "a/b/c")));
  EXPECT_TRUE(fs::is_directory(dir / "a/b/c"));
}

TEST(MakeDirectories, RefusesAFileInTheWay) {
  const TempDir dir;
  dir.write("a", "");
  EXPECT_TRUE(FailsWith(make_directories(dir / "a/b"), ErrorCode::kUsage, dir / "a"));
}

// The modes of what we make, by umask and by the directory it lies in.
struct Modes {
  const char* name;
  mode_t mask;
  mode_t directory;
  mode_t new_file;
  mode_t new_directory;
};
constexpr Modes kModes[] = {
    {"a_person_alone", 022, 0755, 0644, 0755},
    {"a_private_person", 077, 0700, 0600, 0700},
    {"group_cache_with_the_usual_umask", 022, 02775, 0664, 02775},
    {"group_cache_with_a_private_umask", 077, 02775, 0660, 02770},
    {"group_cache_without_setgid", 022, 0775, 0664, 0775},
    {"group_that_may_only_read", 077, 02750, 0640, 02750},
    {"group_umask", 002, 0755, 0664, 0775},
    {"world_writable_adds_the_group_only", 022, 01777, 0664, 0775},
};
class PosixModes : public ::testing::TestWithParam<Modes> {
 protected:
  void SetUp() override { ASSERT_EQ(::chmod(dir_.path().c_str(), GetParam().directory), 0); }
  TempDir dir_;
  Umask mask_{GetParam().mask};
};
TEST_P(PosixModes, FileIsAsItsDirectoryIsShared) {
  ASSERT_TRUE(IsOk(create_private(dir_ / "f")));
  EXPECT_EQ(mode_of(dir_ / "f"), GetParam().new_file);
}
TEST_P(PosixModes, DirectoryIsAsItsParentIsShared) {
  ASSERT_TRUE(IsOk(make_directories(dir_ / "d/e")));
  EXPECT_EQ(mode_of(dir_ / "d"), GetParam().new_directory);
  EXPECT_EQ(mode_of(dir_ / "d/e"), GetParam().new_directory);
}
INSTANTIATE_TEST_SUITE_P(Rows, PosixModes, ::testing::ValuesIn(kModes), row_name<Modes>);

// Runs `body` in a child that is another user, with `groups` besides `group`, and returns its exit
// status; root only.
template <typename F>
int as_user(uid_t user, gid_t group, std::vector<gid_t> groups, F&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgroups(groups.size(), groups.data()) != 0 || ::setgid(group) != 0 ||
        ::setuid(user) != 0) {
      ::_exit(99);
    }
    ::_exit(body());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Whose group, and with which modes, a member of a folder's group or a stranger makes things there.
constexpr gid_t kTheFolders = 43000;
constexpr gid_t kPrimary = 43001;
struct Making {
  const char* name;
  mode_t mask;
  mode_t directory;
  bool member;
  gid_t group;
  mode_t new_file;
  mode_t new_directory;
  mode_t new_lock;  // wanted: 0664
};
constexpr Making kMakings[] = {
    {"member_without_setgid_private", 077, 0775, true, kTheFolders, 0660, 0770, 0664},
    {"member_without_setgid", 022, 0775, true, kTheFolders, 0664, 0775, 0664},
    {"member_without_setgid_group_umask", 002, 0775, true, kTheFolders, 0664, 0775, 0664},
    {"member_with_setgid_private", 077, 02775, true, kTheFolders, 0660, 02770, 0664},
    {"stranger_private", 077, 0777, false, kPrimary, 0600, 0700, 0644},
    {"stranger", 022, 0777, false, kPrimary, 0644, 0755, 0644},
    {"stranger_group_umask", 002, 0777, false, kPrimary, 0644, 0755, 0644},
};
class PosixGroups : public ::testing::TestWithParam<Making> {};
TEST_P(PosixGroups, TheFoldersGroupAndNoOtherGetsBits) {
  ASSERT_EQ(::geteuid(), 0U) << "needs root, to be several users";
  const Making& row = GetParam();
  const TempDir dir;
  ASSERT_EQ(::chown(dir.path().c_str(), 0, kTheFolders), 0);
  ASSERT_EQ(::chmod(dir.path().c_str(), row.directory), 0);
  std::vector<gid_t> groups;
  if (row.member) groups.push_back(kTheFolders);
  ASSERT_EQ(as_user(43011, kPrimary, groups,
                    [&] {
                      (void)::umask(row.mask);
                      const bool made = create_private(dir / "f") && make_directories(dir / "d") &&
                                        open_lock_file(dir / "l", 0664);
                      return made ? 0 : 1;
                    }),
            0);
  for (const std::string name : {"f", "d", "l"}) {
    struct ::stat status {};
    ASSERT_EQ(::stat((dir / name).c_str(), &status), 0) << name;
    EXPECT_EQ(status.st_gid, row.group) << name;
  }
  EXPECT_EQ(mode_of(dir / "f"), row.new_file);
  EXPECT_EQ(mode_of(dir / "d"), row.new_directory);
  EXPECT_EQ(mode_of(dir / "l"), row.new_lock);
  EXPECT_EQ(dir.files().size(), 2U) << "something is left";
}
INSTANTIATE_TEST_SUITE_P(Rows, PosixGroups, ::testing::ValuesIn(kMakings), row_name<Making>);

TEST(CheckReadable, NamesWhoClosedWhat) {
  ASSERT_EQ(::geteuid(), 0U) << "needs root, to be two users";
  const TempDir dir;
  ASSERT_EQ(::chmod(dir.path().c_str(), 0755), 0);
  dir.write("open", "");
  dir.write("closed", "");
  ASSERT_EQ(::chmod((dir / "closed").c_str(), 0600), 0);
  fs::create_directory(dir / "folder");
  dir.write("folder/f", "");
  ASSERT_EQ(::chmod((dir / "folder").c_str(), 0700), 0);
  fs::create_symlink("folder/f", dir / "link");
  const std::string at = dir.path();
  const auto says = [&](const std::string& name, const std::string& whose) {
    const Status readable = check_readable(at + "/" + name);
    if (whose.empty()) return readable.has_value();
    return !readable && readable.error().code == ErrorCode::kPermission &&
           readable.error().message.find(whose) != std::string::npos &&
           readable.error().message.find(name) != std::string::npos;
  };
  EXPECT_EQ(as_user(43011, kPrimary, {},
                    [&] {
                      if (!says("open", "")) return 1;
                      if (!says("none", "")) return 2;
                      if (!says("closed", at + "/closed is root's, mode rw-------")) return 3;
                      if (!says("folder/f", at + "/folder is root's, mode rwx------")) return 4;
                      if (!says("link", at + "/folder is root's, mode rwx------")) return 5;
                      return 0;
                    }),
            0);
}

TEST(ReadPrivate, TakesNoLinkAndWaitsForNothing) {
  const TempDir dir;
  dir.write("f", "text");
  fs::create_symlink("f", dir / "link");
  fs::create_directory(dir / "folder");
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0666), 0);
  const auto read = read_private(dir / "f");
  ASSERT_TRUE(IsOk(read));
  EXPECT_EQ(*read, "text");
  EXPECT_TRUE(IsOk(read_private(dir / "none")));
  EXPECT_TRUE(FailsWith(read_private(dir / "link"), ErrorCode::kPermission, "symbolic link"));
  EXPECT_TRUE(FailsWith(read_private(dir / "fifo"), ErrorCode::kPermission, "no regular file"));
  EXPECT_TRUE(FailsWith(read_private(dir / "folder"), ErrorCode::kPermission, "no regular file"));
}

TEST(MakeDirectoriesBelow, SaysWhatIsInTheWay) {
  const TempDir dir;
  fs::create_directory(dir / "root");
  dir.write("root/ours", "");
  EXPECT_TRUE(FailsWith(make_directories_below(dir / "root", dir / "root/ours/locks"),
                        ErrorCode::kPermission, "root/ours is no directory"));
  dir.write("file", "");
  EXPECT_TRUE(FailsWith(make_directories_below(dir / "file", dir / "file/ours"), ErrorCode::kUsage,
                        dir / "file"));
}

TEST(CreatePrivate, RefusesANameThatIsThere) {
  const TempDir dir;
  dir.write("f", "theirs");
  EXPECT_TRUE(FailsWith(create_private(dir / "f"), ErrorCode::kInternal, "cannot create"));
  EXPECT_EQ(dir.read("f"), "theirs");
}

TEST(CreatePrivate, DoesNotFollowAPlantedLink) {
  const TempDir dir;
  fs::create_symlink(dir / "elsewhere", dir / "f");
  EXPECT_FALSE(create_private(dir / "f").has_value());
  EXPECT_FALSE(exists(dir / "elsewhere"));
}

TEST(CreatePrivate, DescriptorIsNotInherited) {
  const TempDir dir;
  const auto fd = create_private(dir / "f");
  ASSERT_TRUE(IsOk(fd));
  EXPECT_NE(::fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(WriteAt, PutsBytesWhereTheyBelong) {
  const TempDir dir;
  const auto fd = create_private(dir / "f");
  ASSERT_TRUE(IsOk(fd));
  EXPECT_TRUE(IsOk(write_at(*fd, 3, bytes("def"), dir / "f")));
  EXPECT_TRUE(IsOk(write_at(*fd, 0, bytes("abc"), dir / "f")));
  EXPECT_EQ(dir.read("f"), "abcdef");
}

TEST(ReadAt, TellsTheEndByZero) {
  const TempDir dir;
  const auto fd = open_read(dir.write("f", "abc"));
  ASSERT_TRUE(IsOk(fd));
  std::byte piece[8];
  EXPECT_EQ(read_at(*fd, 1, piece, "f").value(), 2U);
  EXPECT_EQ(read_at(*fd, 3, piece, "f").value(), 0U);
}

TEST(Truncate, CutsAFile) {
  const TempDir dir;
  const auto fd = create_private(dir / "f");
  ASSERT_TRUE(IsOk(fd));
  ASSERT_TRUE(IsOk(write_at(*fd, 0, bytes("abcdef"), dir / "f")));
  ASSERT_TRUE(IsOk(truncate(*fd, 2, dir / "f")));
  EXPECT_EQ(dir.read("f"), "ab");
}

// Publishing

TEST(Publish, ReplacesTheNameAndLeavesNoPrivateOne) {
  const TempDir dir;
  dir.write("final", "old");
  auto fd = create_private(dir / "part");
  ASSERT_TRUE(IsOk(fd));
  ASSERT_TRUE(IsOk(write_at(*fd, 0, bytes("new"), dir / "part")));
  EXPECT_TRUE(IsOk(publish(*std::move(fd), dir / "part", dir / "final")));
  EXPECT_EQ(dir.read("final"), "new");
  EXPECT_EQ(dir.files(), std::vector<std::string>{"final"});
}

TEST(Publish, WhoeverHasTheOldFileOpenKeepsIt) {
  const TempDir dir;
  const auto reader = open_read(dir.write("final", "old"));
  auto fd = create_private(dir / "part");
  ASSERT_TRUE(IsOk(fd));
  ASSERT_TRUE(IsOk(publish(*std::move(fd), dir / "part", dir / "final")));
  std::byte piece[8];
  EXPECT_EQ(read_at(*reader, 0, piece, "final").value(), 3U);
}

TEST(CreatePrivate, TellsWhyTheFolderCannotBeMade) {
  const TempDir dir;
  fs::create_symlink(dir / "purged", dir / "scratch");
  EXPECT_TRUE(FailsWith(create_private(dir / "scratch/models/part"), ErrorCode::kNotFound,
                        "is a link to a place that does not exist"));
  EXPECT_TRUE(FailsWith(open_lock_file(dir / "scratch/locks/a.lock", 0664), ErrorCode::kNotFound,
                        "is a link to a place that does not exist"));
}

TEST(PublishDirectory, GivesTheNameToTheNewOneAndTheOldOneTheNewOnesName) {
  const TempDir dir;
  dir.write("new/a", "1");
  ASSERT_TRUE(IsOk(publish_directory(dir / "new", dir / "d", dir / "aside")));
  EXPECT_EQ(dir.files(), std::vector<std::string>{"d/a"});
  dir.write("newer/b", "2");
  ASSERT_TRUE(IsOk(publish_directory(dir / "newer", dir / "d", dir / "aside")));
  EXPECT_EQ(dir.files(), (std::vector<std::string>{"d/b", "newer/a"}));
}

TEST(PublishDirectory, TakesThePlaceOfAnEmptyOneAndNotOfAFile) {
  const TempDir dir;
  dir.write("new/a", "1");
  fs::create_directory(dir / "d");
  dir.write("f", "mine");
  EXPECT_TRUE(
      FailsWith(publish_directory(dir / "new", dir / "f", dir / "aside"), ErrorCode::kUsage));
  EXPECT_EQ(dir.read("f"), "mine");
  ASSERT_TRUE(IsOk(publish_directory(dir / "new", dir / "d", dir / "aside")));
  EXPECT_EQ(dir.files(), (std::vector<std::string>{"d/a", "f"}));
}

TEST(RemoveTree, FollowsNoLinkAndMissesNothing) {
  const TempDir dir;
  dir.write("theirs/a", "1");
  dir.write("tree/sub/b", "2");
  fs::create_directory_symlink(dir / "theirs", dir / "tree/sub/link");
  EXPECT_EQ(allocated_below(dir / "tree"), 1U);
  ASSERT_TRUE(IsOk(remove_tree(dir / "tree")));
  ASSERT_TRUE(IsOk(remove_tree(dir / "tree")));
  EXPECT_EQ(dir.files(), std::vector<std::string>{"theirs/a"});
}

TEST(Publish, RenameThatHadWorkedAlreadyIsASuccess) {
  const TempDir dir;
  auto fd = create_private(dir / "part");
  ASSERT_TRUE(IsOk(fd));
  // What an NFS client sees whose first RENAME was done and whose answer was lost.
  fs::rename(dir / "part", dir / "final");
  EXPECT_TRUE(IsOk(publish(*std::move(fd), dir / "part", dir / "final")));
}

TEST(Publish, VanishedFileIsAnErrorWhenTheTargetIsAnothers) {
  const TempDir dir;
  dir.write("final", "another's");
  auto fd = create_private(dir / "part");
  ASSERT_TRUE(IsOk(fd));
  fs::remove(dir / "part");
  EXPECT_TRUE(FailsWith(publish(*std::move(fd), dir / "part", dir / "final"), ErrorCode::kNotFound,
                        "cannot rename"));
  EXPECT_EQ(dir.read("final"), "another's");
}

// "part0" to go to names[0], and so on.
std::vector<Unpublished> unpublished(const TempDir& dir, const std::vector<std::string>& names) {
  std::vector<Unpublished> files;
  for (const std::string& name : names) {
    const std::string number = std::to_string(files.size());
    auto fd = create_private(dir / ("part" + number));
    EXPECT_TRUE(IsOk(fd));
    EXPECT_TRUE(IsOk(write_at(*fd, 0, bytes(number), "part")));
    files.push_back({*std::move(fd), dir / ("part" + number), dir / name});
  }
  return files;
}

TEST(Publish, SeveralAreSyncedEachAndTheirFoldersOnce) {
  const TempDir dir;
  fs::create_directory(dir / "a");
  fs::create_directory(dir / "b");
  auto files = unpublished(dir, {"a/x", "b/y", "a/z"});
  fsync_calls = 0;
  const Published published = publish(std::move(files));
  EXPECT_TRUE(IsOk(published.status));
  EXPECT_EQ(published.infos.size(), 3U);
  EXPECT_EQ(fsync_calls, 3 + 2);
  EXPECT_EQ(dir.files(), (std::vector<std::string>{"a/x", "a/z", "b/y"}));
  EXPECT_EQ(dir.read("a/z"), "2");
}

TEST(Publish, OfSeveralNoneHasItsNameBeforeAllAreOnTheDisk) {
  const TempDir dir;
  auto files = unpublished(dir, {"x", "y", "z"});
  fsync_calls = 0;
  fsync_fails_from = 3;
  fsync_fails_with = EIO;
  const Published published = publish(std::move(files));
  fsync_fails_with = fsync_fails_from = 0;
  EXPECT_TRUE(FailsWith(published.status, ErrorCode::kInternal, "part2"));
  EXPECT_TRUE(published.infos.empty());
  EXPECT_EQ(dir.files(), (std::vector<std::string>{"part0", "part1", "part2"}));
}

TEST(Publish, OfSeveralThoseBeforeOneThatCannotHaveItsNameHaveTheirs) {
  const TempDir dir;
  dir.write("y/in the way", "");
  const Published published = publish(unpublished(dir, {"x", "y", "z"}));
  EXPECT_TRUE(FailsWith(published.status, ErrorCode::kPermission, "part1"));
  EXPECT_EQ(published.infos.size(), 1U);
  EXPECT_EQ(dir.files(), (std::vector<std::string>{"part1", "part2", "x", "y/in the way"}));
}

Status publish_while_fsync_fails_with(int number, const TempDir& dir) {
  fsync_fails_with = number;
  Status status = publish_text(dir / "part", dir / "final", "new");
  fsync_fails_with = 0;
  return status;
}

TEST(Publish, FileSystemThatCannotSyncIsNoError) {
  const TempDir dir;
  EXPECT_TRUE(IsOk(publish_while_fsync_fails_with(EINVAL, dir)));
  EXPECT_TRUE(IsOk(publish_while_fsync_fails_with(ENOTSUP, dir)));
  EXPECT_EQ(dir.read("final"), "new");
}

TEST(Publish, DelayedWriteErrorComesBeforeTheNameIsTaken) {
  const TempDir dir;
  dir.write("final", "old");
  EXPECT_TRUE(FailsWith(publish_while_fsync_fails_with(EDQUOT, dir), ErrorCode::kNoSpace,
                        "cannot finish writing"));
  EXPECT_TRUE(FailsWith(publish_while_fsync_fails_with(EIO, dir), ErrorCode::kInternal));
  EXPECT_EQ(dir.read("final"), "old");
  EXPECT_EQ(dir.files(), std::vector<std::string>{"final"});
}

TEST(PublishText, FailureLeavesNoPrivateFile) {
  const TempDir dir;
  fs::create_directory(dir / "final");
  EXPECT_FALSE(publish_text(dir / "part", dir / "final", "text").has_value());
  EXPECT_TRUE(dir.files().empty());
}

TEST(PublishText, FullDiskIsNoSpaceAndLeavesTheFinalNameAsItWas) {
  const TinyDisk disk;
  disk.dir().write("final", "old");
  disk.fill();
  const std::string text(64U << 10U, 'x');
  EXPECT_TRUE(FailsWith(publish_text(disk.dir() / "part", disk.dir() / "final", text),
                        ErrorCode::kNoSpace, disk.dir() / "part"));
  EXPECT_EQ(disk.dir().read("final"), "old");
  EXPECT_EQ(disk.dir().files(), (std::vector<std::string>{"filler", "final"}));
}

TEST(ReplaceText, ReplacesTheNameAndLeavesNoPrivateOne) {
  const TempDir dir;
  dir.write("record", "old");
  EXPECT_TRUE(IsOk(replace_text(dir / "t", dir / "record", "new")));
  EXPECT_EQ(dir.read("record"), "new");
  EXPECT_EQ(dir.files(), std::vector<std::string>{"record"});
}

TEST(PublishLink, ReplacesWhatIsThereByALinkWithTheExactText) {
  const TempDir dir;
  fs::create_directory(dir / "snap");
  dir.write("snap/pointer", "an old copy");
  EXPECT_TRUE(IsOk(publish_link(dir / "t", dir / "snap/pointer", "../blobs/x")));
  EXPECT_EQ(read_link(dir / "snap/pointer"), "../blobs/x");
  EXPECT_EQ(dir.files(), std::vector<std::string>{"snap/pointer"});
}

TEST(PublishLink, FailureLeavesNoPrivateLink) {
  const TempDir dir;
  EXPECT_TRUE(FailsWith(publish_link(dir / "t", dir / "none/pointer", "x"), ErrorCode::kNotFound));
  EXPECT_TRUE(dir.files().empty());
}

TEST(RemoveFile, AbsenceIsFine) {
  const TempDir dir;
  EXPECT_TRUE(IsOk(remove_file(dir / "none")));
}

TEST(FreeBytes, IsTheFileSystemsEvenOfADirectoryThatIsNotMadeYet) {
  const TinyDisk disk;
  const auto free = free_bytes(disk.dir() / "not/yet");
  ASSERT_TRUE(free.has_value());
  EXPECT_LE(*free, 1U << 20U);
  disk.fill();
  EXPECT_EQ(free_bytes(disk.dir().path()), 0U);
}

TEST(FreeBytes, IsUnknownWhereTheFileSystemHasNoBlocks) {
  EXPECT_EQ(free_bytes("/proc"), std::nullopt);
}

// Lock files

TEST(OpenLockFile, HasItsModeWhateverTheUmask) {
  const TempDir dir;
  const Umask mask(077);
  ASSERT_TRUE(IsOk(open_lock_file(dir / "l", 0664)));
  EXPECT_EQ(mode_of(dir / "l"), 0664U);
}

TEST(OpenLockFile, DoesNotTruncate) {
  const TempDir dir;
  ASSERT_TRUE(IsOk(open_lock_file(dir.write("l", "soft lock of another tool"), 0664)));
  EXPECT_EQ(dir.read("l"), "soft lock of another tool");
}

TEST(OpenLockFile, LeavesTheModeOfWhatHasAnotherName) {
  const TempDir dir;
  fs::create_hard_link(dir.write("private", "key"), dir / "l");
  fs::permissions(dir / "private", fs::perms::owner_read | fs::perms::owner_write);
  const auto file = open_lock_file(dir / "l", 0666);
  ASSERT_TRUE(IsOk(file));
  make_readable(file->fd);
  EXPECT_EQ(mode_of(dir / "private"), 0600U);
}

TEST(OpenLockFile, RefusesASymbolicLink) {
  const TempDir dir;
  fs::create_symlink(dir / "elsewhere", dir / "l");
  EXPECT_TRUE(FailsWith(open_lock_file(dir / "l", 0664), ErrorCode::kPermission, "symbolic link"));
  EXPECT_FALSE(exists(dir / "elsewhere"));
}

struct InTheWay {
  const char* name;
  void (*make)(const std::string& path);
};
constexpr InTheWay kInTheWay[] = {
    {"fifo", [](const std::string& path) { ASSERT_EQ(::mkfifo(path.c_str(), 0644), 0); }},
    {"directory", [](const std::string& path) { fs::create_directory(path); }},
    {"device",
     [](const std::string& path) {
       ASSERT_EQ(::mknod(path.c_str(), S_IFCHR | 0666, makedev(1, 3)), 0) << "needs root";
     }},
    {"socket",
     [](const std::string& path) { ASSERT_EQ(::mknod(path.c_str(), S_IFSOCK | 0666, 0), 0); }},
};
class LockFileInTheWay : public ::testing::TestWithParam<InTheWay> {};
TEST_P(LockFileInTheWay, IsNotALockFile) {
  const TempDir dir;
  GetParam().make(dir / "l");
  EXPECT_TRUE(
      FailsWith(open_lock_file(dir / "l", 0664), ErrorCode::kPermission, "not a regular file"));
}
INSTANTIATE_TEST_SUITE_P(Rows, LockFileInTheWay, ::testing::ValuesIn(kInTheWay),
                         row_name<InTheWay>);

template <typename F>
int as_nobody(F&& body) {
  constexpr uid_t kNobody = 65534;
  return as_user(kNobody, kNobody, {}, std::forward<F>(body));
}

TEST(OpenLockFile, OpensAnothersFileInAStickyDirectory) {
  ASSERT_EQ(::geteuid(), 0U) << "needs root, to be two users";
  const TempDir dir;
  ASSERT_EQ(::chmod(dir.path().c_str(), 01777), 0);
  ASSERT_TRUE(IsOk(open_lock_file(dir / "l", 0666)));  // fs.protected_regular guards it from now on
  const std::string path = dir / "l";
  EXPECT_EQ(as_nobody([&] { return open_lock_file(path, 0666).has_value() ? 0 : 1; }), 0);
}

TEST(OpenLockFile, OpensForReadingWhatAnotherLetsUsOnlyRead) {
  ASSERT_EQ(::geteuid(), 0U) << "needs root, to be two users";
  const TempDir dir;
  ASSERT_EQ(::chmod(dir.path().c_str(), 0755), 0);
  ASSERT_TRUE(IsOk(open_lock_file(dir / "l", 0644)));
  const std::string path = dir / "l";
  EXPECT_EQ(as_nobody([&] { return open_lock_file(path, 0664).has_value() ? 0 : 1; }), 0);
  EXPECT_EQ(mode_of(path), 0644U);
}

TEST(OpenLockFile, FifoThatAnotherLetsUsOnlyReadIsNotWaitedFor) {
  ASSERT_EQ(::geteuid(), 0U) << "needs root, to be two users";
  const TempDir dir;
  ASSERT_EQ(::chmod(dir.path().c_str(), 0755), 0);
  const std::string path = dir / "l";
  ASSERT_EQ(::mkfifo(path.c_str(), 0644), 0);
  EXPECT_EQ(as_nobody([&] {
              (void)::alarm(60);  // ends a wait that would never end
              return open_lock_file(path, 0664).has_value() ? 1 : 0;
            }),
            0);
}

TEST(OpenLockFile, ForbiddenDirectoryIsAPermissionError) {
  ASSERT_EQ(::geteuid(), 0U) << "needs root, to be two users";
  const TempDir dir;
  ASSERT_EQ(::chmod(dir.path().c_str(), 0755), 0);
  const std::string path = dir / "l";
  EXPECT_EQ(as_nobody([&] {
              const auto fd = open_lock_file(path, 0664);
              return !fd && fd.error().code == ErrorCode::kPermission ? 0 : 1;
            }),
            0);
}

// Names

TEST(RandomTag, IsEightHexDigitsAndNew) {
  std::set<std::string> tags;
  for (int i = 0; i < 100; ++i) tags.insert(random_tag());
  EXPECT_GT(tags.size(), 95U);
  EXPECT_EQ(tags.begin()->size(), 8U);
  EXPECT_EQ(tags.begin()->find_first_not_of("0123456789abcdef"), std::string::npos);
}

TEST(RandomHex, HasTheDigitsThatWereAskedFor) {
  EXPECT_EQ(random_hex(32).size(), 32U);
}

TEST(HostName, IsNotEmpty) {
  EXPECT_FALSE(host_name().empty());
}

}  // namespace
}  // namespace fvprefetch::posix
