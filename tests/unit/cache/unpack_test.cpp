// Archives are made here by libarchive, with names and links that no honest program would write.
#include "cache/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <clocale>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <utility>
#include <vector>

#include "support/matchers.h"
#include "support/temp_dir.h"

namespace fvprefetch {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::TempDir;
namespace fs = std::filesystem;

struct Member {
  std::string name;
  std::string data;
  mode_t type = AE_IFREG;
  std::string link;  ///< its target; of AE_IFREG: a hard one
  mode_t mode = 0644;
};

Member file(std::string name, std::string data = "1", mode_t mode = 0644) {
  return {std::move(name), std::move(data), AE_IFREG, "", mode};
}
Member link(std::string name, std::string target) {
  return {std::move(name), "", AE_IFLNK, std::move(target), 0777};
}
Member hard_link(std::string name, std::string target) {
  return {std::move(name), "", AE_IFREG, std::move(target), 0644};
}
Member other(std::string name, mode_t type) {
  return {std::move(name), "", type, "", 0755};
}

UnpackOptions stripping(std::uint64_t components) {
  UnpackOptions options;
  options.strip_components = components;
  return options;
}

enum class Form { kZip, kTar, kTarGz, kTarXz, kTarZst };

void choose(archive* writer, Form form) {
  if (form == Form::kZip) {
    archive_write_set_format_zip(writer);
    return;
  }
  archive_write_set_format_pax_restricted(writer);
  if (form == Form::kTarGz) archive_write_add_filter_gzip(writer);
  if (form == Form::kTarXz) archive_write_add_filter_xz(writer);
  if (form == Form::kTarZst) archive_write_add_filter_zstd(writer);
}

// An archive at `path`, which lies in `dir`.
void make_archive(const std::string& path, Form form, const std::vector<Member>& members,
                  const std::function<void(archive*)>& more = {}) {
  const std::string before = std::setlocale(LC_CTYPE, nullptr);
  std::setlocale(LC_CTYPE, "C.UTF-8");  // to write; the command that reads runs without
  archive* const writer = archive_write_new();
  choose(writer, form);
  if (more) more(writer);
  ASSERT_EQ(archive_write_open_filename(writer, path.c_str()), ARCHIVE_OK);
  for (const Member& member : members) {
    archive_entry* const entry = archive_entry_new();
    archive_entry_copy_pathname(entry, member.name.c_str());
    archive_entry_set_filetype(entry, member.type);
    archive_entry_set_perm(entry, member.mode);
    if (member.type == AE_IFLNK) {
      archive_entry_copy_symlink(entry, member.link.c_str());
    } else if (!member.link.empty()) {
      archive_entry_copy_hardlink(entry, member.link.c_str());
    }
    archive_entry_set_size(entry, static_cast<la_int64_t>(member.data.size()));
    ASSERT_EQ(archive_write_header(writer, entry), ARCHIVE_OK)
        << member.name << ": " << archive_error_string(writer);
    archive_write_data(writer, member.data.data(), member.data.size());
    archive_entry_free(entry);
  }
  ASSERT_EQ(archive_write_close(writer), ARCHIVE_OK);
  archive_write_free(writer);
  std::setlocale(LC_CTYPE, before.c_str());
}

Result<std::vector<ReceiptFile>> unpack_file(const std::string& path, const std::string& to,
                                             const UnpackOptions& options = {}) {
  const auto fd = posix::open_read(path);
  if (!fd) return fail(fd.error());
  return unpack(*fd, "x.archive", to, options);
}

// Of a tar's first header, with blanks in the sum's own place.
void set_checksum(std::string& bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < 512; ++i) {
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(bytes[i]);
  }
  std::array<char, 8> octal{};
  std::snprintf(octal.data(), octal.size(), "%06o", sum & 0777777U);
  bytes.replace(148, 7, octal.data(), 7);
}

class Unpack : public ::testing::Test {
 protected:
  Result<std::vector<ReceiptFile>> run(const std::vector<Member>& members,
                                       UnpackOptions options = {}, Form form = Form::kTar) {
    fs::remove_all(dir_ / "out");
    make_archive(dir_ / "archive", form, members);
    return unpack_file(dir_ / "archive", dir_ / "out", options);
  }
  void refuses(const std::vector<Member>& members, const std::string& why) {
    EXPECT_TRUE(FailsWith(run(members), ErrorCode::kIntegrity, why));
  }

  const TempDir dir_;
};

std::vector<Member> honest() {
  return {other("top/", AE_IFDIR), file("top/hubconf.py", "dependencies = []\n"),
          file("top/a/deep/w.bin", std::string(100'000, 'w')), file("top/empty", "")};
}

class EveryForm : public ::testing::TestWithParam<Form> {};

TEST_P(EveryForm, IsUnpackedWithSizesAndDigests) {
  const TempDir dir;
  make_archive(dir / "archive", GetParam(), honest());
  const auto files = unpack_file(dir / "archive", dir / "out");
  ASSERT_TRUE(IsOk(files));
  ASSERT_EQ(files->size(), 3U);
  EXPECT_EQ(files->at(0).path, "top/a/deep/w.bin");
  EXPECT_EQ(files->at(0).size, 100'000U);
  EXPECT_EQ(files->at(0).sha256, sha256_hex(std::string(100'000, 'w')));
  EXPECT_EQ(files->at(1).path, "top/empty");
  EXPECT_EQ(files->at(2).sha256, sha256_hex("dependencies = []\n"));
  EXPECT_EQ(dir.read("out/top/hubconf.py"), "dependencies = []\n");
  EXPECT_EQ(dir.files("out"),
            (std::vector<std::string>{"top/a/deep/w.bin", "top/empty", "top/hubconf.py"}));
}

TEST_P(EveryForm, CutShortIsRefused) {
  const TempDir dir;
  std::string noise(300'000, '\0');
  std::uint32_t state = 1;
  for (char& c : noise) c = static_cast<char>((state = state * 1664525U + 1013904223U) >> 24U);
  make_archive(dir / "archive", GetParam(), {file("noise", noise)});
  fs::resize_file(dir / "archive", fs::file_size(dir / "archive") / 2);
  EXPECT_TRUE(FailsWith(unpack_file(dir / "archive", dir / "out"), ErrorCode::kIntegrity,
                        "x.archive is broken or cut short"));
}

INSTANTIATE_TEST_SUITE_P(Forms, EveryForm,
                         ::testing::Values(Form::kZip, Form::kTar, Form::kTarGz, Form::kTarXz,
                                           Form::kTarZst));

TEST_F(Unpack, StripsLeadingFoldersAndLeavesOutWhatIsNotThatDeep) {
  std::vector<Member> members = honest();
  members.push_back(file("README", "x"));
  ASSERT_TRUE(IsOk(run(members, stripping(1))));
  EXPECT_EQ(dir_.files("out"), (std::vector<std::string>{"a/deep/w.bin", "empty", "hubconf.py"}));
}

TEST_F(Unpack, StrippingEverythingIsTheManifestsMistake) {
  EXPECT_TRUE(FailsWith(run(honest(), stripping(9)), ErrorCode::kUsage,
                        "strip_components 9 leaves no file"));
}

TEST_F(Unpack, NamesWithDotsAndSlashesToSpareAreTheirOwn) {
  ASSERT_TRUE(IsOk(run({other("./", AE_IFDIR), file("./a//b/./c")})));
  EXPECT_EQ(dir_.files("out"), std::vector<std::string>{"a/b/c"});
}

TEST_F(Unpack, NamesInUtf8StayWhatTheyAre) {
  for (const Form form : {Form::kZip, Form::kTar}) {
    const auto files = run({file("modèle/重み.bin")}, {}, form);
    ASSERT_TRUE(IsOk(files));
    EXPECT_EQ(files->front().path, "modèle/重み.bin");
    EXPECT_EQ(dir_.read("out/modèle/重み.bin"), "1");
  }
}

TEST_F(Unpack, TakesOverThatAFileIsToRunAndNoOtherMode) {
  ASSERT_TRUE(IsOk(run({file("run", "1", 06755), file("read", "1", 0400)})));
  struct ::stat status {};
  ASSERT_EQ(::stat((dir_ / "out/run").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07700U, 0700U);
  ASSERT_EQ(::stat((dir_ / "out/read").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07700U, 0600U);
}

TEST_F(Unpack, LinksInsideTheArchiveAreMade) {
  const auto files =
      run({link("t/latest", "v/1/../2"), file("t/v/2/w", "two"), file("t/v/1/w", "one"),
           link("t/up", "v/2/../../latest/w"), link("t/nowhere", "not-there")},
          stripping(1));
  ASSERT_TRUE(IsOk(files));
  EXPECT_EQ(dir_.read("out/latest/w"), "two");
  EXPECT_EQ(dir_.read("out/up"), "two");
  EXPECT_EQ(files->front().path, "latest");
  EXPECT_EQ(files->front().link, "v/1/../2");
}

TEST_F(Unpack, AHardLinkBecomesAFileOfItsOwn) {
  const auto files = run({file("t/a", "one"), hard_link("t/b", "t/a")}, stripping(1));
  ASSERT_TRUE(IsOk(files));
  EXPECT_EQ(dir_.read("out/b"), "one");
  EXPECT_EQ(files->at(1).sha256, sha256_hex("one"));
  EXPECT_EQ(fs::hard_link_count(dir_ / "out/a"), 1U);
}

TEST_F(Unpack, RefusesNamesThatLeadOut) {
  refuses({file("/etc/x")}, "`/etc/x` of x.archive has an absolute name");
  refuses({file("a/../../x")}, "`a/../../x` of x.archive has a name that has a \"..\"");
  refuses({other("..", AE_IFDIR)}, "has a name that has a \"..\"");
  refuses({file("a\\..\\x")}, "has a name that has a \"..\"");
  refuses({file("a\nb")}, "`a\\nb` of x.archive has a name that has a control");
  refuses({file(std::string(300, 'n'))}, "more than 255 bytes");
  refuses({file("a/.fvprefetch/locks/x")}, "private files");
  refuses({file(".x.00c0ffee.fvprefetch-part")}, "private files");
  EXPECT_FALSE(fs::exists(dir_ / "x"));
  EXPECT_EQ(dir_.files(), std::vector<std::string>{"archive"});
}

TEST_F(Unpack, RefusesTheSameInWhatIsStripped) {
  EXPECT_TRUE(FailsWith(run({file("../x/w")}, stripping(2)), ErrorCode::kIntegrity, "\"..\""));
}

TEST_F(Unpack, RefusesLinksThatLeadOut) {
  refuses({link("a", "/etc/passwd")},
          "`a` of x.archive is a link to `/etc/passwd`, which leads out");
  refuses({link("d/a", "../../x")}, "leads out");
  refuses({link("d/e/up", "../.."), link("a", "d/e/up/../x")}, "leads out");
  refuses({link("d/e/up", "../.."), link("b", "d/e/up/b")}, "circle");
  refuses({link("a", "b"), link("b", "a")}, "circle");
}

TEST_F(Unpack, ALinkThatStripCutsLooseLeadsOut) {
  EXPECT_TRUE(FailsWith(run({file("t/w"), link("t/a", "../t/w")}, stripping(1)),
                        ErrorCode::kIntegrity, "leads out"));
}

TEST_F(Unpack, RefusesHardLinksToWhatTheArchiveHasNot) {
  refuses({hard_link("a", "/etc/passwd")}, "is a hard link to `/etc/passwd`");
  refuses({hard_link("a", "../archive")}, "is a hard link to");
  refuses({link("l", "b"), hard_link("a", "l")}, "is a hard link to `l`");
}

TEST_F(Unpack, RefusesToWriteThroughWhatItMade) {
  refuses({link("l", "."), file("l/x")},
          "`l/x` of x.archive lies below `l`, which the archive makes a link");
  refuses({file("f"), file("f/x")}, "which is a file");
  refuses({file("f"), file("./f", "2")}, "twice");
  refuses({link("l", "x"), file("l", "2")}, "twice");
  refuses({file("d/f"), file("d", "2")}, "twice");
  refuses({file("f"), other("f", AE_IFDIR)}, "folder");
}

TEST_F(Unpack, RefusesDevicesAndTheirLike) {
  refuses({other("null", AE_IFCHR)}, "`null` of x.archive is a device");
  refuses({other("disk", AE_IFBLK)}, "is a device");
  refuses({other("pipe", AE_IFIFO)}, "FIFO");
}

TEST_F(Unpack, RefusesANameThatIsNotUtf8) {
  make_archive(dir_ / "archive", Form::kTar, {file("name-of-8")});
  std::string bytes = dir_.read("archive");
  bytes.replace(bytes.find("name-of-8"), 4,
                "n\xff\xfe"
                "e");
  set_checksum(bytes);
  dir_.write("archive", bytes);
  EXPECT_TRUE(
      FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity, "not UTF-8"));
}

TEST_F(Unpack, RefusesEncryptedMembers) {
  make_archive(dir_ / "archive", Form::kZip, {file("secret", "1234")}, [](archive* writer) {
    archive_write_set_options(writer, "zip:encryption=zipcrypt");
    archive_write_set_passphrase(writer, "x");
  });
  EXPECT_TRUE(FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity,
                        "`secret` of x.archive is encrypted"));
}

TEST_F(Unpack, RefusesWhatIsNoArchive) {
  dir_.write("archive", std::string(5000, 'x'));
  EXPECT_TRUE(FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity,
                        "neither zip nor tar"));
  dir_.write("archive", "");
  EXPECT_TRUE(FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity));
  refuses({}, "has no members");
}

TEST_F(Unpack, RefusesAWrongChecksum) {
  make_archive(dir_ / "archive", Form::kZip, {file("w", std::string(5000, 'w'))},
               [](archive* writer) { archive_write_set_options(writer, "zip:compression=store"); });
  std::string bytes = dir_.read("archive");
  bytes[bytes.find("wwww") + 1000] = 'v';
  dir_.write("archive", bytes);
  EXPECT_TRUE(FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity,
                        "while unpacking `w`: x.archive is broken"));
}

TEST_F(Unpack, RefusesAGzipWhoseChecksumOrLengthIsAnother) {
  make_archive(dir_ / "archive", Form::kTarGz, {file("w", std::string(5000, 'w'))});
  const std::string whole = dir_.read("archive");
  for (const std::size_t from_end : {8U, 5U, 4U, 1U}) {
    std::string bytes = whole;
    bytes[bytes.size() - from_end] ^= 1;
    dir_.write("archive", bytes);
    EXPECT_TRUE(FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity,
                          "x.archive is broken or cut short: incorrect"));
    fs::remove_all(dir_ / "out");
  }
}

TEST_F(Unpack, ReadsEveryMemberOfAGzipAndNothingBehindIt) {
  make_archive(dir_ / "archive", Form::kTarGz, {file("a", std::string(5000, 'a'))});
  const std::string first = dir_.read("archive");
  make_archive(dir_ / "archive", Form::kTarGz, {file("b", std::string(5000, 'b'))});
  const std::string second = dir_.read("archive");
  dir_.write("archive", first + second + std::string(99, '\0'));
  const auto files = unpack_file(dir_ / "archive", dir_ / "out");
  ASSERT_TRUE(IsOk(files));
  EXPECT_EQ(dir_.files("out"), (std::vector<std::string>{"a", "b"}));
  for (const std::string& behind : {std::string("garbage"), std::string("\0\x1f\x8b", 3)}) {
    fs::remove_all(dir_ / "out");
    dir_.write("archive", first + second + behind);
    EXPECT_TRUE(FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity,
                          "other bytes are behind the end"));
  }
}

TEST_F(Unpack, ATarWithoutTheZerosAtItsEndMustBePinned) {
  make_archive(dir_ / "archive", Form::kTar, {file("a", std::string(512, 'a')), file("b")});
  std::string bytes = dir_.read("archive");
  bytes.resize(1024);
  dir_.write("archive", bytes);
  EXPECT_TRUE(FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity,
                        "zeros at a tar's end are missing"));
  fs::remove_all(dir_ / "out");
  UnpackOptions pinned;
  pinned.pinned = true;
  ASSERT_TRUE(IsOk(unpack_file(dir_ / "archive", dir_ / "out", pinned)));
  fs::remove_all(dir_ / "out");
  bytes.resize(1536);  // one block of zeros
  dir_.write("archive", bytes.replace(1024, 512, std::string(512, '\0')));
  ASSERT_TRUE(IsOk(unpack_file(dir_ / "archive", dir_ / "out")));
}

TEST_F(Unpack, RefusesAFifoInAZip) {
  make_archive(dir_ / "archive", Form::kZip, {file("pipe")});
  std::string bytes = dir_.read("archive");
  const std::size_t mode = bytes.rfind("PK\x01\x02") + 40;
  bytes[mode + 1] = static_cast<char>((S_IFIFO | 0644U) >> 8U);
  dir_.write("archive", bytes);
  EXPECT_TRUE(FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity,
                        "`pipe` of x.archive is a device, a FIFO or a socket"));
  EXPECT_FALSE(fs::exists(dir_ / "out"));
}

TEST_F(Unpack, RefusesABombBeforeItIsLarge) {
  make_archive(dir_ / "archive", Form::kTar, {file("zeros")});
  std::string bytes = dir_.read("archive");
  bytes.replace(124, 11, "17777777777");  // 2 GiB - 1, says its header
  set_checksum(bytes);
  dir_.write("archive", bytes);
  EXPECT_TRUE(FailsWith(unpack_file(dir_ / "archive", dir_ / "out"), ErrorCode::kIntegrity,
                        "over the bound of 1073741824"));
  EXPECT_FALSE(fs::exists(dir_ / "out"));
}

TEST_F(Unpack, WhatThereIsNoRoomForIsNotBegunWhereSizesAreTold) {
  UnpackOptions little;
  little.room = 1000;
  EXPECT_TRUE(FailsWith(run(honest(), little, Form::kZip), ErrorCode::kNoSpace, "1000 free"));
  EXPECT_FALSE(fs::exists(dir_ / "out"));
  EXPECT_TRUE(FailsWith(run(honest(), little, Form::kTarGz), ErrorCode::kNoSpace, "1000 free"));
}

TEST_F(Unpack, TellsHowMuchIsWritten) {
  std::uint64_t told = 0;
  UnpackOptions options;
  options.meter = [&told](std::uint64_t bytes) { told += bytes; };
  ASSERT_TRUE(IsOk(run({file("a", "12345"), hard_link("b", "a"), file("c", "67")}, options)));
  EXPECT_EQ(told, 12U);
}

TEST_F(Unpack, EndsWhenItIsToldTo) {
  UnpackOptions options;
  options.must_stop = [] { return interrupted(15); };
  const auto stopped = run(honest(), options);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(exit_code(stopped.error().code), 143);
}

TEST_F(Unpack, RefusesALinkWithATextThatIsTooLongForOne) {
  std::string text;
  while (text.size() < PATH_MAX) text += "a/";
  refuses({file("a/b"), link("a/long", text)},
          "member `a/long` of x.archive is a link with a text");
  text.resize(PATH_MAX - 1);
  ASSERT_TRUE(IsOk(run({file("a/b"), link("a/long", text)})));
}

TEST_F(Unpack, LinksThatLeadThroughManyOthersAreFollowedOnce) {
  std::vector<Member> members{file("place/w")};
  // Each leads through the one before it, and the last through as many as the kernel follows.
  members.push_back(link("l0", "place"));
  for (int i = 1; i < 40; ++i) {
    members.push_back(link("l" + std::to_string(i), "./l" + std::to_string(i - 1)));
  }
  ASSERT_TRUE(IsOk(run(members)));
  EXPECT_EQ(dir_.read("out/l39/w"), "1");
  members.push_back(link("l40", "l39"));
  refuses(members, "leads in a circle");
}

class StopEverywhere : public ::testing::TestWithParam<Form> {};

TEST_P(StopEverywhere, IsHeededAndTakenForNothingElse) {
  const TempDir dir;
  std::vector<Member> members = honest();
  members.push_back(link("top/l", "a/deep"));
  members.push_back(file("skipped", std::string(5'000'000, 's')));
  if (GetParam() != Form::kZip) members.push_back(hard_link("top/again", "top/a/deep/w.bin"));
  make_archive(dir / "archive", GetParam(), members);
  constexpr int kMore = 1000;  // looks than there are
  for (int looks = 0; looks < kMore; ++looks) {
    fs::remove_all(dir / "out");
    int left = looks;
    UnpackOptions options = stripping(1);
    options.must_stop = [&left]() -> std::optional<Error> {
      if (left-- > 0) return std::nullopt;
      return interrupted(15);
    };
    const auto files = unpack_file(dir / "archive", dir / "out", options);
    if (files) {
      EXPECT_GT(looks, 10);
      return;
    }
    ASSERT_EQ(exit_code(files.error().code), 143) << looks << ": " << describe(files.error());
  }
  FAIL() << "it does not end";
}

INSTANTIATE_TEST_SUITE_P(Unpack, StopEverywhere,
                         ::testing::Values(Form::kZip, Form::kTar, Form::kTarGz, Form::kTarXz,
                                           Form::kTarZst));

// Between two looks there is a bounded piece of work, however large the members are.
TEST_F(Unpack, LooksWhetherToStopWithinWhatItSkipsCopiesOrLinks) {
  constexpr std::size_t kLarge = 64U << 20U;
  int looks = 0;
  UnpackOptions options = stripping(1);
  options.must_stop = [&looks]() -> std::optional<Error> {
    ++looks;
    return std::nullopt;
  };
  const std::string large(kLarge, 'x');
  ASSERT_TRUE(IsOk(run({file("top/a"), file("left_out", large)}, options, Form::kTarZst)));
  EXPECT_GT(looks, 64);

  looks = 0;
  ASSERT_TRUE(IsOk(run({file("top/a")}, options)));
  const int without = looks;
  std::vector<Member> members{file("top/a")};
  for (int i = 0; i < 100; ++i) members.push_back(link("top/l" + std::to_string(i), "a"));
  looks = 0;
  ASSERT_TRUE(IsOk(run(members, options)));
  EXPECT_GE(looks, without + 300);  // read, followed and made
}

}  // namespace
}  // namespace fvprefetch
