#include "base/relative_path.h"

#include <gtest/gtest.h>

#include <string>

namespace fvprefetch {
namespace {

struct Row {
  const char* name;
  std::string path;
  std::string_view fault;  ///< "" when the path is safe
};

class RelativePath : public testing::TestWithParam<Row> {};

TEST_P(RelativePath, IsJudged) {
  EXPECT_EQ(relative_path_fault(GetParam().path), GetParam().fault);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, RelativePath,
    testing::Values(
        Row{"OneName", "model.safetensors", ""}, Row{"Folders", "a/b/c.bin", ""},
        Row{"HiddenFile", ".gitattributes", ""}, Row{"DotsInAName", "a..b/c...", ""},
        Row{"Blanks", "my model/file 1.bin", ""}, Row{"Unicode", "мир/模型.bin", ""},
        Row{"BackslashInAName", "a\\b", ""}, Row{"LongestSegment", std::string(255, 'x'), ""},
        Row{"Empty", "", "is empty"}, Row{"Absolute", "/etc/passwd", "is absolute"},
        Row{"OnlySlash", "/", "is absolute"}, Row{"Parent", "..", "has a \"..\" segment"},
        Row{"ParentFirst", "../x", "has a \"..\" segment"},
        Row{"ParentInside", "a/../../x", "has a \"..\" segment"},
        Row{"ParentLast", "a/..", "has a \"..\" segment"},
        Row{"ParentBetweenBackslashes", "a\\..\\x", "has a \"..\" segment"},
        Row{"ParentBetweenBoth", "a/..\\x", "has a \"..\" segment"},
        Row{"Here", ".", "has a \".\" segment"}, Row{"HereInside", "a/./b", "has a \".\" segment"},
        Row{"DoubleSlash", "a//b", "has an empty segment"},
        Row{"TrailingSlash", "a/", "has an empty segment"},
        Row{"Newline", "a\nb", "has a control character"},
        Row{"Nul", std::string("a\0b", 3), "has a control character"},
        Row{"Delete", "a\x7f", "has a control character"},
        Row{"C1", "a\xc2\x9b", "has a control character"}, Row{"NoC1", "a\xc2\xa0\xc3\x9b", ""},
        Row{"LongSegment", "a/" + std::string(256, 'x'), "has a segment of more than 255 bytes"}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace fvprefetch
