#include "transfer/sniff.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "support/matchers.h"

namespace fvprefetch {
namespace {

using namespace std::string_literals;

/// `text` in units of `width` bytes.
std::string widened(const std::string& text, std::size_t width, bool little) {
  std::string wide;
  for (const char c : text) {
    const std::string zeros(width - 1, '\0');
    wide += little ? c + zeros : zeros + c;
  }
  return wide;
}

struct SniffRow {
  std::string name;
  std::string beginning;
  Impostor impostor;
  std::string content_type = {};
  friend void PrintTo(const SniffRow& row, std::ostream* out) { *out << row.name; }
};

class Sniff : public ::testing::TestWithParam<SniffRow> {};

TEST_P(Sniff, RecognisesWhatTheTableSays) {
  EXPECT_EQ(sniff(GetParam().beginning, GetParam().content_type), GetParam().impostor);
}

constexpr auto kHtml = "text/html; charset=utf-8";

INSTANTIATE_TEST_SUITE_P(
    Pages, Sniff,
    ::testing::Values(
        SniffRow{"Doctype", "<!DOCTYPE html>\n<p>", Impostor::kPage},
        SniffRow{"DoctypeInSmallLetters", "<!doctype HTML public", Impostor::kPage},
        SniffRow{"HtmlTag", "<HTML lang=\"en\">", Impostor::kPage},
        SniffRow{"AfterBlanks", " \r\n\t<html>", Impostor::kPage},
        SniffRow{"AfterAByteOrderMark", "\xEF\xBB\xBF\n<html>", Impostor::kPage},
        SniffRow{"AfterAComment", "<!-- x --><html>", Impostor::kPage},
        SniffRow{"AfterTwoComments", "<!-- x -->\n<!-- y -->\n<!DOCTYPE html>", Impostor::kPage},
        SniffRow{"InAComment", "<!-- <html> -->", Impostor::kXml},
        SniffRow{"OnlyTheBeginningOfAComment", "<!-- terms of use", Impostor::kPage, kHtml},
        SniffRow{"Head", "<head><title>", Impostor::kPage},
        SniffRow{"Script", "<script>location='/login'</script>", Impostor::kPage},
        SniffRow{"Meta", "<meta http-equiv=refresh content='0; url=/login'>", Impostor::kPage},
        SniffRow{"Body", "<BODY onload=f()>", Impostor::kPage},
        SniffRow{"Xhtml", "<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC \"x\"><html>",
                 Impostor::kPage},
        SniffRow{"ErrorOfAnObjectStore",
                 "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code>", Impostor::kPage},
        SniffRow{"AnyTagsByTheirType", "<p>Log in</p>", Impostor::kPage, kHtml},
        SniffRow{"Utf16Little", "\xFF\xFE" + widened("<html>", 2, true), Impostor::kPage},
        SniffRow{"Utf16Big", "\xFE\xFF" + widened("<html>", 2, false), Impostor::kPage},
        SniffRow{"Utf16WithoutAMark", widened("<!doctype html>", 2, true), Impostor::kPage},
        SniffRow{"Utf16BigWithoutAMark", widened("<!doctype html>", 2, false), Impostor::kPage},
        SniffRow{"Utf32", "\xFF\xFE\0\0"s + widened("<html>", 4, true), Impostor::kPage},
        SniffRow{"WithANul", "<!DOCTYPE html>\0<html>"s, Impostor::kPage},
        SniffRow{"InRoomForMore", "<html>" + std::string(1000, '\0'), Impostor::kPage},
        SniffRow{"WithControlCharacters", "\xEF\xBB\xBF<HTML>\x01\x08</html>", Impostor::kPage},
        SniffRow{"Cp1251", "<html><body>\xC4\xEE\xF1\xF2\xF3\xEF</body>", Impostor::kPage},
        SniffRow{"ErrorWithANul", "<?xml version='1.0'?><Error>\0"s, Impostor::kPage},
        SniffRow{"Latin1", "<html><p>" + std::string(200, 'e') + std::string(80, '\xE9'),
                 Impostor::kPage}),
    testing::row_name<SniffRow>);

INSTANTIATE_TEST_SUITE_P(
    OtherText, Sniff,
    ::testing::Values(
        SniffRow{"Nothing", "", Impostor::kEmpty},
        SniffRow{"TagInTheMiddle", "see <html>", Impostor::kText},
        SniffRow{"OtherXml", "<?xml version=\"1.0\"?><svg>", Impostor::kXml},
        SniffRow{"JsonError", R"({"error": "not found"})", Impostor::kJson},
        SniffRow{"JsonByItsType", "null", Impostor::kJson, "application/json"},
        SniffRow{"Words", "Rate limit exceeded", Impostor::kText},
        SniffRow{"WordsAsHtml", "Rate limit exceeded", Impostor::kText, kHtml},
        SniffRow{"OneWord", "Forbidden", Impostor::kText},
        SniffRow{"OnlyBlanks", "  \n", Impostor::kText},
        SniffRow{"Utf8CutInALetter", "caf\xC3", Impostor::kText},
        SniffRow{"Iso2022", "\x1B$B%F\x1B(B", Impostor::kText},
        SniffRow{"LinkCheckedOutAsText", "../../blobs/0123", Impostor::kText},
        SniffRow{"LfsPointer", "version https://git-lfs.github.com/spec/v1\noid sha256:ab",
                 Impostor::kLfsPointer},
        SniffRow{"OldLfsPointer", "version https://hawser.github.com/spec/v1\noid sha256:ab",
                 Impostor::kLfsPointer},
        SniffRow{"LfsPointerWithAMark",
                 "\xEF\xBB\xBFversion https://git-lfs.github.com/spec/v1\r\noid sha256:ab",
                 Impostor::kLfsPointer},
        SniffRow{"LfsPointerInRoomForMore",
                 "VERSION https://git-lfs.github.com/spec/v1\noid" + std::string(900, '\0'),
                 Impostor::kLfsPointer},
        SniffRow{"OtherXmlWithANul", "<?xml version=\"1.0\"?><svg>\0"s, Impostor::kXml},
        SniffRow{"JsonErrorWithANul", "{\"error\": \"x\"}\x01\0\x02"s, Impostor::kJson},
        SniffRow{"JsonByTheTypeOfAPage", R"({"chat_template": "<|im|><p>"})", Impostor::kJson,
                 kHtml},
        SniffRow{"TokensByTheTypeOfAPage", "<unk>\n<s>\n", Impostor::kXml, kHtml},
        SniffRow{"WordsAndANul", "Access denied\0"s, Impostor::kText},
        SniffRow{"WordsAndCtrlZ", "Denied\r\n\x1a", Impostor::kText},
        SniffRow{"WordsWithABackspace", "Denied_\x08\n", Impostor::kText},
        SniffRow{"WordsInRoomForMore", "Access denied" + std::string(900, '\0'), Impostor::kText},
        SniffRow{"ShortUtf16", widened("Denied", 2, true), Impostor::kText},
        SniffRow{"OnlyAMark", "\xFF\xFE", Impostor::kText},
        SniffRow{"Latin1Words", "Acc\xE8s refus\xE9", Impostor::kText},
        SniffRow{"Cp1252Quotes", "You don\x92t have access", Impostor::kText},
        SniffRow{"Koi8Words", "\xE4\xCF\xD3\xD4\xD5\xD0 \xDA\xC1\xD0\xD2\xC5\xDD", Impostor::kText},
        SniffRow{"GbkByItsType", "\xC7\xEB\xCF\xC8\xB5\xC7", Impostor::kText, "text/plain"},
        SniffRow{"GbkPageByItsType", "<p>\xC7\xEB\xCF\xC8", Impostor::kPage, "text/html"},
        SniffRow{"Iso2022KrByItsType", "\x1B$)C\x0E!!\x0F", Impostor::kText, "text/plain"},
        SniffRow{"OtherVersionLine", "version 2\n", Impostor::kText}),
    testing::row_name<SniffRow>);

INSTANTIATE_TEST_SUITE_P(
    NoText, Sniff,
    ::testing::Values(
        SniffRow{"Zip", "PK\x03\x04\x00"s, Impostor::kNone},
        SniffRow{"WhateverItsTypeIs", "PK\x03\x04\x00<html>"s, Impostor::kNone, kHtml},
        SniffRow{"Pickle", "\x80\x02}q\x00."s, Impostor::kNone},
        SniffRow{"TextPickleOfADict", "(dp0\nS'a'\np1\nI1\ns.", Impostor::kNone},
        SniffRow{"TextPickleOfAnObject", "ccollections\nOrderedDict\np0\n(tR.", Impostor::kNone},
        SniffRow{"TextPickleThatIsCut",
                 "(lp0\n" +
                     [] {
                       std::string items;
                       for (int i = 0; items.size() < kSniffBytes; ++i) items += "aF0.5\n";
                       return items.substr(0, kSniffBytes - 5);
                     }(),
                 Impostor::kNone},
        SniffRow{"TorchMagicOfProtocol0", "L119547037146038801333356L\n.L1001L\n.",
                 Impostor::kNone},
        SniffRow{"AFewHighBytes", "ab\xFF\xE9\xA0", Impostor::kNone},
        SniffRow{"ManyHighBytes", std::string(1000, '\xFF'), Impostor::kNone},
        SniffRow{"SmallNumbersOf16Bits", "\x61\0\x62\0\x01\0\x63\0\x64\0\x65\0\x66\0\x67\0"s,
                 Impostor::kNone},
        SniffRow{"Backspaces", "\bbytes\bbytes\bbytes", Impostor::kNone, "text/plain"},
        SniffRow{"LettersAndZeros", "abcd" + std::string(1000, '\0'), Impostor::kNone},
        SniffRow{"HighBytesByAType", "\x80\x02\xFF\xE9"s, Impostor::kNone, "text/plain"},
        SniffRow{"NumbersWithoutControls",
                 [] {
                   std::string bytes;
                   unsigned state = 1;
                   while (bytes.size() < kSniffBytes) {
                     state = state * 1103515245U + 12345U;
                     const char c = static_cast<char>(state >> 16U);
                     if (static_cast<unsigned char>(c) > 0x20 && c != 0x7f) bytes += c;
                   }
                   return bytes;
                 }(),
                 Impostor::kNone},
        SniffRow{"Zeros", std::string(1000, '\0'), Impostor::kNone}),
    testing::row_name<SniffRow>);

struct NameRow {
  std::string name;
  Impostor impostor;
  std::string path;
  bool may;
  std::string address = {};
  friend void PrintTo(const NameRow& row, std::ostream* out) { *out << row.name; }
};

class MayBe : public ::testing::TestWithParam<NameRow> {};

TEST_P(MayBe, GoesByTheNameOfTheFile) {
  const NameRow& row = GetParam();
  EXPECT_EQ(may_be(row.impostor, wanted_as(row.path, row.address)), row.may);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, MayBe,
    ::testing::Values(
        NameRow{"PageAsWeights", Impostor::kPage, "model.safetensors", false},
        NameRow{"PageAsJson", Impostor::kPage, "config.json", false},
        NameRow{"PageAsPage", Impostor::kPage, "docs/Index.HTML", true},
        NameRow{"PageAsReadme", Impostor::kPage, "README.md", true},
        NameRow{"PageWithoutSuffix", Impostor::kPage, "html", false},
        NameRow{"PointerAsText", Impostor::kLfsPointer, "vocab.txt", false},
        NameRow{"PointerAsWeights", Impostor::kLfsPointer, "model.bin", false},
        NameRow{"Weights", Impostor::kNone, "model.bin", true},
        NameRow{"TextAsWeights", Impostor::kText, "Model.PTH", false},
        NameRow{"TextAsText", Impostor::kText, "vocab.txt", true},
        NameRow{"TextAsJson", Impostor::kText, "config.json", true},
        NameRow{"TextWithoutSuffix", Impostor::kText, "LICENSE", true},
        NameRow{"TextOfAHiddenName", Impostor::kText, ".bin", true},
        NameRow{"JsonAsAnIndex", Impostor::kJson, "pytorch_model.bin.index.json", true},
        NameRow{"JsonAsWeights", Impostor::kJson, "w.gguf", false},
        NameRow{"XmlAsArchive", Impostor::kXml, "code.tar.gz", false},
        NameRow{"TextAsTensorFlow", Impostor::kText, "m.ckpt.data-00000-of-00001", false},
        NameRow{"TextAsTensorFlowsIndex", Impostor::kText, "model.ckpt.index", false},
        NameRow{"TextAsAnIndex", Impostor::kText, "words.index", true},
        NameRow{"TextAsFastText", Impostor::kText, "lid.176.ftz", false},
        NameRow{"PageAsVue", Impostor::kPage, "app.vue", true},
        NameRow{"PackedPageAsTar", Impostor::kPacked, "code.tar.gz", false},
        NameRow{"PackedPageAsWeights", Impostor::kPacked, "w.pth", false},
        NameRow{"PackedJsonAsJson", Impostor::kPacked, "vocab.json.gz", true},
        NameRow{"PageAsPackedJson", Impostor::kPage, "vocab.json.gz", false},
        NameRow{"NothingAsWeights", Impostor::kEmpty, "w.ckpt", false},
        NameRow{"NothingAsAModule", Impostor::kEmpty, "__init__.py", true},
        NameRow{"ByTheAddress", Impostor::kText, "amt", false, "https://h/w.pth?download=1"},
        NameRow{"TheNameComesFirst", Impostor::kText, "a.txt", true, "https://h/w.pth"},
        NameRow{"NotByTheQuery", Impostor::kText, "amt", true, "https://h/get?file=w.pth"}),
    testing::row_name<NameRow>);

TEST(Describe, QuotesABeginningThatIsSafeToPrint) {
  EXPECT_EQ(describe(Impostor::kText, "Not \r\n found\x1b[31m"),
            "plain text, which begins `Not found?[31m`");
  EXPECT_EQ(describe(Impostor::kText,
                     "a\xC2\x9B"
                     "b\xE2\x80\xAE"
                     "c\xC3\xA9"),
            "plain text, which begins `a?b?c\xC3\xA9`");
  const std::string longest = describe(Impostor::kJson, "{" + std::string(500, 'x'));
  EXPECT_LT(longest.size(), 120U);
  EXPECT_NE(longest.find("..."), std::string::npos);
  EXPECT_EQ(describe(Impostor::kPage, "<Error><Code>"),
            "the error of an object store, which begins `<Error><Code>`");
  EXPECT_EQ(describe(Impostor::kPage, widened("<html>\n<body>", 2, true)),
            "an HTML page, which begins `<html> <body>`");
  EXPECT_EQ(describe(Impostor::kEmpty, ""), "an empty file");
}

TEST(Hint, KnowsTheAddressOfAFilesPage) {
  EXPECT_NE(hint(Impostor::kPage, "https://hub/org/m/blob/main/w.pth").find("/resolve/"),
            std::string::npos);
  EXPECT_EQ(hint(Impostor::kPage, "https://hub/org/m/resolve/main/w.pth?x=/blob/").find("/raw/"),
            std::string::npos);
}

}  // namespace
}  // namespace fvprefetch
