#include "source/wording.h"

#include <gtest/gtest.h>

#include <array>

namespace fvprefetch {
namespace {

TEST(Printable, EscapesWhatWouldMoveTheCursor) {
  EXPECT_EQ(printable("a\nb\tc\x1b[31m\x7f"), "a\\nb\\tc\\x1b[31m\\x7f");
}

TEST(Printable, LeavesOrdinaryTextAlone) {
  EXPECT_EQ(printable("модель \"x\".pth"), "модель \"x\".pth");
}

TEST(Printable, CutsTheMiddleOfALongText) {
  const std::string cut = printable("begin" + std::string(10'000, 'x') + "end");
  EXPECT_LT(cut.size(), 150U);
  EXPECT_EQ(cut.substr(0, 5), "begin");
  EXPECT_EQ(cut.substr(cut.size() - 3), "end");
}

TEST(Printable, CutsBetweenCharactersOnly) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "щ";
  const std::string cut = printable(text);
  EXPECT_EQ((cut.size() - 3) % 2, 0U) << cut;  // 2 bytes a letter, 3 dots
}

constexpr std::array<std::string_view, 4> kFields{"name", "source", "sha256", "include"};

struct Row {
  const char* name;
  std::string_view word;
  std::string_view meant;
};

class Nearest : public testing::TestWithParam<Row> {};

TEST_P(Nearest, IsTheWordThatWasMeant) {
  EXPECT_EQ(nearest(GetParam().word, kFields), GetParam().meant);
}

INSTANTIATE_TEST_SUITE_P(Rows, Nearest,
                         testing::Values(Row{"Swap", "sha265", "sha256"},
                                         Row{"Case", "SHA256", "sha256"},
                                         Row{"LetterTooMany", "includes", "include"},
                                         Row{"LetterMissing", "sorce", "source"},
                                         Row{"OtherWord", "checksum", ""},
                                         Row{"OneLetter", "x", ""}, Row{"Empty", "", ""}),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace fvprefetch
