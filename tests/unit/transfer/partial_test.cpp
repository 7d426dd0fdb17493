// What an earlier process left: taken over, copied, left alone, or begun anew; never believed
// further than its journal and its data agree.
#include "transfer/partial.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "support/fake_clock.h"
#include "support/matchers.h"
#include "support/temp_dir.h"
#include "support/tiny_disk.h"

// What fdatasync says in this program: the linker takes this one before libc's.
static int fdatasync_fails_with = 0;
extern "C" int fdatasync(int fd) {
  // Once, as the kernel does.
  if (const int number = std::exchange(fdatasync_fails_with, 0); number != 0) {
    errno = number;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;
using testing::FailsWith;
using testing::FakeClock;
using testing::IsOk;
using testing::TempDir;

constexpr auto kUrl = "https://a/file.bin";
const std::string kText = "the bytes of a checkpoint";

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void of_another_host(Journal& journal) {
  journal.boot = "another";
  journal.durable.clear();  // killed before anything was synced
  journal.owner = ProcessName{"node17", "another", "pid:[1]", 42, 4711};
}

// On which each look takes some time: so long takes what is done between two.
class SlowClock final : public Clock {
 public:
  explicit SlowClock(milliseconds step) : step_(step) {}
  [[nodiscard]] TimePoint now() const override { return clock_.now() + step_ * looks_++; }
  using Clock::sleep_until;
  void sleep_until(TimePoint /*until*/, const std::stop_token& /*stop*/, Wake*) override {}
  void advance(milliseconds by) { clock_.advance(by); }

 private:
  FakeClock clock_;
  milliseconds step_;
  mutable int looks_ = 0;
};

class PartialTest : public ::testing::Test {
 protected:
  PartialTest() {
    spec.path = "file.bin";
    spec.urls = {kUrl};
    spec.size = kText.size();
    spec.digest = Digest{Digest::Kind::kSha256, sha256_hex(kText)};
  }

  [[nodiscard]] PartialPlace place(const std::string& tag) const {
    return {dir.path() + "/.file.bin." + tag, dir.path() + "/" + tag + ".json"};
  }
  std::unique_ptr<Partial> make(const std::string& tag) {
    return std::make_unique<Partial>(place(tag), spec, Partial::Workers{*worker, *worker}, clock);
  }
  // A process that ended early with the first `bytes`.
  void leave(const std::string& tag, std::size_t bytes, const std::string& etag = "\"v1\"") {
    const auto left = make(tag);
    ASSERT_TRUE(IsOk(left->restart(kUrl, etag, kText.size())));
    ASSERT_TRUE(IsOk(left->write(0, bytes_of(kText.substr(0, bytes)))));
  }
  static BodyPiece bytes_of(std::string_view text) {
    return {std::as_bytes(std::span(text.data(), text.size())), nullptr};
  }
  void change_journal(const std::string& tag, const std::function<void(Journal&)>& change) {
    auto journal = parse_journal(content(place(tag).journal));
    ASSERT_TRUE(journal);
    change(*journal);
    std::ofstream(place(tag).journal) << to_text(*journal);
  }
  std::unique_ptr<Partial> adopt(const std::vector<std::string>& tags) {
    std::vector<PartialPlace> places;
    for (const std::string& tag : tags) places.push_back(place(tag));
    auto next = make("next");
    next->adopt(places, kUrl);
    while (next->copying()) next->copy_some();
    return next;
  }
  [[nodiscard]] std::uint64_t inode(const std::string& tag) const {
    const auto info = posix::stat(place(tag).data);
    return info && *info ? (*info)->inode : 0;
  }
  [[nodiscard]] bool exists(const std::string& path) const { return std::filesystem::exists(path); }
  static void of_a_dead_process(Journal& journal) {
    journal.owner = this_process();
    journal.owner->started += 1;  // the pid was given again
  }

  TempDir dir;
  FakeClock clock;
  std::unique_ptr<Worker> worker = make_inline_worker();
  FileSpec spec;
};

// --- ending --------------------------------------------------------------------------------------

TEST_F(PartialTest, StaysWithItsJournalWhenItEndsEarly) {
  leave("left", 9);
  EXPECT_EQ(content(place("left").data), kText.substr(0, 9));
  const auto journal = parse_journal(content(place("left").journal));
  ASSERT_TRUE(journal);
  EXPECT_EQ(journal->done.ranges(), (std::vector<Range>{{0, 9}}));
  EXPECT_EQ(journal->owner, std::nullopt);
  EXPECT_EQ(journal->digest, "sha256:" + sha256_hex(kText));
}

TEST_F(PartialTest, SaysNothingOfTheAddressButItsHash) {
  leave("left", 9);
  EXPECT_EQ(content(place("left").journal).find("https"), std::string::npos);
}

TEST_F(PartialTest, GoesWhenNothingCouldGoOnWithIt) {
  spec.digest.reset();
  leave("left", 9, "W/\"v1\"");
  EXPECT_TRUE(dir.files().empty());
}

TEST_F(PartialTest, GoesWhenItIsDiscarded) {
  auto partial = make("one");
  ASSERT_TRUE(IsOk(partial->restart(kUrl, "\"v1\"", kText.size())));
  ASSERT_TRUE(IsOk(partial->write(0, bytes_of(kText))));
  partial->discard();
  partial.reset();
  EXPECT_TRUE(dir.files().empty());
}

TEST_F(PartialTest, GoesWhenItsBytesAreForgotten) {
  auto partial = make("one");
  ASSERT_TRUE(IsOk(partial->restart(kUrl, "\"v1\"", kText.size())));
  ASSERT_TRUE(IsOk(partial->write(0, bytes_of(kText))));
  partial->forget();
  partial.reset();
  EXPECT_TRUE(dir.files().empty());
}

// --- the journal while bytes arrive --------------------------------------------------------------

class RecordedPartial : public PartialTest {
 protected:
  std::unique_ptr<Partial> begin(Clock& on) {
    spec.size = 64 * Partial::kBlock;
    auto partial =
        std::make_unique<Partial>(place("one"), spec, Partial::Workers{*worker, *worker}, on);
    EXPECT_TRUE(IsOk(partial->restart(kUrl, "\"v1\"", spec.size)));
    return partial;
  }
  void write_block(Partial& partial) {
    ASSERT_TRUE(IsOk(partial.write(written_++ * Partial::kBlock, bytes_of(block_))));
  }
  [[nodiscard]] std::uint64_t recorded() const {
    const auto journal = parse_journal(content(place("one").journal));
    return journal ? journal->done.bytes() / Partial::kBlock : 0;
  }

 private:
  std::string block_ = std::string(Partial::kBlock, 'x');
  std::uint64_t written_ = 0;
};

TEST_F(RecordedPartial, LosesNoBlockWhereWritingTheJournalIsQuick) {
  const auto partial = begin(clock);
  EXPECT_EQ(recorded(), 0U);
  for (std::uint64_t block = 1; block <= 5; ++block) {
    write_block(*partial);
    EXPECT_EQ(recorded(), block);
  }
}

TEST_F(RecordedPartial, SpendsATwentiethOfTheTimeOnIt) {
  SlowClock slow(milliseconds(1));
  const auto partial = begin(slow);
  write_block(*partial);
  EXPECT_EQ(recorded(), 1U);
  slow.advance(milliseconds(15));
  write_block(*partial);
  EXPECT_EQ(recorded(), 1U);
  slow.advance(milliseconds(5));
  write_block(*partial);
  EXPECT_EQ(recorded(), 3U);
}

TEST_F(RecordedPartial, WaitsATenthOfASecondAtMost) {
  SlowClock slow(milliseconds(50));
  const auto partial = begin(slow);
  write_block(*partial);
  slow.advance(milliseconds(100));
  write_block(*partial);
  EXPECT_EQ(recorded(), 2U);
}

TEST_F(PartialTest, RecordsAsDurableOnlyWhatWasSynced) {
  spec.size = 2 * Partial::kDurableBlock;
  const std::string block(Partial::kDurableBlock / 4, 'x');
  auto partial = make("one");
  ASSERT_TRUE(IsOk(partial->restart(kUrl, "\"v1\"", spec.size)));
  for (std::uint64_t i = 0; i < 6; ++i) {
    clock.advance(milliseconds(100));
    ASSERT_TRUE(IsOk(partial->write(i * block.size(), bytes_of(block))));
  }
  const auto journal = parse_journal(content(place("one").journal));
  ASSERT_TRUE(journal);
  EXPECT_EQ(journal->done.bytes(), 6 * block.size());
  EXPECT_EQ(journal->durable.bytes(), Partial::kDurableBlock);
}

TEST_F(PartialTest, NamesItsOwnerWhileItLives) {
  spec.size = 2 * Partial::kBlock;
  auto partial = make("one");
  ASSERT_TRUE(IsOk(partial->restart(kUrl, "\"v1\"", spec.size)));
  ASSERT_TRUE(IsOk(partial->write(0, bytes_of(std::string(Partial::kBlock, 'x')))));
  const auto journal = parse_journal(content(place("one").journal));
  ASSERT_TRUE(journal);
  EXPECT_EQ(journal->owner, this_process());
}

// --- the disk ------------------------------------------------------------------------------------

class UnsyncedPartial : public PartialTest {
 protected:
  UnsyncedPartial() {
    spec.size = 2 * Partial::kDurableBlock;
    partial = make("one");
    EXPECT_TRUE(IsOk(partial->restart(kUrl, "\"v1\"", spec.size)));
  }
  ~UnsyncedPartial() override { fdatasync_fails_with = 0; }
  Status write(std::uint64_t blocks) {
    const std::string block(Partial::kBlock, 'x');
    for (std::uint64_t i = 0; i < blocks; ++i) {
      if (auto status = partial->write(written_, bytes_of(block)); !status) return status;
      written_ += block.size();
    }
    return {};
  }

  std::unique_ptr<Partial> partial;

 private:
  std::uint64_t written_ = 0;
};

constexpr std::uint64_t kBlocksUntilSync = Partial::kDurableBlock / Partial::kBlock;

TEST_F(UnsyncedPartial, IsNoFileThoughTheKernelTellsItOnlyOnce) {
  fdatasync_fails_with = EDQUOT;
  ASSERT_TRUE(IsOk(write(kBlocksUntilSync)));
  EXPECT_TRUE(FailsWith(write(kBlocksUntilSync), ErrorCode::kNoSpace));
  const auto digest = partial->digest(*spec.size);
  ASSERT_TRUE(digest);
  EXPECT_TRUE(FailsWith(*digest, ErrorCode::kNoSpace));
}

TEST_F(UnsyncedPartial, IsNotGoneOnWithBeyondWhatWasSynced) {
  ASSERT_TRUE(IsOk(write(kBlocksUntilSync + 4)));
  fdatasync_fails_with = EIO;
  partial.reset();
  const auto journal = parse_journal(content(place("one").journal));
  ASSERT_TRUE(journal);
  EXPECT_EQ(journal->done.ranges(), (std::vector<Range>{{0, Partial::kDurableBlock}}));
}

TEST_F(UnsyncedPartial, GoesWhenNothingWasEverSynced) {
  ASSERT_TRUE(IsOk(write(4)));
  fdatasync_fails_with = EIO;
  partial.reset();
  EXPECT_TRUE(dir.files().empty());
}

class FullDiskPartial : public PartialTest {
 protected:
  [[nodiscard]] PartialPlace on_disk(const std::string& tag) const {
    return {disk.dir() / (".file.bin." + tag), disk.dir() / (tag + ".json")};
  }
  std::unique_ptr<Partial> make_on_disk(const std::string& tag) {
    return std::make_unique<Partial>(on_disk(tag), spec, Partial::Workers{*worker, *worker}, clock);
  }
  // Of another host, in a directory that has room.
  void leave_elsewhere() {
    leave("left", 20);
    change_journal("left", [](Journal& journal) {
      of_another_host(journal);
      journal.durable.add({0, 20});
    });
  }

  testing::TinyDisk disk;
};

TEST_F(FullDiskPartial, GoesWhenThereWasNeverRoomForItsJournal) {
  auto partial = make_on_disk("one");
  ASSERT_TRUE(IsOk(partial->restart(kUrl, "\"v1\"", kText.size())));
  ASSERT_TRUE(IsOk(partial->write(0, bytes_of(kText.substr(0, 9)))));
  disk.fill();
  partial.reset();
  EXPECT_EQ(disk.dir().files(), (std::vector<std::string>{"filler"}));
}

TEST_F(FullDiskPartial, IsAsItsLastJournalTellsWhenThereIsNoRoomForAnother) {
  spec.size = 8 * Partial::kBlock;
  const std::string half(Partial::kBlock / 2, 'x');
  auto partial = make_on_disk("one");
  ASSERT_TRUE(IsOk(partial->restart(kUrl, "\"v1\"", spec.size)));
  // Twice the same bytes: a block of them on a disk of the size of a block.
  ASSERT_TRUE(IsOk(partial->write(0, bytes_of(half))));
  ASSERT_TRUE(IsOk(partial->write(0, bytes_of(half))));
  disk.fill();
  EXPECT_TRUE(FailsWith(partial->write(half.size(), bytes_of(half)), ErrorCode::kNoSpace));
  partial.reset();
  const auto journal = parse_journal(content(on_disk("one").journal));
  ASSERT_TRUE(journal);
  EXPECT_EQ(journal->done.ranges(), (std::vector<Range>{{0, half.size()}}));
  EXPECT_TRUE(exists(on_disk("one").data));
}

TEST_F(FullDiskPartial, IsLeftForTheNextRunWhileThereIsNoRoomForAJournal) {
  {
    const auto left = make_on_disk("left");
    ASSERT_TRUE(IsOk(left->restart(kUrl, "\"v1\"", kText.size())));
    ASSERT_TRUE(IsOk(left->write(0, bytes_of(kText.substr(0, 9)))));
  }
  disk.fill();
  const auto next = make_on_disk("next");
  next->adopt({on_disk("left")}, kUrl);
  EXPECT_FALSE(next->begun());
  EXPECT_EQ(disk.dir().files(),
            (std::vector<std::string>{".file.bin.left", "filler", "left.json"}));
}

TEST_F(FullDiskPartial, WhoseCopyFindsNoRoomIsBegunAnew) {
  leave_elsewhere();
  auto next = make_on_disk("next");
  next->adopt({place("left")}, kUrl);
  ASSERT_TRUE(next->copying());
  disk.fill();
  next->copy_some();
  EXPECT_FALSE(next->copying());
  EXPECT_FALSE(next->begun());
  EXPECT_NE(next->take_note().find("not gone on with"), std::string::npos);
  EXPECT_EQ(content(place("left").data), kText.substr(0, 20));
  std::filesystem::remove(disk.dir() / "filler");
  ASSERT_TRUE(IsOk(next->restart(kUrl, "\"v1\"", kText.size())));
  ASSERT_TRUE(IsOk(next->write(0, bytes_of(kText))));
  EXPECT_EQ(content(on_disk("next").data), kText);
}

TEST_F(FullDiskPartial, WhoseOriginalIsRemovedDuringTheCopyIsCopiedAllTheSame) {
  leave_elsewhere();
  const auto next = make_on_disk("next");
  next->adopt({place("left")}, kUrl);
  ASSERT_TRUE(next->copying());
  std::filesystem::remove(place("left").data);
  next->copy_some();
  EXPECT_EQ(next->adopted(), 20U);
  EXPECT_EQ(content(on_disk("next").data), kText.substr(0, 20));
}

TEST_F(FullDiskPartial, WhoseOriginalIsCutDuringTheCopyIsBegunAnew) {
  leave_elsewhere();
  const auto next = make_on_disk("next");
  next->adopt({place("left")}, kUrl);
  ASSERT_TRUE(next->copying());
  std::filesystem::resize_file(place("left").data, 10);
  next->copy_some();
  EXPECT_FALSE(next->begun());
  EXPECT_NE(next->take_note().find("ended while it was copied"), std::string::npos);
  EXPECT_EQ(std::filesystem::file_size(on_disk("next").data), 0U);
}

// --- adoption ------------------------------------------------------------------------------------

TEST_F(PartialTest, TakesInPlaceWhatItsOwnerLetGo) {
  leave("left", 9);
  const std::uint64_t before = inode("left");
  const auto next = adopt({"left"});
  EXPECT_EQ(next->done().ranges(), (std::vector<Range>{{0, 9}}));
  EXPECT_EQ(next->adopted(), 9U);
  EXPECT_EQ(next->etag(), "\"v1\"");
  EXPECT_EQ(inode("next"), before);
  EXPECT_FALSE(exists(place("left").data));
  EXPECT_FALSE(exists(place("left").journal));
}

TEST_F(PartialTest, TakesInPlaceWhatADeadProcessLeft) {
  leave("left", 9);
  change_journal("left", of_a_dead_process);
  const std::uint64_t before = inode("left");
  EXPECT_EQ(adopt({"left"})->adopted(), 9U);
  EXPECT_EQ(inode("next"), before);
}

TEST_F(PartialTest, CopiesWhatAnotherHostLeftAndLeavesThat) {
  leave("left", 9);
  change_journal("left", [](Journal& journal) {
    of_another_host(journal);
    journal.durable.add({0, 5});
  });
  const std::uint64_t before = inode("left");
  const auto next = adopt({"left"});
  EXPECT_EQ(next->done().ranges(), (std::vector<Range>{{0, 5}}));
  EXPECT_NE(inode("next"), before);
  EXPECT_EQ(content(place("next").data).substr(0, 5), kText.substr(0, 5));
  EXPECT_EQ(content(place("left").data), kText.substr(0, 9));
}

TEST_F(PartialTest, CopiesOnlyWhatTheJournalTells) {
  leave("left", 25);
  change_journal("left", [](Journal& journal) {
    of_another_host(journal);
    journal.durable.add({2, 5});
    journal.durable.add({10, 15});
  });
  const auto next = adopt({"left"});
  EXPECT_EQ(next->done().ranges(), (std::vector<Range>{{2, 5}, {10, 15}}));
}

TEST_F(PartialTest, LeavesALivingOwnersAlone) {
  leave("left", 9);
  change_journal("left", [](Journal& journal) { journal.owner = this_process(); });
  const auto next = adopt({"left"});
  EXPECT_FALSE(next->begun());
  EXPECT_TRUE(exists(place("left").data));
}

TEST_F(PartialTest, TakesTheOneThatHasMost) {
  leave("a", 5);
  leave("b", 9);
  leave("c", 7);
  EXPECT_EQ(adopt({"a", "b", "c"})->adopted(), 9U);
  EXPECT_TRUE(exists(place("a").data));
}

TEST_F(PartialTest, OnlyOneOfSeveralAdoptersWins) {
  leave("left", 9);
  const auto journal = content(place("left").journal);
  const auto first = adopt({"left"});
  std::ofstream(place("left").journal) << journal;  // as the second had read it before
  const auto second = make("second");
  second->adopt({place("left")}, kUrl);
  EXPECT_FALSE(second->begun());
  EXPECT_FALSE(exists(place("second").journal));
}

TEST_F(PartialTest, GoesOnAndIsRightInTheEnd) {
  leave("left", 9);
  const auto next = adopt({"left"});
  ASSERT_TRUE(IsOk(next->write(9, bytes_of(std::string_view(kText).substr(9)))));
  const auto digest = next->digest(kText.size());
  ASSERT_TRUE(digest);
  ASSERT_TRUE(IsOk(*digest));
  EXPECT_EQ(**digest, sha256_hex(kText));
}

TEST_F(PartialTest, IsNotRelievedOfItsJournalByAdoption) {
  leave("left", 9);
  { const auto next = adopt({"left"}); }
  EXPECT_EQ(dir.files(), (std::vector<std::string>{".file.bin.next", "next.json"}));
}

TEST_F(PartialTest, IsClippedToTheDataThatIsThere) {
  leave("left", 9);
  change_journal("left", [](Journal& journal) { journal.done.add({0, 25}); });
  EXPECT_EQ(adopt({"left"})->done().ranges(), (std::vector<Range>{{0, 9}}));
}

struct RefusedRow {
  std::string name;
  std::function<void(FileSpec&)> next;      // what the next run wants
  std::function<void(Journal&)> journal{};  // what the journal says
};
class RefusedPartial : public PartialTest, public ::testing::WithParamInterface<RefusedRow> {};

TEST_P(RefusedPartial, IsNotGoneOnWith) {
  leave("left", 9);
  if (GetParam().journal) change_journal("left", GetParam().journal);
  if (GetParam().next) GetParam().next(spec);
  EXPECT_FALSE(adopt({"left"})->begun());
}

INSTANTIATE_TEST_SUITE_P(
    Rows, RefusedPartial,
    ::testing::Values(
        RefusedRow{"OtherDigest", [](FileSpec& spec) { spec.digest->hex = sha256_hex("another"); }},
        RefusedRow{"OtherKindOfDigest",
                   [](FileSpec& spec) { spec.digest->kind = Digest::Kind::kGitSha1; }},
        RefusedRow{"OtherSize", [](FileSpec& spec) { spec.size = 26; }},
        RefusedRow{"OtherTotal", {}, [](Journal& journal) { journal.total = 26; }},
        RefusedRow{"OtherAddressWithoutADigest", [](FileSpec& spec) { spec.digest.reset(); },
                   [](Journal& journal) { journal.address = sha256_hex("https://b/"); }},
        RefusedRow{"WeakValidatorWithoutADigest", [](FileSpec& spec) { spec.digest.reset(); },
                   [](Journal& journal) { journal.etag = "W/\"v1\""; }},
        RefusedRow{"NothingDurableOfAnotherHost", {}, &of_another_host},
        RefusedRow{"NothingDone", {}, [](Journal& journal) { journal.done.clear(); }}),
    testing::row_name<RefusedRow>);

TEST_F(PartialTest, WithoutADigestIsGoneOnWithAtTheSameAddress) {
  spec.digest.reset();
  leave("left", 9);
  EXPECT_EQ(adopt({"left"})->adopted(), 9U);
}

TEST_F(PartialTest, WhoseJournalIsGarbageIsNotGoneOnWith) {
  leave("left", 9);
  std::ofstream(place("left").journal) << "{\"version\": 1, \"done\": [[0, 9";
  EXPECT_FALSE(adopt({"left"})->begun());
  std::filesystem::remove(place("left").journal);
  EXPECT_FALSE(adopt({"left"})->begun());
}

TEST_F(PartialTest, WhoseDataIsGoneIsNotGoneOnWith) {
  leave("left", 9);
  std::filesystem::remove(place("left").data);
  const auto next = adopt({"left"});
  EXPECT_FALSE(next->begun());
  EXPECT_FALSE(exists(place("next").journal));
}

TEST_F(PartialTest, ThatIsALinkIsNotGoneOnWith) {
  leave("left", 9);
  std::filesystem::rename(place("left").data, dir.path() + "/elsewhere");
  std::filesystem::create_symlink("elsewhere", place("left").data);
  EXPECT_FALSE(adopt({"left"})->begun());
  EXPECT_EQ(content(dir.path() + "/elsewhere"), kText.substr(0, 9));
}

// Whoever may write in the folder can put anything there.
struct PlantedRow {
  std::string name;
  std::function<void(const std::string& data)> plant;
};
class PlantedPartial : public PartialTest, public ::testing::WithParamInterface<PlantedRow> {};

TEST_P(PlantedPartial, IsNeitherGoneOnWithNorTouched) {
  for (const auto& change : {std::function<void(Journal&)>([](Journal&) {}),
                             std::function<void(Journal&)>([](Journal& journal) {
                               of_another_host(journal);
                               journal.durable.add({0, 9});
                             })}) {
    leave("left", 9);
    change_journal("left", change);
    std::filesystem::rename(place("left").data, dir.path() + "/elsewhere");
    GetParam().plant(place("left").data);
    {
      const auto next = adopt({"left"});
      EXPECT_FALSE(next->begun());
      ASSERT_TRUE(IsOk(next->restart(kUrl, "\"v1\"", kText.size())));  // nothing is in its way
      next->discard();
    }
    EXPECT_EQ(content(dir.path() + "/elsewhere"), kText.substr(0, 9));
    EXPECT_FALSE(exists(place("next").data));
    std::filesystem::remove_all(place("left").data);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rows, PlantedPartial,
    ::testing::Values(
        PlantedRow{
            "Link",
            [](const std::string& data) { std::filesystem::create_symlink("elsewhere", data); }},
        PlantedRow{"SecondName",
                   [](const std::string& data) {
                     std::filesystem::create_hard_link(posix::parent(data) + "/elsewhere", data);
                   }},
        PlantedRow{"Directory",
                   [](const std::string& data) { std::filesystem::create_directory(data); }},
        PlantedRow{"Fifo",
                   [](const std::string& data) { ASSERT_EQ(::mkfifo(data.c_str(), 0666), 0); }}),
    testing::row_name<PlantedRow>);

TEST_F(PartialTest, IsNotCopiedToWhereMoreMayReadIt) {
  leave("left", 9);
  change_journal("left", [](Journal& journal) {
    of_another_host(journal);
    journal.durable.add({0, 9});
  });
  std::filesystem::permissions(
      place("left").data, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_FALSE(adopt({"left"})->begun());
  EXPECT_FALSE(exists(place("next").data));
}

}  // namespace
}  // namespace fvprefetch
