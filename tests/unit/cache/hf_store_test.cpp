#include "cache/hf_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "support/matchers.h"
#include "support/temp_dir.h"
#include "support/tiny_disk.h"

// A file system without symbolic links, for this program: the linker takes this one before libc's.
static int symlink_refused_with = 0;
extern "C" int symlink(const char* target, const char* path) noexcept {
  if (symlink_refused_with != 0) {
    errno = symlink_refused_with;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_symlinkat, target, AT_FDCWD, path));
}

namespace fvprefetch {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::row_name;
using testing::TempDir;
using testing::TinyDisk;
namespace fs = std::filesystem;

const std::string kCommit = "0123456789abcdef0123456789abcdef01234567";
const std::string kOther = "fedcba9876543210fedcba9876543210fedcba98";
const std::string kBlob = "ce013625030ba8dba906f756967f9e9ca394464a";
const std::string kRepo = "models--o--n";

FileSpec spec(std::string path, std::string blob = kBlob,
              std::optional<std::uint64_t> size = std::nullopt) {
  FileSpec file;
  file.path = std::move(path);
  file.blob = std::move(blob);
  file.size = size;
  return file;
}

class HubStoreTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string blob_path() const { return kRepo + "/blobs/" + kBlob; }
  [[nodiscard]] static std::string snapshot(const std::string& path) {
    return kRepo + "/snapshots/" + kCommit + "/" + path;
  }
  /// Everything of the repo that a scanner of huggingface_hub would see.
  [[nodiscard]] std::vector<std::string> visible() const {
    std::vector<std::string> files = dir_.files(kRepo);
    std::erase_if(files, [](const std::string& f) { return f.starts_with(".fvprefetch/"); });
    return files;
  }
  [[nodiscard]] std::vector<std::string> temporaries() const {
    return dir_.files(kRepo + "/.fvprefetch");
  }

  TempDir dir_;
  HubStore store_{dir_.path(), "model", "o/n"};
};

// Reading refs

struct Ref {
  const char* name;
  std::string text;
  bool read;
};
const Ref kRefs[] = {
    {"as_huggingface_hub_writes_it", kCommit, true},
    {"with_a_newline", kCommit + "\n", true},
    {"with_blanks_around", " \t" + kCommit + "\r\n", true},
    {"truncated_by_a_writer", "", false},
    {"blank", "\n", false},
    {"too_short", kCommit.substr(1), false},
    {"too_long", kCommit + "0", false},
    {"upper_case", "0123456789ABCDEF0123456789abcdef01234567", false},
    {"two_commits", kCommit + "\n" + kOther, false},
    {"a_path", "../../../../etc", false},
    {"a_large_file", std::string(1U << 20U, ' ') + kCommit, false},
};
class HubRef : public HubStoreTest, public ::testing::WithParamInterface<Ref> {};
TEST_P(HubRef, IsReadAsTheRowSays) {
  dir_.write(kRepo + "/refs/main", GetParam().text);
  const auto commit = store_.read_ref("main");
  ASSERT_TRUE(IsOk(commit));
  ASSERT_EQ(commit->has_value(), GetParam().read);
  if (!GetParam().read) return;
  EXPECT_EQ((*commit)->commit, kCommit);
  EXPECT_EQ((*commit)->exact, GetParam().text == kCommit);
}
INSTANTIATE_TEST_SUITE_P(Rows, HubRef, ::testing::ValuesIn(kRefs), row_name<Ref>);

TEST_F(HubStoreTest, MissingRefIsAbsent) {
  const auto commit = store_.read_ref("main");
  ASSERT_TRUE(IsOk(commit));
  EXPECT_FALSE(commit->has_value());
  EXPECT_EQ(store_.ref_time("main"), "");
}

TEST_F(HubStoreTest, DirectoryOfRefsIsNoRef) {
  dir_.write(kRepo + "/refs/refs/pr/1", kCommit);
  const auto commit = store_.read_ref("refs");
  ASSERT_TRUE(IsOk(commit));
  EXPECT_FALSE(commit->has_value());
  EXPECT_EQ(store_.read_ref("refs/pr/1").value()->commit, kCommit);
}

TEST_F(HubStoreTest, RevisionThatLeadsOutOfRefsIsNotRead) {
  dir_.write("outside", kCommit);
  const auto commit = store_.read_ref("../../outside");
  ASSERT_TRUE(IsOk(commit));
  EXPECT_FALSE(commit->has_value());
}

TEST_F(HubStoreTest, RefTimeIsThatOfItsFile) {
  const std::string ref = dir_.write(kRepo + "/refs/main", kCommit);
  const timespec times[2] = {{951'827'696, 0}, {951'827'696, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, ref.c_str(), times, 0), 0);
  EXPECT_EQ(store_.ref_time("main"), "2000-02-29T12:34:56Z");
}

// Looking for files

TEST_F(HubStoreTest, PointerThatLeadsToAFileIsThere) {
  dir_.write(blob_path(), "12345");
  fs::create_directories(dir_ / snapshot(""));
  fs::create_symlink("../../blobs/" + kBlob, dir_ / snapshot("f"));
  EXPECT_TRUE(store_.has_file(kCommit, spec("f")));
  EXPECT_TRUE(store_.has_file(kCommit, spec("f", kBlob, 5)));
}

TEST_F(HubStoreTest, PointerToAnotherSizeIsNotThere) {
  dir_.write(snapshot("f"), "12345");
  EXPECT_FALSE(store_.has_file(kCommit, spec("f", kBlob, 6)));
}

TEST_F(HubStoreTest, DanglingPointerIsAbsent) {
  fs::create_directories(dir_ / snapshot(""));
  fs::create_symlink("../../blobs/" + kBlob, dir_ / snapshot("f"));
  EXPECT_FALSE(store_.has_file(kCommit, spec("f")));
}

TEST_F(HubStoreTest, DirectoryIsNoFile) {
  fs::create_directories(dir_ / snapshot("f"));
  EXPECT_FALSE(store_.has_file(kCommit, spec("f")));
}

TEST_F(HubStoreTest, CopyInPlaceOfAPointerIsThere) {
  dir_.write(snapshot("f"), "12345");
  EXPECT_TRUE(store_.has_file(kCommit, spec("f", kBlob, 5)));
}

TEST_F(HubStoreTest, BlobInTheSharedStoreIsFollowedOverTwoLinks) {
  dir_.write("blobs/ab/payload", "12345");
  fs::create_directories(dir_ / (kRepo + "/blobs"));
  fs::create_symlink("../../blobs/ab/payload", dir_ / blob_path());
  fs::create_directories(dir_ / snapshot(""));
  fs::create_symlink("../../blobs/" + kBlob, dir_ / snapshot("f"));
  EXPECT_TRUE(store_.has_file(kCommit, spec("f", kBlob, 5)));
  EXPECT_TRUE(store_.has_blob(spec("f", kBlob, 5)));
}

TEST_F(HubStoreTest, BlobOfAnotherSizeOrADanglingOneIsNotThere) {
  dir_.write(blob_path(), "cut");
  EXPECT_FALSE(store_.has_blob(spec("f", kBlob, 5)));
  fs::create_symlink("../../blobs/ab/gone", dir_ / (kRepo + "/blobs/dangling"));
  EXPECT_FALSE(store_.has_blob(spec("f", "dangling")));
}

TEST_F(HubStoreTest, HostileNamesAreNeverThere) {
  dir_.write("outside", "12345");
  EXPECT_FALSE(store_.has_file(kCommit, spec("../../../outside")));
  EXPECT_FALSE(store_.has_file("../..", spec("outside")));
  EXPECT_FALSE(store_.has_blob(spec("f", "../../outside")));
  EXPECT_FALSE(store_.has_blob(spec("f", "")));
}

TEST_F(HubStoreTest, TellsTheBytesOfTheLargestPartialOfAnyWriter) {
  EXPECT_EQ(store_.partial_bytes(kBlob), 0U);
  dir_.write(blob_path() + ".00c0ffee.fvprefetch-part", "123");
  dir_.write(blob_path() + ".deadbeef.incomplete", "12345");
  dir_.write(kRepo + "/blobs/other.deadbeef.incomplete", "of another file");
  EXPECT_EQ(store_.partial_bytes(kBlob), 5U);
}

TEST_F(HubStoreTest, ReadingWritesNothing) {
  (void)store_.read_ref("main");
  (void)store_.read_tree(kCommit);
  (void)store_.has_file(kCommit, spec("f"));
  (void)store_.has_blob(spec("f"));
  (void)store_.partial_bytes(kBlob);
  EXPECT_TRUE(fs::is_empty(dir_.path()));
}

// Preparing

TEST_F(HubStoreTest, PrepareMakesWhatScannersExpect) {
  ASSERT_TRUE(IsOk(store_.prepare(kCommit)));
  EXPECT_TRUE(fs::is_directory(dir_ / (kRepo + "/blobs")));
  EXPECT_TRUE(fs::is_directory(dir_ / (kRepo + "/refs")));
  EXPECT_TRUE(fs::is_directory(dir_ / snapshot("")));
  EXPECT_TRUE(fs::is_directory(dir_ / (".locks/" + kRepo)));
  EXPECT_TRUE(
      dir_.read("CACHEDIR.TAG").starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"));
}

TEST_F(HubStoreTest, PrepareLeavesNothingElseInTheRoot) {
  ASSERT_TRUE(IsOk(store_.prepare(kCommit)));
  std::vector<std::string> names = posix::list(dir_.path()).value();
  EXPECT_EQ(names, (std::vector<std::string>{".locks", "CACHEDIR.TAG", kRepo}));
}

TEST_F(HubStoreTest, PrepareLeavesACacheDirTagThatIsThere) {
  dir_.write("CACHEDIR.TAG", "theirs");
  ASSERT_TRUE(IsOk(store_.prepare(kCommit)));
  EXPECT_EQ(dir_.read("CACHEDIR.TAG"), "theirs");
}

TEST_F(HubStoreTest, PrepareRefusesACommitThatIsNone) {
  EXPECT_TRUE(FailsWith(store_.prepare("../../x"), ErrorCode::kIntegrity, "commit"));
  EXPECT_TRUE(fs::is_empty(dir_.path()));
}

TEST_F(HubStoreTest, PrepareRefusesASnapshotThatIsAPlantedLink) {
  const TempDir elsewhere;
  fs::create_directories(dir_ / (kRepo + "/snapshots"));
  fs::create_directory_symlink(elsewhere.path(), dir_ / (kRepo + "/snapshots/" + kCommit));
  EXPECT_TRUE(FailsWith(store_.prepare(kCommit), ErrorCode::kPermission, "symbolic link"));
}

TEST_F(HubStoreTest, RepoFolderThatTheUserMovedElsewhereIsFine) {
  const TempDir elsewhere;
  fs::create_directory_symlink(elsewhere.path(), dir_ / kRepo);
  EXPECT_TRUE(IsOk(store_.prepare(kCommit)));
  EXPECT_TRUE(fs::is_directory(elsewhere / "blobs"));
}

// Publishing

class HubPublish : public HubStoreTest {
 protected:
  void SetUp() override { ASSERT_TRUE(IsOk(store_.prepare(kCommit))); }

  Status publish_blob(std::string_view text, const std::string& blob = kBlob) {
    const std::string partial = store_.paths().partial(blob, "00c0ffee");
    auto fd = posix::create_private(partial);
    if (!fd) return fail(fd.error());
    const Status written =
        posix::write_at(*fd, 0, std::as_bytes(std::span(text.data(), text.size())), partial);
    if (!written) return fail(written.error());
    const auto published = store_.publish_blob(*std::move(fd), partial, blob);
    return published ? Status{} : fail(published.error());
  }
};

TEST_F(HubPublish, BlobAppearsUnderItsNameOnly) {
  EXPECT_TRUE(IsOk(publish_blob("hello\n")));
  EXPECT_EQ(dir_.read(blob_path()), "hello\n");
  EXPECT_EQ(visible(), std::vector<std::string>{"blobs/" + kBlob});
}

TEST_F(HubPublish, BlobReplacesALinkIntoTheSharedStoreAndNotItsPayload) {
  dir_.write("blobs/ab/payload", "shared");
  fs::create_symlink("../../blobs/ab/payload", dir_ / blob_path());
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  EXPECT_EQ(dir_.read("blobs/ab/payload"), "shared");
  EXPECT_FALSE(posix::is_link(dir_ / blob_path()));
}

TEST_F(HubPublish, FailedBlobLeavesNoPrivateFile) {
  fs::create_directory(dir_ / blob_path());
  EXPECT_FALSE(publish_blob("hello\n").has_value());
  EXPECT_TRUE(visible().empty());
}

TEST_F(HubPublish, HostileBlobNameIsRefused) {
  auto fd = posix::create_private(dir_ / "p");
  ASSERT_TRUE(IsOk(fd));
  EXPECT_TRUE(FailsWith(store_.publish_blob(*std::move(fd), dir_ / "p", "../x"),
                        ErrorCode::kIntegrity, "blob `../x`"));
}

TEST_F(HubPublish, WithoutLinksTheBlobBecomesTheFileItself) {
  const HubStore plain(dir_.path(), "model", "o/n", Links::kNone);
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  ASSERT_TRUE(IsOk(plain.publish_pointer(kCommit, spec("a"), HubStore::Blob::kStays)));
  EXPECT_EQ(dir_.read(blob_path()), "hello\n");
  ASSERT_TRUE(IsOk(plain.publish_pointer(kCommit, spec("sub/b"), HubStore::Blob::kMoves)));
  EXPECT_EQ(dir_.read(blob_path()), "<missing>");
  for (const char* path : {"a", "sub/b"}) {
    EXPECT_EQ(dir_.read(snapshot(path)), "hello\n");
    EXPECT_FALSE(posix::is_link(dir_ / snapshot(path)));
  }
}

TEST_F(HubPublish, AFileThatTheCommitLacksIsNotedUntilItIsThere) {
  ASSERT_TRUE(IsOk(store_.write_absent(kCommit, "sub/f")));
  const std::string note = kRepo + "/.no_exist/" + kCommit + "/sub/f";
  EXPECT_EQ(dir_.read(note), "");
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  ASSERT_TRUE(IsOk(store_.publish_pointer(kCommit, spec("sub/f"), HubStore::Blob::kStays)));
  EXPECT_EQ(dir_.read(note), "<missing>");
  EXPECT_TRUE(FailsWith(store_.write_absent(kCommit, "../f"), ErrorCode::kIntegrity, "../f"));
}

TEST_F(HubPublish, ASnapshotIsListedAsItLies) {
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  ASSERT_TRUE(IsOk(store_.publish_pointer(kCommit, spec("sub/f"), HubStore::Blob::kStays)));
  fs::create_symlink("loop", dir_ / snapshot("loop"));
  fs::create_symlink("../../blobs/gone", dir_ / snapshot("gone"));
  const auto files = store_.list_snapshot(kCommit);
  ASSERT_TRUE(IsOk(files));
  ASSERT_EQ(files->size(), 3U);
  EXPECT_FALSE((*files)[0].present);
  EXPECT_FALSE((*files)[1].present);
  EXPECT_EQ((*files)[2].path, "sub/f");
  EXPECT_TRUE((*files)[2].present);
  EXPECT_EQ((*files)[2].size, 6U);
}

struct Link {
  const char* name;
  const char* path;
  std::string target;
};
const Link kLinks[] = {
    {"top_level", "config.json", "../../blobs/" + kBlob},
    {"nested", "a/b/c.bin", "../../../../blobs/" + kBlob},
};
class HubPointer : public HubPublish, public ::testing::WithParamInterface<Link> {};
TEST_P(HubPointer, IsTheRelativeLinkThatHuggingfaceHubMakes) {
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  ASSERT_TRUE(IsOk(store_.publish_pointer(kCommit, spec(GetParam().path), HubStore::Blob::kStays)));
  EXPECT_EQ(posix::read_link(dir_ / snapshot(GetParam().path)), GetParam().target);
  EXPECT_EQ(dir_.read(snapshot(GetParam().path)), "hello\n");
}
INSTANTIATE_TEST_SUITE_P(Rows, HubPointer, ::testing::ValuesIn(kLinks), row_name<Link>);

TEST_F(HubPublish, PointerLeavesNoTemporary) {
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  ASSERT_TRUE(IsOk(store_.publish_pointer(kCommit, spec("f"), HubStore::Blob::kStays)));
  EXPECT_TRUE(temporaries().empty());
}

TEST_F(HubPublish, OnlyALinkToTheNamedBlobVouchesForIt) {
  dir_.write(blob_path(), "hello\n");
  ASSERT_TRUE(IsOk(store_.publish_pointer(kCommit, spec("d/f"), HubStore::Blob::kStays)));
  dir_.write(snapshot("copy"), "hello\n");
  EXPECT_TRUE(store_.links_to_blob(kCommit, spec("d/f")));
  EXPECT_FALSE(store_.links_to_blob(kCommit, spec("d/f", kOther)));
  EXPECT_FALSE(store_.links_to_blob(kCommit, spec("copy")));
  EXPECT_FALSE(store_.links_to_blob(kCommit, spec("../../blobs/" + kBlob)));
}

TEST_F(HubPublish, RightPointerIsLeftAsItIs) {
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  ASSERT_TRUE(IsOk(store_.publish_pointer(kCommit, spec("f"), HubStore::Blob::kStays)));
  struct ::stat before {};
  struct ::stat after {};
  ASSERT_EQ(::lstat((dir_ / snapshot("f")).c_str(), &before), 0);
  ASSERT_TRUE(IsOk(store_.publish_pointer(kCommit, spec("f"), HubStore::Blob::kStays)));
  ASSERT_EQ(::lstat((dir_ / snapshot("f")).c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
}

TEST_F(HubPublish, WrongPointerIsReplaced) {
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  fs::create_symlink("../../blobs/gone", dir_ / snapshot("f"));
  ASSERT_TRUE(IsOk(store_.publish_pointer(kCommit, spec("f"), HubStore::Blob::kStays)));
  EXPECT_EQ(dir_.read(snapshot("f")), "hello\n");
}

TEST_F(HubPublish, PointerToAMissingBlobIsNotMade) {
  EXPECT_TRUE(FailsWith(store_.publish_pointer(kCommit, spec("f"), HubStore::Blob::kStays),
                        ErrorCode::kInternal, "is not there"));
  EXPECT_FALSE(posix::is_link(dir_ / snapshot("f")));
}

TEST_F(HubPublish, PlantedLinkInTheSnapshotIsRefused) {
  const TempDir elsewhere;
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  fs::create_directory_symlink(elsewhere.path(), dir_ / snapshot("a"));
  EXPECT_TRUE(FailsWith(store_.publish_pointer(kCommit, spec("a/b/f"), HubStore::Blob::kStays),
                        ErrorCode::kPermission, dir_ / snapshot("a")));
  EXPECT_TRUE(fs::is_empty(elsewhere.path()));
}

TEST_F(HubPublish, HostileFileNameIsRefused) {
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  EXPECT_TRUE(FailsWith(store_.publish_pointer(kCommit, spec("../../../x"), HubStore::Blob::kStays),
                        ErrorCode::kIntegrity, "file `../../../x`"));
  EXPECT_FALSE(posix::exists(dir_ / "x"));
}

struct Refusal {
  const char* name;
  int number;
};
constexpr Refusal kRefusals[] = {
    {"eperm", EPERM}, {"eacces", EACCES}, {"eopnotsupp", EOPNOTSUPP}, {"enosys", ENOSYS}};
class HubWithoutLinks : public HubPublish, public ::testing::WithParamInterface<Refusal> {
 protected:
  void SetUp() override {
    HubPublish::SetUp();
    ASSERT_TRUE(IsOk(publish_blob("hello\n")));
    symlink_refused_with = GetParam().number;
  }
  void TearDown() override { symlink_refused_with = 0; }
};
TEST_P(HubWithoutLinks, PointerIsACopyOfTheBlob) {
  ASSERT_TRUE(IsOk(store_.publish_pointer(kCommit, spec("a/f"), HubStore::Blob::kStays)));
  EXPECT_EQ(dir_.read(snapshot("a/f")), "hello\n");
  EXPECT_FALSE(posix::is_link(dir_ / snapshot("a/f")));
  EXPECT_TRUE(store_.has_file(kCommit, spec("a/f", kBlob, 6)));
  EXPECT_TRUE(temporaries().empty());
}
TEST_P(HubWithoutLinks, CopyThatFailsLeavesNoTemporary) {
  fs::create_directories(dir_ / snapshot("f"));
  EXPECT_FALSE(store_.publish_pointer(kCommit, spec("f"), HubStore::Blob::kStays).has_value());
  EXPECT_TRUE(temporaries().empty());
}
INSTANTIATE_TEST_SUITE_P(Rows, HubWithoutLinks, ::testing::ValuesIn(kRefusals), row_name<Refusal>);

TEST_F(HubPublish, FullDiskIsNoReasonForACopy) {
  ASSERT_TRUE(IsOk(publish_blob("hello\n")));
  symlink_refused_with = ENOSPC;
  const Status status = store_.publish_pointer(kCommit, spec("f"), HubStore::Blob::kStays);
  symlink_refused_with = 0;
  EXPECT_TRUE(FailsWith(status, ErrorCode::kNoSpace));
  EXPECT_FALSE(posix::exists(dir_ / snapshot("f")));
}

// Refs

TEST_F(HubPublish, RefIsFortyBytesWithoutANewline) {
  ASSERT_TRUE(IsOk(store_.write_ref("main", kCommit)));
  EXPECT_EQ(dir_.read(kRepo + "/refs/main"), kCommit);
  EXPECT_TRUE(temporaries().empty());
}

TEST_F(HubPublish, RefOfAPullRequestLiesInFolders) {
  ASSERT_TRUE(IsOk(store_.write_ref("refs/pr/1", kCommit)));
  EXPECT_EQ(dir_.read(kRepo + "/refs/refs/pr/1"), kCommit);
}

TEST_F(HubPublish, RefThatIsRightIsNotWrittenAgain) {
  ASSERT_TRUE(IsOk(store_.write_ref("main", kCommit)));
  const auto before = posix::stat(dir_ / (kRepo + "/refs/main")).value()->inode;
  ASSERT_TRUE(IsOk(store_.write_ref("main", kCommit)));
  EXPECT_EQ(posix::stat(dir_ / (kRepo + "/refs/main")).value()->inode, before);
}

TEST_F(HubPublish, RefWithANewlineIsRepairedForPython) {
  dir_.write(kRepo + "/refs/main", kCommit + "\n");
  ASSERT_TRUE(IsOk(store_.write_ref("main", kCommit)));
  EXPECT_EQ(dir_.read(kRepo + "/refs/main"), kCommit);
}

TEST_F(HubPublish, RefMakesItsSnapshotFolderFirst) {
  ASSERT_TRUE(IsOk(store_.write_ref("main", kOther)));
  EXPECT_TRUE(fs::is_directory(dir_ / (kRepo + "/snapshots/" + kOther)));
}

TEST_F(HubPublish, RefThatLeadsOutIsRefused) {
  EXPECT_TRUE(FailsWith(store_.write_ref("../x", kCommit), ErrorCode::kIntegrity, "revision"));
  EXPECT_FALSE(posix::exists(dir_ / (kRepo + "/x")));
}

TEST_F(HubPublish, RefIsNotWrittenThroughAPlantedLink) {
  const TempDir elsewhere;
  fs::create_directory_symlink(elsewhere.path(), dir_ / (kRepo + "/refs/refs"));
  EXPECT_TRUE(FailsWith(store_.write_ref("refs/pr/1", kCommit), ErrorCode::kPermission));
  EXPECT_TRUE(fs::is_empty(elsewhere.path()));
}

TEST(HubStoreOnAFullDisk, RefIsNoSpaceAndTheOldOneStays) {
  const TinyDisk disk;
  const HubStore store(disk.dir().path(), "model", "o/n");
  ASSERT_TRUE(IsOk(store.prepare(kCommit)));
  ASSERT_TRUE(IsOk(store.write_ref("main", kCommit)));
  disk.fill();
  EXPECT_TRUE(FailsWith(store.write_ref("main", kOther), ErrorCode::kNoSpace));
  EXPECT_EQ(disk.dir().read(kRepo + "/refs/main"), kCommit);
  EXPECT_TRUE(disk.dir().files(kRepo + "/.fvprefetch").empty());
}

// Trees

std::vector<RepoFile> example_tree() {
  const std::string sha256(64, 'a');
  const std::string xet(64, 'b');
  return {{"model.safetensors", 1234, kBlob, sha256, 1234, xet},
          {"config.json", 519, kBlob, "", 0, ""},
          {"sub/\xc3\xa9.txt", 0, kBlob, "", 0, std::string(64, '*')}};
}

TEST_F(HubPublish, TreeIsByteForByteWhatHuggingfaceHubWrites) {
  ASSERT_TRUE(IsOk(store_.write_tree(kCommit, example_tree())));
  EXPECT_EQ(dir_.read(kRepo + "/trees/" + kCommit + ".json"), R"({
 "format_version": 1,
 "files": {
  "config.json": {
   "size": 519,
   "blob_id": "ce013625030ba8dba906f756967f9e9ca394464a"
  },
  "model.safetensors": {
   "size": 1234,
   "blob_id": "ce013625030ba8dba906f756967f9e9ca394464a",
   "lfs_sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
   "lfs_size": 1234,
   "xet_hash": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
  },
  "sub/\u00e9.txt": {
   "size": 0,
   "blob_id": "ce013625030ba8dba906f756967f9e9ca394464a"
  }
 }
})");
  EXPECT_TRUE(temporaries().empty());
}

TEST_F(HubPublish, TreeMayBeReadByOthers) {
  const mode_t before = ::umask(022);
  ASSERT_TRUE(IsOk(store_.write_tree(kCommit, example_tree())));
  (void)::umask(before);
  struct ::stat status {};
  ASSERT_EQ(::stat(store_.paths().tree(kCommit).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0644U);
}

TEST_F(HubPublish, TreeComesBackSorted) {
  ASSERT_TRUE(IsOk(store_.write_tree(kCommit, example_tree())));
  const auto tree = store_.read_tree(kCommit);
  ASSERT_TRUE(tree.has_value());
  ASSERT_EQ(tree->size(), 3U);
  EXPECT_EQ((*tree)[0], example_tree()[1]);
  EXPECT_EQ((*tree)[1], example_tree()[0]);
  EXPECT_EQ((*tree)[2].path, example_tree()[2].path);
  EXPECT_EQ((*tree)[2].xet_hash, "");  // what a gated repository masks is not written
}

TEST_F(HubPublish, EmptyTreeIsATree) {
  ASSERT_TRUE(IsOk(store_.write_tree(kCommit, {})));
  EXPECT_EQ(store_.read_tree(kCommit), std::vector<RepoFile>{});
}

struct Tree {
  const char* name;
  std::string text;
};
const std::string kGood = R"("size": 1, "blob_id": "abc")";
const Tree kBadTrees[] = {
    {"empty", ""},
    {"cut", R"({"format_version": 1, "files": {)"},
    {"no_object", "[]"},
    {"later_version", R"({"format_version": 2, "files": {}})"},
    {"no_version", R"({"files": {}})"},
    {"no_files", R"({"format_version": 1})"},
    {"files_as_list", R"({"format_version": 1, "files": []})"},
    {"file_as_text", R"({"format_version": 1, "files": {"a": "b"}})"},
    {"no_size", R"({"format_version": 1, "files": {"a": {"blob_id": "abc"}}})"},
    {"negative_size", R"({"format_version": 1, "files": {"a": {"size": -1, "blob_id": "abc"}}})"},
    {"no_blob", R"({"format_version": 1, "files": {"a": {"size": 1}}})"},
    {"hostile_blob", R"({"format_version": 1, "files": {"a": {"size": 1, "blob_id": "../x"}}})"},
    {"hostile_path", R"({"format_version": 1, "files": {"../a": {)" + kGood + "}}}"},
    {"absolute_path", R"({"format_version": 1, "files": {"/etc/x": {)" + kGood + "}}}"},
    {"bad_sha256",
     R"({"format_version": 1, "files": {"a": {)" + kGood + R"(, "lfs_sha256": "abc"}}})"},
    {"masked_xet_hash",
     R"({"format_version": 1, "files": {"a": {)" + kGood + R"(, "xet_hash": "****"}}})"},
};
class BadTree : public HubStoreTest, public ::testing::WithParamInterface<Tree> {};
TEST_P(BadTree, CountsAsAbsent) {
  dir_.write(kRepo + "/trees/" + kCommit + ".json", GetParam().text);
  EXPECT_EQ(store_.read_tree(kCommit), std::nullopt);
}
INSTANTIATE_TEST_SUITE_P(Rows, BadTree, ::testing::ValuesIn(kBadTrees), row_name<Tree>);

}  // namespace
}  // namespace fvprefetch
