// What every Lock must do, whatever it is made of; below it, what flock must do besides. A further
// kind adds a row to kKinds.
#include "cache/lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <list>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/posix.h"
#include "cache/layout.h"
#include "cache/lease.h"
#include "support/fake_clock.h"
#include "support/matchers.h"
#include "support/temp_dir.h"

// The flock of this program: the linker takes this one before libc's. A test can let something
// happen between the opening of a lock file and its locking, and a file system refuse to lock, lie
// about it, or never answer.
enum class Flocking { kHonest, kLies, kHangs };
static std::function<void()>* before_next_flock = nullptr;
static std::atomic<int> flock_fails_with = 0;
static std::atomic<Flocking> flocking = Flocking::kHonest;
extern "C" int flock(int fd, int operation) noexcept {
  if ((operation & LOCK_EX) != 0) {
    if (flock_fails_with != 0) {
      errno = flock_fails_with;
      return -1;
    }
    if (flocking == Flocking::kLies) return 0;
    while (flocking == Flocking::kHangs) ::poll(nullptr, 0, 5);
  }
  if (auto* hook = std::exchange(before_next_flock, nullptr)) (*hook)();
  return static_cast<int>(::syscall(SYS_flock, fd, operation));
}

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;
using testing::FailsWith;
using testing::FakeClock;
using testing::IsOk;
using testing::row_name;
using testing::TempDir;
namespace fs = std::filesystem;

constexpr milliseconds kDeadAfter{60'000};

// What the locks of one process stand on; each has its own, as every run of the program has.
struct Ground {
  // An honest server may be slow; for one that never answers nobody wants to wait here.
  FlockCalls calls{{.patience = milliseconds(flocking == Flocking::kHangs ? 50 : 10'000),
                    .may_queue = false,
                    .wake = nullptr}};
  FakeClock clock;
  LeaseKeeper leases{Holder{"", 0, "881", "2026-11-24T12:00:00Z", "", ""}, LeaseTimes{kDeadAfter},
                     clock, LeaseKeeper::Heart::kNone};

  std::unique_ptr<Lock> flock(const std::string& path) {
    return make_flock(path, 0664, Holder{"", 0, "881", "", "", ""}, calls);
  }
  std::unique_ptr<Lock> chain(const std::string& path) {
    std::vector<ChainPart> parts;
    parts.push_back({flock(path), ChainPart::Need::kOneOf, {}});
    parts.push_back({leases.lease(path), ChainPart::Need::kOneOf, {}});
    return make_chain(std::move(parts));
  }
};

struct Kind {
  const char* name;
  std::unique_ptr<Lock> (*make)(Ground&, const std::string& path);
  Flocking flocking = Flocking::kHonest;
  int fails_with = 0;
  const char* kind = "flock";
};
std::unique_ptr<Lock> flock_on(Ground& ground, const std::string& path) {
  return ground.flock(path);
}
std::unique_ptr<Lock> lease_on(Ground& ground, const std::string& path) {
  return ground.leases.lease(path);
}
std::unique_ptr<Lock> auto_on(Ground& ground, const std::string& path) {
  return ground.chain(path);
}
std::unique_ptr<Lock> answering_on(Ground& ground, const std::string& path) {
  // What it is given to use goes with the ground, after all locks.
  const auto calls = std::shared_ptr<FlockCalls>(std::shared_ptr<void>(), &ground.calls);
  return make_answering(ground.flock(path), posix::parent(path), calls);
}
constexpr Kind kKinds[] = {
    {"answering", &answering_on, Flocking::kHonest, 0, "flock"},
    {"flock", &flock_on, Flocking::kHonest, 0, "flock"},
    {"lease", &lease_on, Flocking::kHonest, 0, "lease"},
    {"auto", &auto_on, Flocking::kHonest, 0, "flock+lease"},
    {"auto_where_flock_lies", &auto_on, Flocking::kLies, 0, "flock+lease"},
    {"auto_where_flock_hangs", &auto_on, Flocking::kHangs, 0, "lease"},
    {"auto_without_lockd", &auto_on, Flocking::kHonest, ENOLCK, "lease"},
    {"auto_on_lustre_without_flock", &auto_on, Flocking::kHonest, ENOSYS, "lease"},
    {"auto_on_read_only_nfs", &auto_on, Flocking::kHonest, EBADF, "lease"},
    {"auto_on_autofs_524", &auto_on, Flocking::kHonest, 524, "lease"},
};

// Asks until it is known: an answer may be on its way for a while.
Result<std::unique_ptr<HeldLock>> acquire(Lock& lock) {
  constexpr int kTries = 20;  // of up to 50 ms, where the call is made on a thread
  for (int i = 0; i < kTries; ++i) {
    auto held = lock.try_acquire();
    if (!held || *held) return held;
  }
  return nullptr;
}

bool is_held(Lock& lock) {
  const auto held = acquire(lock);
  EXPECT_TRUE(IsOk(held));
  return held && *held == nullptr;
}

// A child that runs `body`, tells that it has come so far, and then stays until it is killed.
class Child {
 public:
  explicit Child(const std::function<bool()>& body) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const posix::Fd reader(ends[0]);
    posix::Fd writer(ends[1]);
    pid_ = ::fork();
    if (pid_ == 0) {
      const char ok = body() ? 'y' : 'n';
      (void)!::write(writer.get(), &ok, 1);
      for (;;) ::pause();
    }
    writer = posix::Fd();
    char ok = 'n';
    EXPECT_EQ(::read(reader.get(), &ok, 1), 1);
    EXPECT_EQ(ok, 'y') << "the child could not do its part";
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { kill(); }

  void kill() {
    if (pid_ <= 0) return;
    (void)::kill(pid_, SIGKILL);
    (void)::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

class LockContract : public ::testing::TestWithParam<Kind> {
 protected:
  LockContract() {
    flocking = GetParam().flocking;
    flock_fails_with = GetParam().fails_with;
  }
  ~LockContract() override {
    flocking = Flocking::kHonest;
    flock_fails_with = 0;
  }

  [[nodiscard]] std::unique_ptr<Lock> lock_at(const std::string& path) {
    return GetParam().make(grounds_.emplace_back(), path);
  }
  [[nodiscard]] std::unique_ptr<Lock> lock() { return lock_at(path_); }
  [[nodiscard]] Result<std::unique_ptr<HeldLock>> take() { return acquire(*lock()); }
  // Holds the lock in another process.
  [[nodiscard]] std::function<bool()> holding() {
    return [this] {
      static std::unique_ptr<HeldLock> held;
      auto tried = take();
      if (tried) held = std::move(*tried);
      if (held != nullptr) held->tell();
      return held != nullptr;
    };
  }
  // Its files after everybody has gone.
  [[nodiscard]] std::vector<std::string> left() {
    grounds_.clear();
    return dir_.files();
  }

  TempDir dir_;
  std::string path_ = dir_ / ".locks/repo/blob.lock";
  std::list<Ground> grounds_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, LockContract, ::testing::ValuesIn(kKinds), row_name<Kind>);

TEST_P(LockContract, IsHeldByOneAtATimeInAProcess) {
  const auto held = take();
  ASSERT_TRUE(IsOk(held));
  ASSERT_NE(*held, nullptr);
  EXPECT_FALSE((*held)->lost());
  EXPECT_TRUE(is_held(*lock()));
}

TEST_P(LockContract, IsFreeAgainAfterItsHolderLetGo) {
  const auto one = lock();
  { const auto held = acquire(*one); }
  EXPECT_FALSE(is_held(*one));
  EXPECT_FALSE(is_held(*lock()));
}

TEST_P(LockContract, OutlivesTheLockObject) {
  auto one = lock();
  const auto held = acquire(*one);
  one.reset();
  EXPECT_TRUE(is_held(*lock()));
}

TEST_P(LockContract, LocksOfTwoNamesAreIndependent) {
  const auto held = take();
  EXPECT_FALSE(is_held(*lock_at(dir_ / ".locks/repo/other.lock")));
}

TEST_P(LockContract, ExcludesAnotherProcess) {
  const Child child(holding());
  EXPECT_TRUE(is_held(*lock()));
}

TEST_P(LockContract, IsFreeWhenItsHolderWasKilled) {
  Child child(holding());
  child.kill();
  EXPECT_FALSE(is_held(*lock()));
}

TEST_P(LockContract, IsFreeThoughAForkedChildLivesOn) {
  auto held = take();
  ASSERT_TRUE(IsOk(held));
  const Child child([] { return true; });
  held->reset();
  EXPECT_FALSE(is_held(*lock()));
}

TEST_P(LockContract, ExcludesUnderContention) {
  constexpr int kProcesses = 4;
  constexpr int kTurns = 50;
  const std::string counter = dir_.write("counter", "0");
  pid_t children[kProcesses];
  for (pid_t& child : children) {
    child = ::fork();
    if (child != 0) continue;
    const auto mine = lock();
    for (int turn = 0; turn < kTurns;) {
      const auto held = mine->try_acquire();
      if (!held) ::_exit(1);
      if (*held == nullptr) {
        (void)::sched_yield();
        continue;
      }
      int value = -1;
      std::ifstream(counter) >> value;
      std::ofstream(counter) << value + 1;
      ++turn;
    }
    ::_exit(0);
  }
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(dir_.read("counter"), std::to_string(kProcesses * kTurns));
}

TEST_P(LockContract, NamesItsHolder) {
  const Child child(holding());
  const auto mine = lock();
  EXPECT_TRUE(is_held(*mine));
  const std::string who = mine->describe_holder();
  EXPECT_TRUE(who.starts_with(posix::host_name() + " pid " + std::to_string(child.pid()) +
                              " job 881, since 2"))
      << who;
  EXPECT_TRUE(known_holder(path_) == who || known_lease_holder(path_) == who);
}

TEST_P(LockContract, SaysWhichKindItIs) {
  const auto mine = lock();
  const auto held = acquire(*mine);
  ASSERT_TRUE(IsOk(held));
  EXPECT_EQ(mine->kind(), GetParam().kind);
}

TEST_P(LockContract, DoesNotNameADeadHolder) {
  Child child(holding());
  const std::string pid = std::to_string(child.pid());
  child.kill();
  EXPECT_EQ(lock()->describe_holder().find("pid " + pid), std::string::npos);
  EXPECT_EQ(known_holder(path_), std::nullopt);
  EXPECT_EQ(known_lease_holder(path_), std::nullopt);
}

TEST_P(LockContract, NamesNobodyAfterItsRelease) {
  {
    const auto held = take();
    ASSERT_TRUE(IsOk(held));
    (*held)->tell();
  }
  EXPECT_EQ(known_holder(path_), std::nullopt);
  EXPECT_EQ(known_lease_holder(path_), std::nullopt);
  EXPECT_NE(lock()->describe_holder(), "");
}

TEST_P(LockContract, AskingWhoHoldsItTakesAndMakesNothing) {
  EXPECT_EQ(known_holder(path_), std::nullopt);
  EXPECT_EQ(known_lease_holder(path_), std::nullopt);
  EXPECT_TRUE(dir_.files().empty());
}

TEST_P(LockContract, LeavesTheLockFileAndNothingElse) {
  {
    const auto held = take();
    ASSERT_TRUE(IsOk(held));
    (*held)->tell();
  }
  std::vector<std::string> expected;
  if (GetParam().make != &lease_on) expected.emplace_back(".locks/repo/blob.lock");
  EXPECT_EQ(left(), expected);
}

TEST_P(LockContract, CannotBeMadeWhereAFileIsInTheWay) {
  dir_.write(".locks", "");
  EXPECT_FALSE(take().has_value());
}

// flock

class Flock : public ::testing::Test {
 protected:
  [[nodiscard]] std::unique_ptr<Lock> lock() { return ground_.flock(path_); }

  TempDir dir_;
  std::string path_ = dir_ / "blob.lock";
  Ground ground_;
};

TEST_F(Flock, IsSeenToBeHeldWithoutATrace) {
  EXPECT_FALSE(fvprefetch::is_held(path_));
  EXPECT_TRUE(dir_.files().empty());
  Child child([this] {
    static std::unique_ptr<HeldLock> held;
    auto tried = acquire(*lock());
    if (tried) held = *std::move(tried);
    return held != nullptr;
  });
  EXPECT_TRUE(fvprefetch::is_held(path_));
  child.kill();
  EXPECT_FALSE(fvprefetch::is_held(path_));
  EXPECT_TRUE(IsOk(lock()->try_acquire()));  // nothing is kept
}

TEST_F(Flock, LeavesTheFileEmptyAndOfItsMode) {
  const mode_t before = ::umask(077);
  const auto held = acquire(*lock());
  (void)::umask(before);
  struct ::stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0664U);
  EXPECT_EQ(status.st_size, 0);
}

TEST_F(Flock, ExcludesAndIsExcludedByAPlainFlock) {
  const posix::Fd fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  ASSERT_EQ(::flock(fd.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_TRUE(is_held(*lock()));
  ASSERT_EQ(::flock(fd.get(), LOCK_UN), 0);
  const auto held = acquire(*lock());
  EXPECT_EQ(::flock(fd.get(), LOCK_EX | LOCK_NB), -1);
}

TEST_F(Flock, FileThatAPeerUnlinkedWhileWeOpenedItIsNotTheLock) {
  // As filelock 3.20.4 to 3.29.4 releases.
  std::function<void()> peer = [this] { fs::remove(path_); };
  before_next_flock = &peer;
  const auto held = acquire(*lock());
  ASSERT_TRUE(IsOk(held));
  ASSERT_NE(*held, nullptr);
  EXPECT_TRUE(is_held(*lock()));  // what we hold is what the name leads to
}

TEST_F(Flock, FileThatAPeerReplacedAndLocksIsHeld) {
  posix::Fd theirs;
  std::function<void()> peer = [&] {
    fs::remove(path_);
    theirs = posix::Fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    ASSERT_EQ(::syscall(SYS_flock, theirs.get(), LOCK_EX | LOCK_NB), 0);
  };
  before_next_flock = &peer;
  EXPECT_TRUE(is_held(*lock()));
}

TEST_F(Flock, HolderWithoutARecordIsFoundInTheKernelsList) {
  const Child child([this] {
    const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    return ::flock(fd, LOCK_EX | LOCK_NB) == 0;
  });
  const std::string who = lock()->describe_holder();
  EXPECT_TRUE(who.starts_with("pid " + std::to_string(child.pid()) + " (")) << who;
  EXPECT_TRUE(who.ends_with(" on this host")) << who;
}

TEST_F(Flock, UnknownHolderIsAnotherProgram) {
  EXPECT_EQ(lock()->describe_holder(), "another program (it left no record beside " + path_ + ")");
}

TEST_F(Flock, RecordOfAnotherHostIsBelieved) {
  dir_.write(
      "blob.holder",
      R"({"version": 1, "host": "node17.invalid", "pid": 4242, "job": "881", "since": "x"})");
  EXPECT_EQ(known_holder(path_), "node17.invalid pid 4242 job 881, since x");
}

struct Record {
  const char* name;
  const char* text;
};
constexpr Record kRecords[] = {
    {"empty", ""},
    {"cut", R"({"version": 1, "host": )"},
    {"no_object", "[4242]"},
    {"no_pid", R"({"version": 1, "host": "node17.invalid"})"},
    {"pid_as_text", R"({"version": 1, "host": "node17.invalid", "pid": "4242"})"},
    {"later_version", R"({"version": 2, "host": "node17.invalid", "pid": 4242})"},
};
class FlockRecord : public Flock, public ::testing::WithParamInterface<Record> {};
TEST_P(FlockRecord, ThatIsNotUnderstoodNamesNobody) {
  dir_.write("blob.holder", GetParam().text);
  EXPECT_EQ(known_holder(path_), std::nullopt);
}
INSTANTIATE_TEST_SUITE_P(Rows, FlockRecord, ::testing::ValuesIn(kRecords), row_name<Record>);

TEST_F(Flock, SymbolicLinkIsNotFollowed) {
  fs::create_symlink(dir_ / "elsewhere", path_);
  EXPECT_TRUE(FailsWith(acquire(*lock()), ErrorCode::kPermission, "symbolic link"));
  EXPECT_FALSE(posix::exists(dir_ / "elsewhere"));
}

// What file systems without working locks have been seen to say.
struct Refusal {
  const char* name;
  int number;
};
constexpr Refusal kRefusals[] = {{"lustre_without_flock", ENOSYS}, {"nfs_without_lockd", ENOLCK},
                                 {"not_supported", EOPNOTSUPP},    {"nfs_read_only", EBADF},
                                 {"stale_handle", ESTALE},         {"autofs_524", 524}};
class FlockRefused : public Flock, public ::testing::WithParamInterface<Refusal> {};
TEST_P(FlockRefused, IsAnErrorThatTheCallerCanGoOnFrom) {
  flock_fails_with = GetParam().number;
  const auto held = acquire(*lock());
  flock_fails_with = 0;
  EXPECT_TRUE(FailsWith(held, ErrorCode::kInternal, "cannot lock " + path_ + ": "));
  EXPECT_EQ(dir_.files(), std::vector<std::string>{"blob.lock"});
}
INSTANTIATE_TEST_SUITE_P(Rows, FlockRefused, ::testing::ValuesIn(kRefusals), row_name<Refusal>);

// A lock of its own for what the others do to it.
class Scripted final : public Lock {
 public:
  explicit Scripted(std::function<bool()> taken) : taken_(std::move(taken)) {}
  [[nodiscard]] Result<std::unique_ptr<HeldLock>> try_acquire() override {
    if (!taken_()) return nullptr;
    class Held final : public HeldLock {
      void tell() override {}
      [[nodiscard]] bool lost() override { return false; }
    };
    return std::make_unique<Held>();
  }
  [[nodiscard]] std::string describe_holder() const override { return "another"; }
  [[nodiscard]] std::string kind() const override { return "scripted"; }

 private:
  std::function<bool()> taken_;
};

TEST(Chain, WaitsForACourtesyAsLongAsItSaysAndGoesOnWithout) {
  FakeClock clock;
  std::vector<ChainPart> parts;
  parts.push_back({std::make_unique<Scripted>([] { return false; }), ChainPart::Need::kCourtesy,
                   milliseconds(10'000)});
  parts.push_back({std::make_unique<Scripted>([] { return true; }), ChainPart::Need::kOneOf, {}});
  const auto chain = make_chain(std::move(parts), clock);
  EXPECT_TRUE(is_held(*chain));
  clock.advance(milliseconds(9'999));
  EXPECT_TRUE(is_held(*chain));
  clock.advance(milliseconds(1));
  EXPECT_FALSE(is_held(*chain));
  EXPECT_EQ(chain->kind(), "scripted");
}

// A call that does not return.
class Hang {
 public:
  bool operator()() {
    over_.wait(false);
    return true;
  }
  void end() {
    over_ = true;
    over_.notify_all();
  }

 private:
  std::atomic<bool> over_ = false;
};

std::unique_ptr<Lock> hanging(const std::shared_ptr<Hang>& hang, milliseconds patience) {
  const auto calls = std::make_shared<FlockCalls>(
      FlockCalls::Habits{.patience = patience, .may_queue = false, .wake = nullptr});
  return make_answering(std::make_unique<Scripted>([hang] { return (*hang)(); }), "/nowhere",
                        calls);
}

TEST(Answering, CallThatHangsDoesNotHoldUpItsCaller) {
  const auto hang = std::make_shared<Hang>();
  const auto lock = hanging(hang, milliseconds(1'000'000));
  const auto tried = lock->try_acquire();
  ASSERT_TRUE(IsOk(tried));
  EXPECT_EQ(*tried, nullptr);
  EXPECT_NE(lock->describe_holder().find("/nowhere"), std::string::npos) << lock->describe_holder();
  hang->end();
  EXPECT_NE(*acquire(*lock), nullptr);
}

TEST(Answering, WhoHeldItWhenLastSeenIsSaidOfACallThatHangs) {
  const auto hang = std::make_shared<Hang>();
  const auto answers = std::make_shared<std::atomic<bool>>(true);
  const auto calls = std::make_shared<FlockCalls>(
      FlockCalls::Habits{.patience = milliseconds(1'000'000), .may_queue = false, .wake = nullptr});
  const auto lock = make_answering(
      std::make_unique<Scripted>([=] { return *answers ? false : (*hang)(); }), "/nowhere", calls);
  EXPECT_FALSE(lock->knows_holder());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!lock->knows_holder() && std::chrono::steady_clock::now() < end) {
    EXPECT_EQ(*lock->try_acquire(), nullptr);
    std::this_thread::sleep_for(milliseconds(1));
  }
  *answers = false;
  EXPECT_EQ(*lock->try_acquire(), nullptr);
  EXPECT_TRUE(lock->knows_holder());
  EXPECT_EQ(lock->describe_holder(), "another");
  hang->end();
}

TEST(Answering, CallThatGoesOnHangingIsALockThatDoesNotWork) {
  const auto hang = std::make_shared<Hang>();
  const auto lock = hanging(hang, milliseconds(1));
  EXPECT_TRUE(FailsWith(acquire(*lock), ErrorCode::kInternal, "/nowhere"));
  hang->end();
}

TEST(Answering, WhatComesAfterItsEndIsLetGo) {
  const TempDir dir;
  const std::string path = dir / "blob.lock";
  const auto calls = std::make_shared<FlockCalls>();
  flocking = Flocking::kHangs;
  {
    const auto lock = make_answering(make_flock(path, 0664, {}, *calls), dir.path(), calls);
    EXPECT_EQ(*lock->try_acquire(), nullptr);
  }
  flocking = Flocking::kHonest;
  EXPECT_NE(*acquire(*make_flock(path, 0664, {}, *calls)), nullptr);
}

}  // namespace
}  // namespace fvprefetch
