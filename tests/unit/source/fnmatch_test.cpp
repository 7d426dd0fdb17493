#include <gtest/gtest.h>

#include <string>

#include "source/resolve.h"

namespace fvprefetch {
namespace {

struct Row {
  const char* name;
  std::string pattern;
  std::string text;
  bool matches;
};

class Fnmatch : public testing::TestWithParam<Row> {};

// The answers are those of Python's fnmatch.fnmatchcase(text, pattern).
TEST_P(Fnmatch, AnswersAsPython) {
  EXPECT_EQ(fnmatch(GetParam().pattern, GetParam().text), GetParam().matches)
      << GetParam().pattern << " ~ " << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Fnmatch,
    testing::Values(
        Row{"StarSuffix", "*.txt", "a.txt", true},
        Row{"StarMatchesSlash", "*.txt", "sub/file.txt", true},
        Row{"StarMatchesNothing", "*.txt", ".txt", true},
        Row{"StarMatchesNewline", "a*b", "a\n\nb", true},
        Row{"QuestionMatchesSlash", "a?b", "a/b", true},
        Row{"QuestionMatchesNewline", "a?b", "a\nb", true},
        Row{"QuestionNeedsACharacter", "a?", "a", false},
        Row{"QuestionTakesACodePoint", "?.bin", "щ.bin", true},
        Row{"QuestionTakesNoTwo", "?", "ab", false}, Row{"WholeTextFront", "file", "a/file", false},
        Row{"WholeTextBack", "file", "file.txt", false}, Row{"CaseCounts", "*.TXT", "a.txt", false},
        Row{"LeadingDotIsNotSpecial", "*.git*", ".gitattributes", true},
        Row{"DoubleStarIsOneStar", "**", "a/b/c", true},
        Row{"DoubleStarInsideIsOneStar", "a/**/b", "a/b", false},
        Row{"DoubleStarInsideMatchesDeep", "a/**/b", "a/x/y/b", true},
        Row{"EmptyPatternEmptyText", "", "", true}, Row{"EmptyPatternText", "", "a", false},
        Row{"StarEmptyText", "*", "", true}, Row{"ManyStars", "*a*b*c*", "xxaxxbxxcxx", true},
        Row{"ManyStarsMissing", "*a*b*c*", "xxaxxcxxb", false},
        Row{"StarBacktracks", "*ab", "aab", true}, Row{"Set", "[abc]", "b", true},
        Row{"SetOther", "[abc]", "d", false}, Row{"SetNegated", "[!a]*", "b", true},
        Row{"SetNegatedSame", "[!a]*", "a", false},
        Row{"SetNegatedMatchesSlash", "a[!x]b", "a/b", true},
        Row{"SetNegatedMatchesNewline", "[!a]", "\n", true},
        Row{"SetCaretIsAMember", "[^a]", "^", true},
        Row{"SetCaretDoesNotNegate", "[^a]", "b", false}, Row{"SetBracketFirst", "[]]", "]", true},
        Row{"SetBracketFirstOther", "[]]", "a", false},
        Row{"SetBracketFirstOfMany", "[]a]", "a", true},
        Row{"SetNegatedBracket", "[!]]", "]", false},
        Row{"SetNegatedBracketOther", "[!]]", "a", true},
        Row{"SetOpenBracketMember", "[[]", "[", true}, Row{"SetUnclosed", "[abc", "[abc", true},
        Row{"SetUnclosedOther", "[abc", "a", false},
        Row{"SetUnclosedRestIsPattern", "[a*", "[axyz", true},
        Row{"SetEmptyIsText", "[]", "[]", true}, Row{"SetNegatedEmptyIsText", "[!]", "[!]", true},
        Row{"SetNegatedEmptyNotOne", "[!]", "x", false}, Row{"Range", "[a-c]", "b", true},
        Row{"RangeEnd", "[a-c]", "c", true}, Row{"RangeOutside", "[a-c]", "d", false},
        Row{"RangeMiddleIsNoHyphen", "[a-c]", "-", false},
        Row{"RangeBackwards", "[c-a]", "b", false}, Row{"RangeBackwardsEnd", "[c-a]", "c", false},
        Row{"RangeBackwardsNegated", "[!c-a]", "b", true}, Row{"HyphenFirst", "[-a]", "-", true},
        Row{"HyphenLast", "[a-]", "-", true}, Row{"HyphenAfterRange", "[a-c-e]", "-", true},
        Row{"HyphenAfterRangeMember", "[a-c-e]", "e", true},
        Row{"HyphenAfterRangeNotIn", "[a-c-e]", "d", false},
        Row{"TwoRanges", "[a-cx-z]", "y", true},
        Row{"DigitsRange", "model-[0-9]*.bin", "model-00001-of-2.bin", true},
        Row{"RangeOfCodePoints", "[а-я]", "щ", true},
        Row{"RangeOfCodePointsOutside", "[а-я]", "z", false},
        Row{"BackslashIsNoEscape", "\\*", "\\x", true},
        Row{"BackslashIsNoEscapeStar", "\\*", "*", false},
        Row{"BackslashInASet", "[\\]", "\\", true}, Row{"BracesAreText", "{a,b}", "a", false},
        Row{"BracesMatchThemselves", "{a,b}", "{a,b}", true},
        Row{"RegexCharactersAreText", "a.b+c", "aXbbc", false},
        Row{"SetOperationsAreMembers", "[a&&b]", "&", true},
        Row{"SetHyphenBeforeBracket", "[a-\\]]", "b", false},
        Row{"ReplacementInSet", "[!!]", "!", false},
        Row{"ReplacementInSetOther", "[!!]", "a", true}),
    [](const auto& row) { return row.param.name; });

TEST(Fnmatch, TakesBytesThatAreNotUtf8AsCharacters) {
  EXPECT_TRUE(fnmatch("a?c",
                      "a\xff"
                      "c"));
  EXPECT_TRUE(fnmatch("a\xff*",
                      "a\xff"
                      "c"));
  EXPECT_FALSE(fnmatch("a\xfe*",
                       "a\xff"
                       "c"));
}

TEST(Fnmatch, StaysFastOnAPatternOfManyStars) {
  std::string pattern;
  for (int i = 0; i < 50; ++i) pattern += "*a";
  // Exponential without care: the test's time limit is the judge.
  EXPECT_FALSE(fnmatch(pattern + "*b", std::string(2000, 'a')));
}

}  // namespace
}  // namespace fvprefetch
