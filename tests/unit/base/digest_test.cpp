#include "base/digest.h"

#include <gtest/gtest.h>

#include <csignal>

#include "support/matchers.h"
#include "support/temp_dir.h"

namespace fvprefetch {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::row_name;
using testing::TempDir;

constexpr char kSha256OfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Digest, Sha256OfAbcIsTheStandardsExample) {
  EXPECT_EQ(sha256_hex("abc"), kSha256OfAbc);
}

TEST(Digest, GitHashOfAnEmptyFileIsGits) {
  EXPECT_EQ(git_sha1_hex(""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
}

TEST(Digest, GitHashOfHelloIsGits) {
  EXPECT_EQ(git_sha1_hex("hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
}

TEST(Digest, PiecesHashAsTheWhole) {
  Hasher hasher(Digest::Kind::kSha256, 3);
  const std::string text = "abc";
  hasher.update(std::as_bytes(std::span(text.data(), 1)));
  hasher.update({});
  hasher.update(std::as_bytes(std::span(text.data() + 1, 2)));
  EXPECT_EQ(hasher.finish(), kSha256OfAbc);
}

TEST(Digest, SpentHasherYieldsADigestThatAgreesWithNothing) {
  Hasher hasher(Digest::Kind::kSha256, 0);
  (void)hasher.finish();
  EXPECT_EQ(hasher.finish(), "");
}

TEST(Digest, FileHashesAsItsBytesOverSeveralReads) {
  const TempDir dir;
  const std::string text(9U << 20U, 'x');  // more than two pieces
  const auto hash = hash_file(dir.write("f", text), Digest::Kind::kGitSha1, {});
  ASSERT_TRUE(IsOk(hash));
  EXPECT_EQ(hash->hex, git_sha1_hex(text));
  EXPECT_EQ(hash->info.size, text.size());
}

TEST(Digest, MissingFileIsNotFound) {
  const TempDir dir;
  EXPECT_TRUE(FailsWith(hash_file(dir / "none", Digest::Kind::kSha256, {}), ErrorCode::kNotFound,
                        dir / "none"));
}

TEST(Digest, HashingAFileEndsBetweenTwoPiecesWhenItHasTo) {
  const TempDir dir;
  const std::string path = dir.write("f", std::string(9U << 20U, 'x'));
  int asked = 0;
  const auto hash = hash_file(path, Digest::Kind::kSha256, [&]() -> std::optional<Error> {
    if (++asked < 2) return std::nullopt;
    return interrupted(SIGTERM);
  });
  ASSERT_FALSE(hash.has_value());
  EXPECT_EQ(exit_code(hash.error().code), 128 + SIGTERM);
  EXPECT_EQ(asked, 2);
}

TEST(Digest, AFileThatIsWrittenToWhileItIsReadIsReadAgain) {
  const TempDir dir;
  const std::string path = dir.write("f", std::string(5U << 20U, 'x'));
  int asked = 0;
  const auto hash = hash_file(path, Digest::Kind::kSha256, [&]() -> std::optional<Error> {
    if (++asked == 2) dir.append("f", "y");  // after the first piece
    return std::nullopt;
  });
  ASSERT_TRUE(IsOk(hash));
  EXPECT_EQ(hash->hex, sha256_hex(std::string(5U << 20U, 'x') + "y"));

  const auto never = hash_file(path, Digest::Kind::kSha256, [&]() -> std::optional<Error> {
    dir.append("f", "z");
    return std::nullopt;
  });
  EXPECT_TRUE(FailsWith(never, ErrorCode::kInternal, "being written to"));
}

struct Agreement {
  const char* name;
  Digest::Kind kind;
  std::string expected;
  std::string actual;
  bool agrees;
};
const std::string kFull(kSha256OfAbc);
const std::string kGit = "ce013625030ba8dba906f756967f9e9ca394464a";
const Agreement kAgreements[] = {
    {"the_same_sha256", Digest::Kind::kSha256, kFull, kFull, true},
    {"upper_case_in_a_manifest", Digest::Kind::kSha256, "BA7816BF8F01", kFull, true},
    {"a_prefix_of_eight_digits", Digest::Kind::kSha256, "ba7816bf", kFull, true},
    {"a_prefix_of_seven_says_too_little", Digest::Kind::kSha256, "ba7816b", kFull, false},
    {"another_prefix", Digest::Kind::kSha256, "ba7816be", kFull, false},
    {"the_end_is_no_prefix", Digest::Kind::kSha256, "f20015ad", kFull, false},
    {"more_digits_than_there_are", Digest::Kind::kSha256, kFull + "00", kFull, false},
    {"no_expectation_at_all", Digest::Kind::kSha256, "", kFull, false},
    {"not_hex", Digest::Kind::kSha256, "ba7816bz", kFull, false},
    {"no_digest_could_be_made", Digest::Kind::kSha256, kFull, "", false},
    {"neither_is_there", Digest::Kind::kSha256, "", "", false},
    {"the_same_git_hash", Digest::Kind::kGitSha1, kGit, kGit, true},
    {"git_hashes_have_no_prefixes", Digest::Kind::kGitSha1, kGit.substr(0, 12), kGit, false},
};

class DigestAgreement : public ::testing::TestWithParam<Agreement> {};

TEST_P(DigestAgreement, IsAsTheRowSays) {
  const Agreement& row = GetParam();
  EXPECT_EQ(agrees(Digest{row.kind, row.expected}, row.actual), row.agrees);
}

INSTANTIATE_TEST_SUITE_P(Rows, DigestAgreement, ::testing::ValuesIn(kAgreements),
                         row_name<Agreement>);

TEST(Digest, HexIsLowerCaseDigitsOnly) {
  EXPECT_TRUE(is_hex("0123456789abcdef"));
  EXPECT_FALSE(is_hex(""));
  EXPECT_FALSE(is_hex("ABC"));
  EXPECT_FALSE(is_hex("0x1"));
}

}  // namespace
}  // namespace fvprefetch
