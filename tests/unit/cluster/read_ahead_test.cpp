#include "cluster/read_ahead.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "support/temp_dir.h"

namespace fvprefetch {
namespace {

using fvprefetch::testing::TempDir;

class ReadAheadTest : public ::testing::Test {
 protected:
  void has(const std::string& name, const std::string& bytes, std::uint64_t size) {
    dir_.write(name, bytes);
    files_.push_back({dir_ / name, size});
  }

  static std::string text(const std::optional<Result<std::vector<std::byte>>>& read) {
    if (!read) return "(not read)";
    if (!*read) return "(" + (*read).error().message + ")";
    return {reinterpret_cast<const char*>((*read)->data()), (*read)->size()};
  }

  TempDir dir_;
  std::vector<ReadAhead::File> files_;
};

TEST_F(ReadAheadTest, GivesTheFilesInTheirOrder) {
  for (int i = 0; i < 500; ++i) {
    const std::string bytes(static_cast<std::size_t>(i), static_cast<char>('a' + i % 26));
    has(std::to_string(i), bytes, bytes.size());
  }
  ReadAhead ahead(files_);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(text(ahead.next()),
              std::string(static_cast<std::size_t>(i), static_cast<char>('a' + i % 26)));
  }
}

TEST_F(ReadAheadTest, LeavesLargeFilesAndThoseOfUnknownSizeToTheCaller) {
  has("first", "1", 1);
  files_.push_back({dir_ / "large", ReadAhead::kSmall + 1});  // nobody looks whether it is there
  has("second", "2", 1);
  files_.push_back({dir_ / "unknown", std::nullopt});
  has("third", "3", 1);
  ReadAhead ahead(files_);
  EXPECT_EQ(text(ahead.next()), "1");
  EXPECT_EQ(text(ahead.next()), "(not read)");
  EXPECT_EQ(text(ahead.next()), "2");
  EXPECT_EQ(text(ahead.next()), "(not read)");
  EXPECT_EQ(text(ahead.next()), "3");
}

TEST_F(ReadAheadTest, GivesTheErrorOfAFileInItsPlace) {
  has("first", "1", 1);
  files_.push_back({dir_ / "gone", 7});
  has("second", "2", 1);
  ReadAhead ahead(files_);
  EXPECT_EQ(text(ahead.next()), "1");
  const auto gone = ahead.next();
  ASSERT_TRUE(gone);
  ASSERT_FALSE(*gone);
  EXPECT_EQ((*gone).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(text(ahead.next()), "2");
}

TEST_F(ReadAheadTest, AFileOfAnotherSizeIsNotCutToFit) {
  has("longer", "four", 3);
  has("shorter", "four", 5);
  has("exact", "four", 4);
  ReadAhead ahead(files_);
  EXPECT_EQ((*ahead.next())->size(), 4U);
  EXPECT_EQ((*ahead.next())->size(), 4U);
  EXPECT_EQ((*ahead.next())->size(), 4U);
}

TEST_F(ReadAheadTest, MayBeGivenUpBeforeAllIsTaken) {
  for (int i = 0; i < 200; ++i) has(std::to_string(i), "x", 1);
  ReadAhead ahead(files_);
  EXPECT_EQ(text(ahead.next()), "x");
}

TEST_F(ReadAheadTest, OfNothing) {
  ReadAhead ahead({});
}

}  // namespace
}  // namespace fvprefetch
