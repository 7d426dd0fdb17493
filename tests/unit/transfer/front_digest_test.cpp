// The digest that follows a file, on a thread as it really is: what it says must not depend on who
// was faster.
#include "transfer/front_digest.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "support/matchers.h"
#include "support/temp_dir.h"

namespace fvprefetch {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::TempDir;

class FrontDigestTest : public ::testing::Test {
 protected:
  FrontDigestTest() : path(dir / "file"), fd(posix::create_private(path).value()) {}

  void write(std::uint64_t offset, const std::string& text) {
    const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
    ASSERT_TRUE(IsOk(posix::write_at(fd, offset, bytes, path)));
  }
  std::unique_ptr<FrontDigest> follow(Digest::Kind kind, std::uint64_t size) {
    return std::make_unique<FrontDigest>(*worker, posix::duplicate(fd, path).value(), path, kind,
                                         size);
  }
  Result<std::string> finish(FrontDigest& digest, std::uint64_t size) {
    for (;;) {
      if (auto hex = digest.finish(size)) return *std::move(hex);
      worker->wait(Clock::TimePoint::max(), {});
    }
  }

  TempDir dir;
  std::string path;
  posix::Fd fd;
  std::unique_ptr<Worker> worker = make_worker();
};

TEST_F(FrontDigestTest, IsThatOfTheWholeFileHoweverItGrew) {
  std::string all;
  const auto digest = follow(Digest::Kind::kSha256, 0);
  for (int i = 0; i < 50; ++i) {
    const std::string piece(100'003, static_cast<char>('a' + i % 26));
    write(all.size(), piece);
    all += piece;
    digest->advance(all.size());
  }
  EXPECT_EQ(finish(*digest, all.size()), sha256_hex(all));
}

TEST_F(FrontDigestTest, DoesNotReadAgainWhatItMayKeep) {
  const std::string in_file(9'000'000, 'f');
  write(0, in_file);
  const auto digest = follow(Digest::Kind::kSha256, 0);
  std::string hashed = in_file;
  std::weak_ptr<const std::string> last;
  // There is something to read before, between and behind them.
  for (const std::uint64_t at : {100'000U, 2'000'000U, 3'000'000U, 7'000'000U}) {
    const auto kept = std::make_shared<const std::string>(1'000'000, 'k');
    digest->take(at, {std::as_bytes(std::span(*kept)), kept});
    digest->advance(at + kept->size());
    hashed.replace(at, kept->size(), *kept);
    last = kept;
  }
  digest->take(8'000'000, {std::as_bytes(std::span(in_file)).first(1'000), nullptr});
  EXPECT_EQ(finish(*digest, hashed.size()), sha256_hex(hashed));
  EXPECT_TRUE(last.expired());
}

TEST_F(FrontDigestTest, NeedsNoAdvanceBeforeTheEnd) {
  const std::string all(3'000'001, 'x');
  write(0, all);
  EXPECT_EQ(finish(*follow(Digest::Kind::kGitSha1, all.size()), all.size()), git_sha1_hex(all));
}

TEST_F(FrontDigestTest, OfAnEmptyFile) {
  EXPECT_EQ(finish(*follow(Digest::Kind::kSha256, 0), 0), sha256_hex(""));
}

TEST_F(FrontDigestTest, FailsWhenTheFileIsShorter) {
  write(0, "short");
  EXPECT_TRUE(FailsWith(finish(*follow(Digest::Kind::kSha256, 0), 6), ErrorCode::kInternal));
}

TEST_F(FrontDigestTest, OfOneFileDoesNotWaitForTheWholeOfAnother) {
  constexpr std::uint64_t kHuge = 1ULL << 40U;  // an hour's worth; no blocks on the disk
  ASSERT_TRUE(IsOk(posix::truncate(fd, kHuge, path)));
  const auto huge = follow(Digest::Kind::kSha256, 0);
  huge->advance(kHuge);
  write(0, "small");
  EXPECT_EQ(finish(*follow(Digest::Kind::kSha256, 0), 5), sha256_hex("small"));
}

TEST_F(FrontDigestTest, MayBeGivenUpWhileItIsMade) {
  constexpr std::uint64_t kHuge = 1ULL << 40U;
  ASSERT_TRUE(IsOk(posix::truncate(fd, kHuge, path)));
  follow(Digest::Kind::kSha256, 0)->advance(kHuge);
  worker.reset();
}

}  // namespace
}  // namespace fvprefetch
