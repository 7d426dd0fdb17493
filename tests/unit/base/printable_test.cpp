#include "base/printable.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace fvprefetch {
namespace {

struct Row {
  const char* name;
  std::string_view text;
  std::string_view escaped;
};

class Unprintable : public testing::TestWithParam<Row> {};

TEST_P(Unprintable, IsEscaped) {
  EXPECT_FALSE(is_printable(GetParam().text));
  EXPECT_EQ(escaped(GetParam().text), GetParam().escaped);
  EXPECT_TRUE(is_printable(escaped(GetParam().text)));
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Unprintable,
    testing::Values(Row{"Escape", "a\x1b[31m", "a\\x1b[31m"}, Row{"LineFeed", "a\nb", "a\\nb"},
                    Row{"Tab", "a\tb", "a\\tb"}, Row{"Return", "a\rb", "a\\x0db"},
                    Row{"Delete", "\x7f", "\\x7f"}, Row{"Csi", "\xc2\x9b", "\\xc2\\x9b"},
                    Row{"FirstOfC1", "\xc2\x80", "\\xc2\\x80"},
                    Row{"LastOfC1", "\xc2\x9f", "\\xc2\\x9f"},
                    Row{"BareC1",
                        "a\x9b"
                        "b",
                        "a\\x9b"
                        "b"},
                    Row{"Override", "\xe2\x80\xae", "\\xe2\\x80\\xae"},
                    Row{"Isolate", "\xe2\x81\xa9", "\\xe2\\x81\\xa9"},
                    Row{"ArabicMark", "\xd8\x9c", "\\xd8\\x9c"},
                    Row{"Mark", "\xe2\x80\x8f", "\\xe2\\x80\\x8f"},
                    Row{"LineSeparator", "\xe2\x80\xa8", "\\xe2\\x80\\xa8"},
                    Row{"ByteOrderMark", "\xef\xbb\xbf", "\\xef\\xbb\\xbf"},
                    Row{"Tag", "\xf3\xa0\x81\x81", "\\xf3\\xa0\\x81\\x81"},
                    Row{"Noncharacter", "\xef\xbf\xbf", "\\xef\\xbf\\xbf"},
                    Row{"Surrogate", "\xed\xa0\x80", "\\xed\\xa0\\x80"},
                    Row{"Overlong", "\xc0\x9b", "\\xc0\\x9b"},
                    Row{"OverlongOfThree", "\xe0\x82\x9b", "\\xe0\\x82\\x9b"},
                    Row{"BeyondTheLast", "\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
                    Row{"CutShort", "a\xe2\x80", "a\\xe2\\x80"},
                    Row{"CutByAnother",
                        "\xe2\x80"
                        "a",
                        "\\xe2\\x80"
                        "a"}),
    [](const auto& row) { return row.param.name; });

TEST(IsPrintable, LeavesTheWorldsScriptsAlone) {
  for (const std::string_view text : {"plain ~", "модель", "モデル", "مدل", "\xc2\xa0\xc2\xad",
                                      "\xe2\x80\x8d", "👩‍🔬", "\xef\xbf\xbd"}) {
    EXPECT_TRUE(is_printable(text)) << text;
    EXPECT_EQ(escaped(text), text);
  }
}

TEST(EscapedLines, KeepsLinesAndTabs) {
  EXPECT_EQ(escaped_lines("a\n\tb\x1b\n"), "a\n\tb\\x1b\n");
}

TEST(EscapedJson, SaysTheSameInOtherCharacters) {
  EXPECT_EQ(escaped_json("{\n  \"a\": \"\xc2\x9b\xe2\x80\xae\x7f\xf3\xa0\x81\x81 щ\"\n}"),
            "{\n  \"a\": \"\\u009b\\u202e\\u007f\\udb40\\udc41 щ\"\n}");
  EXPECT_EQ(escaped_json("\"\x9b\""), "\"\\ufffd\"");
}

}  // namespace
}  // namespace fvprefetch
