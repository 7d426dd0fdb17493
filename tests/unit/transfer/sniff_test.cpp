#include "transfer/sniff.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "support/matchers.h"

namespace fvprefetch {
namespace {

struct SniffRow {
  std::string name;
  std::string beginning;
  Impostor impostor;
  friend void PrintTo(const SniffRow& row, std::ostream* out) { *out << row.name; }
};

class Sniff : public ::testing::TestWithParam<SniffRow> {};

TEST_P(Sniff, RecognisesWhatTheTableSays) {
  EXPECT_EQ(sniff(GetParam().beginning), GetParam().impostor);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Sniff,
    ::testing::Values(
        SniffRow{"Nothing", "", Impostor::kNone},
        SniffRow{"Zip", std::string("PK\x03\x04\x00", 5), Impostor::kNone},
        SniffRow{"Doctype", "<!DOCTYPE html>\n<p>", Impostor::kHtmlPage},
        SniffRow{"DoctypeInSmallLetters", "<!doctype HTML public", Impostor::kHtmlPage},
        SniffRow{"HtmlTag", "<HTML lang=\"en\">", Impostor::kHtmlPage},
        SniffRow{"AfterBlanks", " \r\n\t<html>", Impostor::kHtmlPage},
        SniffRow{"AfterAByteOrderMark", "\xEF\xBB\xBF\n<html>", Impostor::kHtmlPage},
        SniffRow{"HalfOfATag", "<htm", Impostor::kNone},
        SniffRow{"TagInTheMiddle", "see <html>", Impostor::kNone},
        SniffRow{"OtherXml", "<?xml version=\"1.0\"?><svg>", Impostor::kNone},
        SniffRow{"OnlyBlanks", "  \n", Impostor::kNone},
        SniffRow{"LfsPointer", "version https://git-lfs.github.com/spec/v1\noid sha256:ab",
                 Impostor::kLfsPointer},
        SniffRow{"OtherVersionLine", "version 2\n", Impostor::kNone}),
    testing::row_name<SniffRow>);

struct NameRow {
  std::string name;
  Impostor impostor;
  std::string path;
  bool may;
  friend void PrintTo(const NameRow& row, std::ostream* out) { *out << row.name; }
};

class MayBe : public ::testing::TestWithParam<NameRow> {};

TEST_P(MayBe, GoesByTheNameOfTheFile) {
  EXPECT_EQ(may_be(GetParam().impostor, GetParam().path), GetParam().may);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, MayBe,
    ::testing::Values(NameRow{"PageAsWeights", Impostor::kHtmlPage, "model.safetensors", false},
                      NameRow{"PageAsJson", Impostor::kHtmlPage, "config.json", false},
                      NameRow{"PageAsPage", Impostor::kHtmlPage, "docs/Index.HTML", true},
                      NameRow{"PageAsReadme", Impostor::kHtmlPage, "README.md", true},
                      NameRow{"PageWithoutSuffix", Impostor::kHtmlPage, "html", false},
                      NameRow{"PointerAsText", Impostor::kLfsPointer, "vocab.txt", false},
                      NameRow{"PointerAsWeights", Impostor::kLfsPointer, "model.bin", false},
                      NameRow{"Weights", Impostor::kNone, "model.bin", true}),
    testing::row_name<NameRow>);

}  // namespace
}  // namespace fvprefetch
