// What a lease does besides the lock contract: who counts as dead, who may take over, what file
// systems do to links.
#include "cache/lease.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/posix.h"
#include "cache/layout.h"
#include "support/fake_clock.h"
#include "support/matchers.h"
#include "support/temp_dir.h"
#include "support/tiny_disk.h"

// The link and rename of this program: the linker takes these before libc's.
static std::function<int(const char*, const char*)>* instead_of_link = nullptr;
static std::function<void()>* before_next_rename = nullptr;
static int real_link(const char* from, const char* to) {
  return static_cast<int>(::syscall(SYS_link, from, to));
}
extern "C" int link(const char* from, const char* to) noexcept {
  return instead_of_link != nullptr ? (*instead_of_link)(from, to) : real_link(from, to);
}
static int pread_fails_with = 0;
extern "C" ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  if (pread_fails_with != 0) {
    errno = pread_fails_with;
    return -1;
  }
  return ::syscall(SYS_pread64, fd, data, size, offset);
}
static std::function<int(int)>* before_pwrite = nullptr;  // an errno, or 0
extern "C" ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  if (before_pwrite != nullptr) {
    const int failed = (*before_pwrite)(fd);
    if (failed != 0) {
      errno = failed;
      return -1;
    }
  }
  return ::syscall(SYS_pwrite64, fd, data, size, offset);
}
extern "C" int rename(const char* from, const char* to) noexcept {
  if (auto* hook = std::exchange(before_next_rename, nullptr)) (*hook)();
  return static_cast<int>(::syscall(SYS_rename, from, to));
}

namespace fvprefetch {
namespace {

using namespace std::chrono_literals;
using testing::FailsWith;
using testing::FakeClock;
using testing::IsOk;
using testing::row_name;
using testing::TempDir;
using testing::TinyDisk;
namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::chrono::milliseconds kDeadAfter = 60s;

class Lease : public ::testing::Test {
 protected:
  ~Lease() override {
    instead_of_link = nullptr;
    before_pwrite = nullptr;
  }

  // A process of its own, as far as leases go.
  LeaseKeeper& keeper() {
    return keepers_.emplace_back(Holder{"", 0, "881", "2026-11-24T12:00:00Z", "ada", "0"},
                                 LeaseTimes{kDeadAfter}, clock_, LeaseKeeper::Heart::kNone);
  }
  std::unique_ptr<Lock> lock() { return keeper().lease(lock_path_); }
  static std::unique_ptr<HeldLock> take(Lock& lock) {
    auto held = lock.try_acquire();
    EXPECT_TRUE(IsOk(held));
    return held ? *std::move(held) : nullptr;
  }
  // A lease that a process of another host has made.
  void write_foreign(int beat = 1) {
    const json record = {{"version", 1},  {"beat", beat},         {"host", "node17.invalid"},
                         {"boot", "b"},   {"pid_namespace", "n"}, {"pid", 4242},
                         {"started", 99}, {"user", "ada"},        {"job", "17"},
                         {"step", "0"},   {"since", "x"},         {"bytes_done", 1000}};
    dir_.write("locks/blob.lease", record.dump());
  }
  [[nodiscard]] std::vector<std::string> left() {
    keepers_.clear();
    return dir_.files();
  }

  TempDir dir_;
  std::string lock_path_ = dir_ / "locks/blob.lock";
  std::string path_ = dir_ / "locks/blob.lease";
  FakeClock clock_;
  std::list<LeaseKeeper> keepers_;
};

TEST_F(Lease, RecordSaysWhoWhereAndHowFar) {
  LeaseKeeper& mine = keeper();
  mine.tell_progress(1234);
  const auto held = take(*mine.lease(lock_path_));
  ASSERT_NE(held, nullptr);
  const std::string text = dir_.read("locks/blob.lease");
  EXPECT_EQ(text.size(), 1024U);
  const json record = json::parse(text);
  EXPECT_EQ(record["version"], 1);
  EXPECT_EQ(record["pid"], ::getpid());
  EXPECT_EQ(record["host"], posix::host_name());
  EXPECT_EQ(record["user"], "ada");
  EXPECT_EQ(record["job"], "881");
  EXPECT_EQ(record["step"], "0");
  EXPECT_EQ(record["bytes_done"], 1234);
}

TEST_F(Lease, OneRecordStandsForAllLeasesOfAProcessInADirectory) {
  LeaseKeeper& mine = keeper();
  const auto one = take(*mine.lease(lock_path_));
  const auto two = take(*mine.lease(dir_ / "locks/other.lock"));
  const auto first = posix::stat(path_);
  const auto second = posix::stat(dir_ / "locks/other.lease");
  ASSERT_TRUE(first && *first && second && *second);
  EXPECT_EQ((*first)->inode, (*second)->inode);
  EXPECT_EQ((*first)->links, 3U);
}

TEST_F(Lease, NothingIsLeftWhenItsKeeperGoes) {
  (void)take(*lock());
  EXPECT_TRUE(left().empty());
}

TEST_F(Lease, BeatChangesTheRecord) {
  LeaseKeeper& mine = keeper();
  const auto held = take(*mine.lease(lock_path_));
  const std::string before = dir_.read("locks/blob.lease");
  mine.beat();
  EXPECT_NE(dir_.read("locks/blob.lease"), before);
}

TEST_F(Lease, SilentHolderOfAnotherHostIsDeadAfterTheTime) {
  write_foreign();
  const auto mine = lock();
  EXPECT_EQ(take(*mine), nullptr);
  clock_.advance(kDeadAfter - 1ms);
  EXPECT_EQ(take(*mine), nullptr);
  clock_.advance(1ms);
  EXPECT_NE(take(*mine), nullptr);
}

TEST_F(Lease, HolderWhoseRecordChangesLives) {
  const auto mine = lock();
  for (int beat = 0; beat < 5; ++beat) {
    write_foreign(beat);
    EXPECT_EQ(take(*mine), nullptr);
    clock_.advance(kDeadAfter - 1ms);
  }
}

TEST_F(Lease, AwaitedOneIsLeftToTheOtherForTheTime) {
  const auto mine = keeper().awaited_lease(lock_path_);
  EXPECT_EQ(take(*mine), nullptr);
  EXPECT_FALSE(mine->held_by_other());
  clock_.advance(kDeadAfter - 1ms);
  EXPECT_EQ(take(*mine), nullptr);
  auto other = take(*lock());
  EXPECT_NE(other, nullptr);
  EXPECT_EQ(take(*mine), nullptr);
  EXPECT_TRUE(mine->held_by_other());
  // The time begins anew when it is let go.
  clock_.advance(1s);
  other.reset();
  EXPECT_EQ(take(*mine), nullptr);
  EXPECT_FALSE(mine->held_by_other());
  clock_.advance(kDeadAfter - 1ms);
  EXPECT_EQ(take(*mine), nullptr);
  clock_.advance(1ms);
  EXPECT_NE(take(*mine), nullptr);
}

TEST_F(Lease, AwaitedOneOfADeadHolderIsTakenOver) {
  write_foreign();
  const auto mine = keeper().awaited_lease(lock_path_);
  EXPECT_EQ(take(*mine), nullptr);
  clock_.advance(kDeadAfter);
  EXPECT_NE(take(*mine), nullptr);
}

TEST_F(Lease, AgeOfTheFileSaysNothing) {
  // Clocks of hosts differ by hours.
  write_foreign();
  fs::last_write_time(path_, fs::file_time_type::clock::now() - std::chrono::hours(24 * 365));
  EXPECT_EQ(take(*lock()), nullptr);
}

TEST_F(Lease, TellsItsHolderAndItsProgress) {
  write_foreign();
  const auto mine = lock();
  EXPECT_EQ(take(*mine), nullptr);
  EXPECT_EQ(mine->describe_holder(), "node17.invalid pid 4242 user ada job 17.0, since x");
  EXPECT_EQ(mine->holder_progress(), 1000U);
  EXPECT_EQ(known_lease_holder(lock_path_), mine->describe_holder());
}

TEST_F(Lease, HolderThatIsGoneFromThisHostIsFollowedAtOnce) {
  const pid_t child = ::fork();
  if (child == 0) {
    static std::unique_ptr<HeldLock> held;
    held = take(*lock());
    ::_exit(held == nullptr);  // as if killed: nothing is let go
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_TRUE(posix::exists(path_));
  EXPECT_NE(take(*lock()), nullptr);
  EXPECT_TRUE(left().empty());  // its record neither
}

struct Record {
  const char* name;
  const char* text;
};
constexpr Record kRecords[] = {
    {"empty", ""},
    {"garbage", "\xff\xfe{{{"},
    {"no_object", "[4242]"},
    {"later_version", R"({"version": 2, "host": "node17.invalid", "pid": 4242})"},
    {"pid_as_text", R"({"version": 1, "host": "node17.invalid", "pid": "4242"})"},
    {"negative_pid", R"({"version": 1, "host": "node17.invalid", "pid": -1})"},
};
class LeaseRecord : public Lease, public ::testing::WithParamInterface<Record> {};
TEST_P(LeaseRecord, ThatIsNotUnderstoodIsAHolderUntilItIsSilentForTooLong) {
  dir_.write("locks/blob.lease", GetParam().text);
  const auto mine = lock();
  EXPECT_EQ(take(*mine), nullptr);
  EXPECT_EQ(mine->describe_holder(),
            "somebody whose record in " + path_ + " cannot be read by this version");
  clock_.advance(kDeadAfter);
  EXPECT_NE(take(*mine), nullptr);
}
INSTANTIATE_TEST_SUITE_P(Rows, LeaseRecord, ::testing::ValuesIn(kRecords), row_name<Record>);

TEST_F(Lease, SuspendedHolderFindsOutAndTakesNothingAway) {
  LeaseKeeper& suspended = keeper();
  auto old = take(*suspended.lease(lock_path_));
  const auto mine = lock();
  EXPECT_EQ(take(*mine), nullptr);
  clock_.advance(kDeadAfter);  // and no beat
  auto taken = take(*mine);
  ASSERT_NE(taken, nullptr);
  EXPECT_TRUE(old->lost());
  old.reset();
  EXPECT_FALSE(taken->lost());
  EXPECT_EQ(take(*lock()), nullptr);  // what the old holder let go was not the new one's
}

TEST_F(Lease, LossIsNoticedByTheBeat) {
  LeaseKeeper& cut_off = keeper();
  const auto held = take(*cut_off.lease(lock_path_));
  fs::remove(path_);
  cut_off.beat();
  write_foreign();
  EXPECT_TRUE(held->lost());
}

TEST_F(Lease, OfTwoThatJudgedItDeadOneTakesOver) {
  write_foreign();
  const auto one = lock();
  const auto two = lock();
  EXPECT_EQ(take(*one), nullptr);
  EXPECT_EQ(take(*two), nullptr);
  clock_.advance(kDeadAfter);
  const auto first = take(*one);
  EXPECT_NE(first, nullptr);
  EXPECT_EQ(take(*two), nullptr);
  EXPECT_FALSE(first->lost());
}

TEST_F(Lease, LivingOneThatCameBetweenIsPutBack) {
  write_foreign();
  const auto slow = lock();
  EXPECT_EQ(take(*slow), nullptr);
  clock_.advance(kDeadAfter);
  const auto fast = lock();
  EXPECT_EQ(take(*fast), nullptr);
  clock_.advance(kDeadAfter);
  // The slow one has judged, and looked for the last time; now the fast one takes over.
  std::unique_ptr<HeldLock> living;
  std::function<void()> meanwhile = [&] { living = take(*fast); };
  before_next_rename = &meanwhile;
  EXPECT_EQ(take(*slow), nullptr);
  ASSERT_NE(living, nullptr);
  EXPECT_FALSE(living->lost());
  living.reset();
  EXPECT_TRUE(left().empty());
}

TEST_F(Lease, ServerThatIsAwayForAWhileIsRiddenOut) {
  write_foreign();
  const auto mine = lock();
  EXPECT_EQ(take(*mine), nullptr);
  for (const int number : {EIO, ESTALE}) {
    pread_fails_with = number;
    clock_.advance(kDeadAfter / 2);
    EXPECT_EQ(take(*mine), nullptr);
    clock_.advance(kDeadAfter / 2 - 1ms);
    EXPECT_EQ(take(*mine), nullptr);
    pread_fails_with = 0;
    EXPECT_EQ(take(*mine), nullptr);  // nobody listened to that silence
  }
}

TEST_F(Lease, ServerThatStaysAwayIsNoLock) {
  write_foreign();
  const auto mine = lock();
  pread_fails_with = EIO;
  EXPECT_EQ(take(*mine), nullptr);
  clock_.advance(kDeadAfter);
  EXPECT_TRUE(FailsWith(mine->try_acquire(), ErrorCode::kInternal, path_));
  pread_fails_with = 0;
}

TEST_F(Lease, LinkWhoseAnswerWasLostIsOurs) {
  // NFS sends the call again, and the second one finds the name that the first one made.
  std::function<int(const char*, const char*)> lossy = [](const char* from, const char* to) {
    (void)real_link(from, to);
    errno = EEXIST;
    return -1;
  };
  instead_of_link = &lossy;
  EXPECT_NE(take(*lock()), nullptr);
}

TEST_F(Lease, LinkThatSaysItWorkedAndDidNotIsNotOurs) {
  std::function<int(const char*, const char*)> liar = [](const char*, const char*) { return 0; };
  instead_of_link = &liar;
  EXPECT_EQ(take(*lock()), nullptr);
}

// File systems without hard links.
struct Refusal {
  const char* name;
  int number;
};
constexpr Refusal kRefusals[] = {{"vfat", EPERM},   {"gcsfuse", ENOSYS}, {"fuse", EOPNOTSUPP},
                                 {"afs", EXDEV},    {"many", EMLINK},    {"rclone", EIO},
                                 {"cryfs", ERANGE}, {"another", ENOMSG}};
class LeaseWithoutLinks : public Lease, public ::testing::WithParamInterface<Refusal> {
 protected:
  LeaseWithoutLinks() { instead_of_link = &refusal_; }
  std::function<int(const char*, const char*)> refusal_ = [](const char*, const char*) {
    errno = GetParam().number;
    return -1;
  };
};
TEST_P(LeaseWithoutLinks, IsADirectory) {
  const auto held = take(*lock());
  ASSERT_NE(held, nullptr);
  EXPECT_TRUE(fs::is_directory(path_));
  const auto other = lock();
  EXPECT_EQ(take(*other), nullptr);
  EXPECT_TRUE(other->describe_holder().starts_with(posix::host_name() + " pid "));
}
TEST_P(LeaseWithoutLinks, IsTakenOverAndPutAwayAllTheSame) {
  LeaseKeeper& suspended = keeper();
  const auto old = take(*suspended.lease(lock_path_));
  const auto mine = lock();
  EXPECT_EQ(take(*mine), nullptr);
  suspended.beat();
  clock_.advance(kDeadAfter);
  EXPECT_EQ(take(*mine), nullptr);  // it has beaten
  clock_.advance(kDeadAfter);
  auto taken = take(*mine);
  ASSERT_NE(taken, nullptr);
  EXPECT_TRUE(old->lost());
  taken.reset();
  EXPECT_TRUE(left().empty());
  EXPECT_FALSE(posix::exists(path_));
}
INSTANTIATE_TEST_SUITE_P(Rows, LeaseWithoutLinks, ::testing::ValuesIn(kRefusals),
                         row_name<Refusal>);

TEST_F(Lease, LinkThatBecomesASymbolicOneIsADirectoryInstead) {
  // BeeGFS, sysCreateHardlinksAsSymlinks.
  std::function<int(const char*, const char*)> symbolic = [](const char* from, const char* to) {
    return ::symlink(from, to);
  };
  instead_of_link = &symbolic;
  const auto held = take(*lock());
  ASSERT_NE(held, nullptr);
  EXPECT_TRUE(fs::is_directory(path_));
}

// FUSE without use_ino: the new name works, and is another file for all that the kernel tells.
class LeaseByPath : public Lease {
 protected:
  LeaseByPath() { instead_of_link = &copy_; }
  std::function<int(const char*, const char*)> copy_ = [](const char* from, const char* to) {
    std::error_code error;
    if (fs::copy_file(from, to, error)) return 0;
    errno = EEXIST;
    return -1;
  };
};

TEST_F(LeaseByPath, LinkWithAnInodeNumberOfItsOwnIsADirectoryInstead) {
  const auto held = take(*lock());
  ASSERT_NE(held, nullptr);
  EXPECT_TRUE(fs::is_directory(path_));
  EXPECT_FALSE(held->lost());
  EXPECT_EQ(take(*lock()), nullptr);
}

TEST_F(LeaseByPath, NothingIsLeftOfIt) {
  (void)take(*lock());
  EXPECT_TRUE(left().empty());
  EXPECT_FALSE(posix::exists(path_));
}

TEST_F(Lease, NumberedAnewItIsHeldByItsText) {
  LeaseKeeper& mine = keeper();
  auto held = take(*mine.lease(lock_path_));
  // The same contents with another inode number: what such a file system shows after a while.
  fs::copy_file(path_, path_ + ".copy");
  fs::rename(path_ + ".copy", path_);
  mine.beat();
  EXPECT_FALSE(held->lost());
  held.reset();
  EXPECT_FALSE(posix::exists(path_));
}

TEST_F(Lease, DeadHolderThatIsNumberedAnewByTheRenameIsTakenOver) {
  write_foreign();
  const auto mine = lock();
  EXPECT_EQ(take(*mine), nullptr);
  clock_.advance(kDeadAfter);
  std::function<void()> renumber = [&] {
    fs::copy_file(path_, path_ + ".copy");
    fs::rename(path_ + ".copy", path_);
  };
  before_next_rename = &renumber;
  EXPECT_NE(take(*mine), nullptr);
}

TEST_F(Lease, ThatNamesThisProcessAndIsHeldByNoLockIsOurs) {
  {
    LeaseKeeper& gone = keeper();
    const auto held = take(*gone.lease(lock_path_));
    fs::copy_file(path_, dir_ / "orphan");
  }
  keepers_.clear();
  fs::rename(dir_ / "orphan", path_);
  EXPECT_NE(take(*lock()), nullptr);
}

TEST_F(Lease, ThatAnotherLockOfThisProcessHoldsIsNot) {
  LeaseKeeper& other = keeper();
  const auto held = take(*other.lease(lock_path_));
  EXPECT_EQ(take(*lock()), nullptr);
  EXPECT_EQ(take(*other.lease(lock_path_)), nullptr);
}

TEST_F(Lease, HolderThatCannotRenewStopsBeforeOthersBegin) {
  LeaseKeeper& mine = keeper();
  const auto held = take(*mine.lease(lock_path_));
  std::function<int(int)> fails = [](int) { return EIO; };
  before_pwrite = &fails;
  const auto beat = LeaseTimes{kDeadAfter}.beat();
  std::optional<Error> told;
  auto silent = 0ms;
  while (!told && silent < kDeadAfter) {
    clock_.advance(beat);
    silent += beat;
    mine.beat();
    told = held->expired();
  }
  ASSERT_TRUE(told);
  EXPECT_GE(silent, kDeadAfter / 2);
  EXPECT_LT(silent, kDeadAfter);
  EXPECT_NE(told->message.find(path_), std::string::npos) << told->message;
  EXPECT_NE(told->message.find("Input/output error"), std::string::npos) << told->message;
}

TEST_F(Lease, HolderThatMissedSomeBeatsAndThenRenewedGoesOn) {
  LeaseKeeper& mine = keeper();
  const auto held = take(*mine.lease(lock_path_));
  std::function<int(int)> fails = [](int) { return EIO; };
  for (int i = 0; i < 3; ++i) {
    before_pwrite = &fails;
    clock_.advance(kDeadAfter / 2);
    mine.beat();
    EXPECT_FALSE(held->expired());
    before_pwrite = nullptr;
    mine.beat();
    EXPECT_FALSE(held->expired());
  }
}

TEST_F(Lease, HolderThatWasSuspendedIsNotOneThatCannotRenew) {
  LeaseKeeper& mine = keeper();
  const auto held = take(*mine.lease(lock_path_));
  clock_.advance(2 * kDeadAfter);
  EXPECT_FALSE(held->expired());
  mine.beat();
  EXPECT_FALSE(held->expired());
}

// One file system hangs; leases on another must be renewed all the same.
class LeaseBesideAHang : public Lease {
 protected:
  ~LeaseBesideAHang() override {
    before_pwrite = nullptr;
    free_ = true;
    free_.notify_all();
    while (in_it_ != 0) std::this_thread::sleep_for(1ms);
  }
  static std::uint64_t device_of(const std::string& path) {
    struct ::stat status {};
    return ::stat(path.c_str(), &status) == 0 ? status.st_dev : 0;
  }
  /// Waits for `count` changes of the record of the lease that goes with lock_path_.
  [[nodiscard]] bool sees_beats(int count) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    std::string last = dir_.read("locks/blob.lease");
    while (count > 0 && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(1ms);
      std::string now = dir_.read("locks/blob.lease");
      if (now != last) --count;
      last = std::move(now);
    }
    return count == 0;
  }

  TinyDisk other_;
  const std::uint64_t hanging_ = device_of(other_.dir().path());
  std::atomic<bool> hangs_ = false;
  std::atomic<bool> free_ = false;
  std::atomic<int> in_it_ = 0;
  std::function<int(int)> hang_ = [this](int fd) {
    struct ::stat status {};
    if (hangs_ && ::fstat(fd, &status) == 0 && status.st_dev == hanging_) {
      ++in_it_;
      free_.wait(false);
      --in_it_;
    }
    return 0;
  };
};

TEST_F(LeaseBesideAHang, OneThatHangsInItsBeatSilencesOnlyItself) {
  LeaseKeeper mine({}, LeaseTimes{240ms}, real_clock());
  auto there = take(*mine.lease(other_.dir() / "y.lock"));
  auto held = take(*mine.lease(lock_path_));
  ASSERT_TRUE(held && there);
  before_pwrite = &hang_;
  hangs_ = true;
  while (in_it_ == 0) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(sees_beats(5));
  free_ = true;
  free_.notify_all();
}

TEST_F(LeaseBesideAHang, OneThatHangsWhileItIsTakenSilencesNone) {
  LeaseKeeper mine({}, LeaseTimes{240ms}, real_clock());
  auto held = take(*mine.lease(lock_path_));
  ASSERT_NE(held, nullptr);
  before_pwrite = &hang_;
  hangs_ = true;
  std::jthread taker([&] { (void)take(*mine.lease(other_.dir() / "y.lock")); });
  while (in_it_ == 0) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(sees_beats(5));
  free_ = true;
  free_.notify_all();
}

TEST_F(Lease, DirectoryOfAHolderThatDiedBeforeItsRecordIsTakenOver) {
  fs::create_directories(path_);
  const auto mine = lock();
  EXPECT_EQ(take(*mine), nullptr);
  clock_.advance(kDeadAfter);
  EXPECT_NE(take(*mine), nullptr);
}

TEST_F(Lease, SymbolicLinkInItsPlaceIsRefused) {
  dir_.write("elsewhere", "");
  fs::create_directories(dir_ / "locks");
  fs::create_symlink(dir_ / "elsewhere", path_);
  EXPECT_TRUE(FailsWith(lock()->try_acquire(), ErrorCode::kInternal, "symbolic link"));
}

TEST_F(Lease, FifoInItsPlaceIsRefusedAndNotWaitedFor) {
  fs::create_directories(dir_ / "locks");
  ASSERT_EQ(::mkfifo(path_.c_str(), 0666), 0);
  EXPECT_TRUE(FailsWith(lock()->try_acquire(), ErrorCode::kInternal, "not a regular file"));
}

TEST_F(Lease, RecordThatWasRemovedByHandIsMadeAgain) {
  LeaseKeeper& mine = keeper();
  const auto one = take(*mine.lease(lock_path_));
  for (const std::string& name : dir_.files()) {
    if (name.ends_with("lease-record")) fs::remove(dir_ / name);
  }
  EXPECT_NE(take(*mine.lease(dir_ / "locks/other.lock")), nullptr);
}

TEST_F(Lease, OthersMayReadTheRecord) {
  const mode_t before = ::umask(077);
  const auto held = take(*lock());
  (void)::umask(before);
  struct ::stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0444U, 0444U);
}

}  // namespace
}  // namespace fvprefetch
