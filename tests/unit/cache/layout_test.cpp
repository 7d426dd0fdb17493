#include "cache/layout.h"

#include <gtest/gtest.h>

#include "support/matchers.h"

namespace fvprefetch::layout {
namespace {

using testing::row_name;

constexpr char kCommit[] = "0123456789abcdef0123456789abcdef01234567";
// SHA-256 of "models/amt-s.pth" and of "<kCommit>\nall", by sha256sum.
constexpr char kKeyOfAmt[] = "f77171bb647b5510861d5817e24c0a0141acc1db4c4cb76831b2b72cffa6aab9";
constexpr char kKeyOfAll[] = "a1e2160f01b868b90ba84a649f8cab49f1eff885b5bc0e0da19ebbf43e2881dd";

struct Folder {
  const char* name;
  const char* type;
  const char* id;
  const char* folder;
};
constexpr Folder kFolders[] = {
    {"model", "model", "julien-c/EsperBERTo-small", "models--julien-c--EsperBERTo-small"},
    {"model_without_owner", "model", "gpt2", "models--gpt2"},
    {"dataset", "dataset", "google/fleurs", "datasets--google--fleurs"},
    {"space", "space", "org/app", "spaces--org--app"},
};
class RepoFolder : public ::testing::TestWithParam<Folder> {};
TEST_P(RepoFolder, IsHuggingfaceHubs) {
  EXPECT_EQ(repo_folder(GetParam().type, GetParam().id), GetParam().folder);
}
INSTANTIATE_TEST_SUITE_P(Rows, RepoFolder, ::testing::ValuesIn(kFolders), row_name<Folder>);

struct Target {
  const char* name;
  const char* path;
  const char* target;
};
constexpr Target kTargets[] = {
    {"top_level", "config.json", "../../blobs/abc"},
    {"one_folder", "onnx/model.onnx", "../../../blobs/abc"},
    {"two_folders", "a/b/c.bin", "../../../../blobs/abc"},
};
class PointerTarget : public ::testing::TestWithParam<Target> {};
TEST_P(PointerTarget, ClimbsOutOfEveryFolder) {
  EXPECT_EQ(HubRepo::pointer_target(GetParam().path, "abc"), GetParam().target);
}
INSTANTIATE_TEST_SUITE_P(Rows, PointerTarget, ::testing::ValuesIn(kTargets), row_name<Target>);

// Names that a server or a user may send, and whether they may become part of a path.
struct Name {
  const char* name;
  std::string text;
  bool safe;
};
const Name kPaths[] = {
    {"file", "config.json", true},
    {"nested", "a/b/c.bin", true},
    {"blank_and_unicode", "my model \xc3\xa9.bin", true},
    {"dots_in_a_name", "a..b/..c/d..", true},
    {"hidden", ".gitattributes", true},
    {"colon", "C:x", true},
    {"longest_segment", std::string(255, 'a') + "/b", true},
    {"empty", "", false},
    {"absolute", "/etc/passwd", false},
    {"parent", "..", false},
    {"parent_first", "../x", false},
    {"parent_inside", "a/../../x", false},
    {"parent_last", "a/..", false},
    {"parent_by_backslash", "a\\..\\x", false},
    {"parent_by_both", "a/..\\x", false},
    {"here", ".", false},
    {"here_inside", "a/./b", false},
    {"double_slash", "a//b", false},
    {"trailing_slash", "a/", false},
    {"nul", std::string("a\0b", 3), false},
    {"newline", "a\nb", false},
    {"escape", "\x1b[31m", false},
    {"delete", "a\x7f", false},
    {"segment_too_long", std::string(256, 'a'), false},
};
class SafePath : public ::testing::TestWithParam<Name> {};
TEST_P(SafePath, IsAsTheRowSays) {
  EXPECT_EQ(safe_relative_path(GetParam().text), GetParam().safe);
}
TEST_P(SafePath, HoldsForRevisionsAsWell) {
  EXPECT_EQ(safe_revision(GetParam().text), GetParam().safe);
}
INSTANTIATE_TEST_SUITE_P(Rows, SafePath, ::testing::ValuesIn(kPaths), row_name<Name>);

const Name kBlobs[] = {
    {"git_sha1", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", true},
    {"sha256", std::string(64, 'a'), true},
    {"multipart_etag", "5f-62", true},
    {"two_hundred", std::string(200, 'a'), true},
    {"too_long", std::string(201, 'a'), false},
    {"empty", "", false},
    {"here", ".", false},
    {"parent", "..", false},
    {"slash", "W/abc", false},
    {"quote", "\"abc\"", false},
    {"blank", "a b", false},
    {"nul", std::string("a\0", 2), false},
    {"backslash", "a\\b", false},
    {"not_ascii", "\xc3\xa9", false},
};
class SafeBlob : public ::testing::TestWithParam<Name> {};
TEST_P(SafeBlob, IsAsTheRowSays) {
  EXPECT_EQ(safe_blob_name(GetParam().text), GetParam().safe);
}
INSTANTIATE_TEST_SUITE_P(Rows, SafeBlob, ::testing::ValuesIn(kBlobs), row_name<Name>);

TEST(HubRepo, NamesEverythingWhereHuggingfaceHubLooks) {
  const HubRepo repo("/hub", "model", "o/n");
  EXPECT_EQ(repo.directory(), "/hub/models--o--n");
  EXPECT_EQ(repo.blobs(), "/hub/models--o--n/blobs");
  EXPECT_EQ(repo.blob("abc"), "/hub/models--o--n/blobs/abc");
  EXPECT_EQ(repo.snapshot(kCommit), "/hub/models--o--n/snapshots/" + std::string(kCommit));
  EXPECT_EQ(repo.pointer(kCommit, "a/b"), repo.snapshot(kCommit) + "/a/b");
  EXPECT_EQ(repo.ref("refs/pr/1"), "/hub/models--o--n/refs/refs/pr/1");
  EXPECT_EQ(repo.tree(kCommit), "/hub/models--o--n/trees/" + std::string(kCommit) + ".json");
  EXPECT_EQ(repo.lock("abc"), "/hub/.locks/models--o--n/abc.lock");
}

TEST(HubRepo, KeepsItsOwnStateWhereNoScannerLooks) {
  const HubRepo repo("/hub", "model", "o/n");
  EXPECT_EQ(repo.partial("abc", "00c0ffee"),
            "/hub/models--o--n/blobs/abc.00c0ffee.fvprefetch-part");
  EXPECT_EQ(repo.journal("abc", "00c0ffee"),
            "/hub/models--o--n/.fvprefetch/partials/abc.00c0ffee.json");
  EXPECT_EQ(repo.temporary("00c0ffee"), "/hub/models--o--n/.fvprefetch/tmp/00c0ffee");
  EXPECT_EQ(repo.receipt(kCommit, "all"),
            "/hub/models--o--n/.fvprefetch/receipts/" + std::string(kKeyOfAll) + ".json");
}

TEST(HubRepo, ReceiptsOfTwoSelectionsDiffer) {
  const HubRepo repo("/hub", "model", "o/n");
  EXPECT_NE(repo.receipt(kCommit, "a"), repo.receipt(kCommit, "b"));
}

TEST(UrlFile, NamesTheFileAndWhatLiesBesideIt) {
  const UrlFile file("/eval", "models/amt-s.pth");
  EXPECT_EQ(file.path(), "/eval/models/amt-s.pth");
  EXPECT_EQ(file.directory(), "/eval/models");
  EXPECT_EQ(file.partial("00c0ffee"), "/eval/models/.amt-s.pth.00c0ffee.fvprefetch-part");
  EXPECT_EQ(file.unpacking("00c0ffee"), "/eval/models/.amt-s.pth.00c0ffee.fvprefetch-unpack");
  EXPECT_EQ(file.journal("00c0ffee"),
            "/eval/.fvprefetch/partials/" + std::string(kKeyOfAmt) + ".00c0ffee.json");
  EXPECT_EQ(file.lock(), "/eval/.fvprefetch/locks/" + std::string(kKeyOfAmt) + ".lock");
  EXPECT_EQ(file.receipt(), "/eval/.fvprefetch/receipts/" + std::string(kKeyOfAmt) + ".json");
}

TEST(UrlFile, PartialOfTheLongestNameStillFitsTheFileSystem) {
  const std::string name(255, 'n');
  const std::string partial = UrlFile("/eval", name).partial("00c0ffee");
  const std::string partial_name = partial.substr(partial.find_last_of('/') + 1);
  EXPECT_LE(partial_name.size(), 255U);
  EXPECT_TRUE(is_partial_of(partial_name, name));
}

TEST(HolderRecord, LiesBesideTheLock) {
  EXPECT_EQ(holder_record("/hub/.locks/models--o--n/abc.lock"),
            "/hub/.locks/models--o--n/abc.holder");
}

struct Partial {
  const char* name;
  const char* file;
  bool partial;
};
constexpr Partial kPartials[] = {
    {"ours_of_a_blob", "abc.00c0ffee.fvprefetch-part", true},
    {"ours_of_a_url_file", ".abc.00c0ffee.fvprefetch-part", true},
    {"python_since_1_18", "abc.00c0ffee.incomplete", true},
    {"python_before", "abc.incomplete", true},
    {"the_file_itself", "abc", false},
    {"another_file", "abcd.00c0ffee.fvprefetch-part", false},
    {"another_file_with_the_same_end", "xabc.00c0ffee.fvprefetch-part", false},
    {"tag_too_short", "abc.00c0ff.fvprefetch-part", false},
    {"tag_not_hex", "abc.00c0fxxx.incomplete", false},
    {"no_tag", "abc.fvprefetch-part", false},
    {"another_suffix", "abc.00c0ffee.part", false},
};
class PartialName : public ::testing::TestWithParam<Partial> {};
TEST_P(PartialName, IsRecognised) {
  EXPECT_EQ(is_partial_of(GetParam().file, "abc"), GetParam().partial);
}
INSTANTIATE_TEST_SUITE_P(Rows, PartialName, ::testing::ValuesIn(kPartials), row_name<Partial>);

TEST(Partials, AreKnownByTheirTag) {
  EXPECT_EQ(layout::journal_tag("abc.00c0ffee.json", "abc"), "00c0ffee");
  EXPECT_EQ(layout::journal_tag("abc.00c0ffee.json.tmp", "abc"), "");
  EXPECT_EQ(layout::journal_tag("abc.00c0ffe.json", "abc"), "");
  EXPECT_EQ(layout::journal_tag("abcd.00c0ffee.json", "abc"), "");
}

// What is found in a cache, taken apart: "<stem>|<tag>", "!" when it is not ours.
struct Found {
  const char* name;
  std::string file;
  const char* hub;
  const char* url;
  const char* journal;
  const char* holder;
};
const Found kFound[] = {
    {"blob_partial", "abc.00c0ffee.fvprefetch-part", "abc|00c0ffee", "!", "!", "!"},
    {"url_partial", ".a b.pth.00c0ffee.fvprefetch-part", "!", "a b.pth|00c0ffee", "!", "!"},
    {"url_partial_with_a_dot", "..abc.00c0ffee.fvprefetch-part", "..abc|00c0ffee", ".abc|00c0ffee",
     "!", "!"},
    {"python_partial", "abc.00c0ffee.incomplete", "!", "!", "!", "!"},
    {"python_partial_of_a_url", ".abc.00c0ffee.incomplete", "!", "!", "!", "!"},
    {"torch_partial", "abc.00c0ffee.partial", "!", "!", "!", "!"},
    {"more_behind", "abc.00c0ffee.fvprefetch-part.bak", "!", "!", "!", "!"},
    {"no_tag", "abc.fvprefetch-part", "!", "!", "!", "!"},
    {"no_stem", ".00c0ffee.fvprefetch-part", "!", "!", "!", "!"},
    {"tag_in_capitals", "abc.00C0FFEE.fvprefetch-part", "!", "!", "!", "!"},
    {"tag_too_long", "abc.000c0ffee.fvprefetch-part", "!", "!", "!", "!"},
    {"tag_without_its_dot", "abc00c0ffee.fvprefetch-part", "!", "!", "!", "!"},
    {"stem_of_dots", "...00c0ffee.fvprefetch-part", "!", "!", "!", "!"},
    {"control_character", ".a\nb.00c0ffee.fvprefetch-part", "!", "!", "!", "!"},
    {"blob_with_a_blank", "a b.00c0ffee.fvprefetch-part", "!", "!", "!", "!"},
    {"journal", "abc.00c0ffee.json", "!", "!", "abc|00c0ffee", "!"},
    {"journal_on_its_way", "abc.00c0ffee.json.tmp", "!", "!", "abc|00c0ffee~", "!"},
    {"receipt", "abc.json", "!", "!", "!", "!"},
    {"lock", "abc.lock", "!", "!", "!", "!"},
    {"lock_with_a_tag", "abc.00c0ffee.lock", "!", "!", "!", "!"},
    {"holder", "abc.holder", "!", "!", "!", "abc"},
    {"holder_on_its_way", "abc.holder.00c0ffee", "!", "!", "!", "abc~"},
    {"holder_of_nothing", ".holder", "!", "!", "!", "!"},
    {"holder_with_more_behind", "abc.holder.bak", "!", "!", "!", "!"},
    {"suffix_alone", ".fvprefetch-part", "!", "!", "!", "!"},
    {"empty", "", "!", "!", "!", "!"},
};
std::string text_of(const std::optional<TaggedName>& name) {
  if (!name) return "!";
  return std::string(name->stem).append("|").append(name->tag);
}
std::string text_of(const std::optional<JournalName>& name) {
  if (!name) return "!";
  return std::string(name->key).append("|").append(name->tag).append(name->temporary ? "~" : "");
}
std::string text_of(const std::optional<HolderName>& name) {
  return name ? std::string(name->stem).append(name->temporary ? "~" : "") : "!";
}
class FoundName : public ::testing::TestWithParam<Found> {};
TEST_P(FoundName, IsOursOnlyWhenWeWouldGiveIt) {
  const Found& row = GetParam();
  EXPECT_EQ(text_of(hub_partial(row.file)), row.hub);
  EXPECT_EQ(text_of(url_partial(row.file)), row.url);
  EXPECT_EQ(text_of(journal_name(row.file)), row.journal);
  EXPECT_EQ(text_of(holder_name(row.file)), row.holder);
}
INSTANTIATE_TEST_SUITE_P(Rows, FoundName, ::testing::ValuesIn(kFound), row_name<Found>);

TEST(FoundNames, AreThoseThatWeGive) {
  const HubRepo repo("/hub", "model", "org/name");
  const auto name = [](const std::string& path) { return path.substr(path.rfind('/') + 1); };
  EXPECT_EQ(text_of(hub_partial(name(repo.partial("abc", "00c0ffee")))), "abc|00c0ffee");
  EXPECT_EQ(text_of(journal_name(name(repo.journal("abc", "00c0ffee")))), "abc|00c0ffee");
  EXPECT_EQ(text_of(holder_name(name(holder_record(repo.lock("abc"))))), "abc");
  EXPECT_EQ(lock_beside(repo.locks(), "abc"), repo.lock("abc"));
  EXPECT_TRUE(is_temporary(name(repo.temporary("00c0ffee"))));
  EXPECT_FALSE(is_temporary("00c0ffee.json"));
  EXPECT_TRUE(is_unfinished(".00c0ffee.fvprefetch-new"));
  EXPECT_FALSE(is_unfinished("a.00c0ffee.fvprefetch-new"));
  EXPECT_TRUE(is_private(".00c0ffee.fvprefetch-new"));

  const UrlFile file("/eval", "models/a.pth");
  EXPECT_EQ(text_of(url_partial(name(file.partial("00c0ffee")))), "a.pth|00c0ffee");
  EXPECT_EQ(text_of(unpacking_name(name(file.unpacking("00c0ffee")))), "a.pth|00c0ffee");
  EXPECT_EQ(text_of(journal_name(name(file.journal("00c0ffee")))), file.key() + "|00c0ffee");
  EXPECT_EQ(lock_beside(file.locks(), file.key()), file.lock());
  const UrlFile long_file("/eval", "models/" + std::string(250, 'a'));
  const std::string long_name = name(long_file.partial("00c0ffee"));
  ASSERT_TRUE(url_partial(long_name).has_value());
  EXPECT_TRUE(may_be_hash(url_partial(long_name)->stem));
  const std::string long_tree = name(long_file.unpacking("00c0ffee"));
  ASSERT_TRUE(unpacking_name(long_tree).has_value());
  EXPECT_TRUE(may_be_hash(unpacking_name(long_tree)->stem));
}

TEST(StepFiles, AreFoundByTheirNames) {
  const StepFiles step("/eval", "77.0.0.00c0ffee1234");
  EXPECT_EQ(step.record(), "/eval/.fvprefetch/steps/77.0.0.00c0ffee1234.json");
  EXPECT_EQ(lease_beside(step.lock()), "/eval/.fvprefetch/steps/77.0.0.00c0ffee1234.lease");
  EXPECT_EQ(step.taken(3), "/eval/.fvprefetch/steps/77.0.0.00c0ffee1234.3.taken");
  EXPECT_TRUE(is_step_file("77.0.0.00c0ffee1234.json"));
  EXPECT_TRUE(is_step_file("77.0.0.00c0ffee1234.3.taken"));
  for (const char* other : {".json", "a b.json", "77.0.0.lease", "77.0.0.json.tmp", ""}) {
    EXPECT_FALSE(is_step_file(other)) << other;
  }
}

TEST(RepoFolder, LeadsBackToTheRepo) {
  const HubRepo repo("/hub", "dataset", "org/name");
  const auto found = HubRepo::in_folder("/hub", "datasets--org--name");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->directory(), repo.directory());
  EXPECT_EQ(found->lock("abc"), repo.lock("abc"));
  for (const char* other : {"models--", "models", "model--a", ".locks", "", "torch"}) {
    EXPECT_FALSE(HubRepo::in_folder("/hub", other)) << other;
  }
}

}  // namespace
}  // namespace fvprefetch::layout
