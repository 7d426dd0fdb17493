#include "cache/receipt.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "support/matchers.h"
#include "support/temp_dir.h"

namespace fvprefetch {
namespace {

using testing::IsOk;
using testing::row_name;
using testing::TempDir;

Receipt full_receipt() {
  Receipt receipt;
  receipt.source = "o/n";
  receipt.source_key = std::string(64, 'a');
  receipt.revision = "main";
  receipt.commit = std::string(40, 'c');
  receipt.resolved_at = "2026-11-24T08:14:26Z";
  receipt.files = {{"a/b.bin", 1U << 20U, "blob", std::string(64, 'd'), 0, ""},
                   {"c.json", 0, "", "", -1'234'567'890'123, ""},
                   {"latest", 0, "", "", 0, "a/b.bin"}};
  receipt.archive = ReceiptArchive{std::string(64, 'e'), 1234, 1};
  return receipt;
}

TEST(Receipt, ComesBackAsItWasWritten) {
  const TempDir dir;
  ASSERT_TRUE(IsOk(write_receipt(dir / "tmp/t", dir / "receipts/r.json", full_receipt())));
  const auto read = read_receipt(dir / "receipts/r.json");
  ASSERT_TRUE(read.has_value());
  Receipt expected = full_receipt();
  expected.id = read->id;
  expected.written_at = read->written_at;
  EXPECT_EQ(*read, expected);
  EXPECT_EQ(read->id.size(), 32U);
  EXPECT_FALSE(read->written_at.empty());
}

TEST(Receipt, WritingLeavesNoPrivateFile) {
  const TempDir dir;
  ASSERT_TRUE(IsOk(write_receipt(dir / "tmp/t", dir / "r.json", full_receipt())));
  EXPECT_EQ(dir.files(), std::vector<std::string>{"r.json"});
}

TEST(Receipt, EveryPublicationHasAnIdOfItsOwn) {
  const TempDir dir;
  ASSERT_TRUE(IsOk(write_receipt(dir / "t", dir / "1.json", full_receipt())));
  ASSERT_TRUE(IsOk(write_receipt(dir / "t", dir / "2.json", full_receipt())));
  EXPECT_NE(read_receipt(dir / "1.json")->id, read_receipt(dir / "2.json")->id);
}

TEST(Receipt, MissingOneIsAbsent) {
  const TempDir dir;
  EXPECT_EQ(read_receipt(dir / "none"), std::nullopt);
}

struct Broken {
  const char* name;
  std::string text;
};
const Broken kBroken[] = {
    {"empty", ""},
    {"cut", R"({"version": 1, "id": "x", "files": [)"},
    {"no_json", "\xff\x00\x01"},
    {"no_object", "[1]"},
    {"null", "null"},
    {"no_version", R"({"id": "x", "files": []})"},
    {"later_version", R"({"version": 2, "id": "x", "files": []})"},
    {"version_of_another_type", R"({"version": "1", "id": "x", "files": []})"},
    {"no_id", R"({"version": 1, "files": []})"},
    {"words_for_a_digest",
     R"({"version": 1, "id": "x", "files": [{"path": "a", "size": 1, "sha256": "x\ny"}]})"},
    {"no_files", R"({"version": 1, "id": "x"})"},
    {"files_of_another_type", R"({"version": 1, "id": "x", "files": {}})"},
    {"file_of_another_type", R"({"version": 1, "id": "x", "files": ["a"]})"},
    {"file_without_path", R"({"version": 1, "id": "x", "files": [{"size": 1}]})"},
    {"file_without_size", R"({"version": 1, "id": "x", "files": [{"path": "a"}]})"},
    {"negative_size", R"({"version": 1, "id": "x", "files": [{"path": "a", "size": -1}]})"},
    {"size_as_text", R"({"version": 1, "id": "x", "files": [{"path": "a", "size": "1"}]})"},
    {"source_as_number", R"({"version": 1, "id": "x", "source": 5, "files": []})"},
    {"deeply_nested", std::string(100'000, '[')},
};
class BrokenReceipt : public ::testing::TestWithParam<Broken> {};
TEST_P(BrokenReceipt, CountsAsAbsent) {
  const TempDir dir;
  EXPECT_EQ(read_receipt(dir.write("r.json", GetParam().text)), std::nullopt);
}
INSTANTIATE_TEST_SUITE_P(Rows, BrokenReceipt, ::testing::ValuesIn(kBroken), row_name<Broken>);

TEST(Receipt, FieldsOfALaterProgramAreIgnored) {
  const TempDir dir;
  const auto read = read_receipt(
      dir.write("r.json", R"({"version": 1, "id": "x", "files": [], "new": {"a": 1}})"));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->id, "x");
}

TEST(Receipt, NameThatIsNotUtf8IsWrittenWithoutAnException) {
  const TempDir dir;
  Receipt receipt = full_receipt();
  receipt.files[0].path = "a\xff";
  ASSERT_TRUE(IsOk(write_receipt(dir / "t", dir / "r.json", receipt)));
  EXPECT_NE(read_receipt(dir / "r.json")->files[0].path, "a\xff");
}

}  // namespace
}  // namespace fvprefetch
