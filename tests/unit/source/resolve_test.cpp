#include "source/resolve.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace fvprefetch {
namespace {

namespace fs = std::filesystem;

const std::string kClipDigest = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af";
const std::string kOtherDigest = std::string(63, '0') + "1";

std::optional<std::string> empty_environment(std::string_view /*name*/) {
  return std::nullopt;
}

Entry entry_of(std::string name, std::string source) {
  Entry entry;
  entry.name = std::move(name);
  entry.source = std::move(source);
  return entry;
}

Result<Source> resolved(const Entry& entry, const EnvironmentLookup& env = empty_environment) {
  return resolve(entry, env, "/cache/eval");
}

// A working directory of its own, for sources that are paths.
class ResolveInDirectory : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "fvp-resolve-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
    before_ = fs::current_path();
    fs::current_path(directory_);
  }
  void TearDown() override {
    fs::current_path(before_);
    fs::remove_all(directory_);
  }
  static void make_file(const fs::path& path) {
    if (path.has_parent_path()) fs::create_directories(path.parent_path());
    std::ofstream(path) << "x";
  }

  fs::path directory_;
  fs::path before_;
};

TEST_F(ResolveInDirectory, ReturnsAnExistingPathUnchanged) {
  make_file("org/name");
  make_file("w.pth");
  for (const std::string source : {"org/name", "./w.pth", "org", "org/../w.pth", "w.pth"}) {
    const auto found = resolved(entry_of("n", source));
    ASSERT_TRUE(found) << found.error().message;
    ASSERT_EQ(kind_of(*found), EntryKind::kPath) << source;
    EXPECT_EQ(std::get<PathSource>(*found).path, source);
  }
}

TEST_F(ResolveInDirectory, FollowsALinkToAnExistingFile) {
  make_file("w.pth");
  fs::create_symlink("w.pth", "link.pth");
  const auto found = resolved(entry_of("n", "./link.pth"));
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(std::get<PathSource>(*found).path, "./link.pth");
}

TEST_F(ResolveInDirectory, TakesADanglingLinkForMissing) {
  fs::create_symlink("gone.pth", "link.pth");
  const auto found = resolved(entry_of("n", "./link.pth"));
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
}

TEST_F(ResolveInDirectory, PrefersAPathToARepositoryOfThatName) {
  make_file("bert-base-uncased");
  Entry entry = entry_of("n", "bert-base-uncased");
  entry.repo_type = "model";
  EXPECT_EQ(kind_of(resolved(entry).value()), EntryKind::kPath);
}

struct MissingRow {
  const char* name;
  std::string source;
  std::string repo_type;
  ErrorCode code;
  std::string says;
};
class Unresolvable : public testing::TestWithParam<MissingRow> {};

TEST_P(Unresolvable, SaysWhatTheSourceIsNot) {
  Entry entry = entry_of("n", GetParam().source);
  entry.repo_type = GetParam().repo_type;
  const auto found = resolved(entry);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, GetParam().code);
  EXPECT_NE(found.error().message.find(GetParam().says), std::string::npos)
      << found.error().message;
  EXPECT_FALSE(found.error().hint.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Unresolvable,
    testing::Values(
        MissingRow{"Absolute", "/no/such/file.pth", "", ErrorCode::kNotFound,
                   "the path `/no/such/file.pth` does not exist"},
        MissingRow{"AbsoluteWithOneSlash", "/no-such-file.pth", "", ErrorCode::kNotFound,
                   "the path `/no-such-file.pth` does not exist"},
        MissingRow{"Here", "./x", "", ErrorCode::kNotFound, "the path `./x` does not exist"},
        MissingRow{"Parent", "../no-such-x", "", ErrorCode::kNotFound, "does not exist"},
        MissingRow{"Home", "~/x", "", ErrorCode::kNotFound, "the path `~/x` does not exist"},
        MissingRow{"Word", "no-such-word", "", ErrorCode::kNotFound,
                   "neither a path that exists, nor an http(s) URL, nor a Hub repo id"},
        MissingRow{"TwoSlashes", "no/such/path", "", ErrorCode::kNotFound, "neither a path"},
        MissingRow{"OtherScheme", "s3://bucket/key?secret", "", ErrorCode::kNotFound,
                   "`s3://...`: it is neither a path"},
        MissingRow{"UpperCaseScheme", "HTTPS://example.org/x", "", ErrorCode::kNotFound,
                   "neither a path"},
        MissingRow{"InvalidRepoId", "org/-name", "", ErrorCode::kUsage, "not a valid Hub repo id"},
        MissingRow{"TrailingSlash", "org/", "", ErrorCode::kUsage, "not a valid Hub repo id"},
        MissingRow{"TypedRepoWithTwoSlashes", "a/b/c", "model", ErrorCode::kUsage,
                   "not a valid Hub repo id"},
        MissingRow{"TypedWord", "no..word", "model", ErrorCode::kUsage, "not a valid Hub repo id"}),
    [](const auto& row) { return row.param.name; });

TEST(Unresolvable, NeverShowsTheRestOfAnUnknownScheme) {
  const auto found = resolved(entry_of("n", "s3://key:secret@bucket/x?secret"));
  ASSERT_FALSE(found);
  EXPECT_EQ((found.error().message + found.error().subject).find("secret"), std::string::npos);
}

// URLs.

struct UrlRow {
  const char* name;
  std::string source;
  std::string dest;
  std::string sha256;
  std::string relative;
  std::string rule;
  std::string digest;
};
class ResolveUrlEntry : public testing::TestWithParam<UrlRow> {};

TEST_P(ResolveUrlEntry, HasAPlaceAndADigest) {
  const UrlRow& row = GetParam();
  Entry entry = entry_of("n.pth", row.source);
  entry.dest = row.dest;
  entry.sha256 = row.sha256;
  const auto found = resolved(entry);
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_EQ(kind_of(*found), EntryKind::kUrl);
  const auto& url = std::get<UrlSource>(*found);
  EXPECT_EQ(url.path(), "/cache/eval/" + row.relative);
  EXPECT_EQ(url.file.path, fs::path(row.relative).filename());
  EXPECT_EQ(url.file.urls, std::vector<std::string>{row.source});
  EXPECT_EQ(url.digest_rule, row.rule);
  EXPECT_EQ(url.file.digest ? url.file.digest->hex : "", row.digest);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, ResolveUrlEntry,
    testing::Values(
        UrlRow{"Models", "https://h/a.pth", "", "", "models/n.pth", "none", ""},
        UrlRow{"Http", "http://h/a.pth", "", "", "models/n.pth", "none", ""},
        UrlRow{"Library", "https://h/a.pth", "pyiqa/a-358bb6af.pth", "", "pyiqa/a-358bb6af.pth",
               "none", ""},
        UrlRow{"Manifest", "https://h/a.pth", "", kOtherDigest, "models/n.pth", "manifest",
               kOtherDigest},
        UrlRow{"ManifestInUpperCase", "https://h/a.pth", "", std::string(64, 'A'), "models/n.pth",
               "manifest", std::string(64, 'a')},
        UrlRow{"Clip", "https://h/clip/models/" + kClipDigest + "/ViT-B-32.pt", "clip/ViT-B-32.pt",
               "", "clip/ViT-B-32.pt", "clip address", kClipDigest},
        UrlRow{"ClipOverruled", "https://h/" + kClipDigest + "/ViT-B-32.pt", "clip/ViT-B-32.pt",
               kOtherDigest, "clip/ViT-B-32.pt", "manifest", kOtherDigest},
        UrlRow{"ClipWithoutDigest", "https://h/clip/x.pt", "clip/x.pt", "", "clip/x.pt", "none",
               ""},
        UrlRow{"ClipDigestInTheQueryOnly", "https://h/x.pt?d=/" + kClipDigest + "/", "clip/x.pt",
               "", "clip/x.pt", "none", ""},
        UrlRow{"ClipAddressElsewhere", "https://h/" + kClipDigest + "/x.pt", "", "", "models/n.pth",
               "none", ""},
        UrlRow{"Torch", "https://h/x", "torch/hub/checkpoints/alexnet-owt-7be5be79.pth", "",
               "torch/hub/checkpoints/alexnet-owt-7be5be79.pth", "name suffix", "7be5be79"},
        UrlRow{"TorchLongSuffix", "https://h/x", "torch/hub/checkpoints/a-0123456789abcdef.ckpt",
               "", "torch/hub/checkpoints/a-0123456789abcdef.ckpt", "name suffix",
               "0123456789abcdef"},
        UrlRow{"TorchDate", "https://h/x", "torch/hub/checkpoints/a-20230101.pth", "",
               "torch/hub/checkpoints/a-20230101.pth", "none", ""},
        UrlRow{"TorchShortSuffix", "https://h/x", "torch/hub/checkpoints/a-abcdef1.pth", "",
               "torch/hub/checkpoints/a-abcdef1.pth", "none", ""},
        UrlRow{"TorchWord", "https://h/x", "torch/hub/checkpoints/passt-s10-ap.476-swa.pt", "",
               "torch/hub/checkpoints/passt-s10-ap.476-swa.pt", "none", ""},
        UrlRow{"TorchUpperCase", "https://h/x", "torch/hub/checkpoints/a-7BE5BE79.pth", "",
               "torch/hub/checkpoints/a-7BE5BE79.pth", "none", ""},
        UrlRow{"TorchNoExtension", "https://h/x", "torch/hub/checkpoints/a-7be5be79", "",
               "torch/hub/checkpoints/a-7be5be79", "none", ""},
        UrlRow{"TorchSuffixElsewhere", "https://h/a-7be5be79.pth", "torch/other/a-7be5be79.pth", "",
               "torch/other/a-7be5be79.pth", "none", ""}),
    [](const auto& row) { return row.param.name; });

std::optional<std::string> environment_with_torch_home(std::string_view name) {
  if (name == "TORCH_HOME") return "/torch/home";
  return std::nullopt;
}

TEST(ResolveUrl, PutsTorchFilesBelowTorchHomeWhenItIsSet) {
  Entry entry = entry_of("n", "https://h/x");
  entry.dest = "torch/hub/checkpoints/alexnet-owt-7be5be79.pth";
  const auto found = resolved(entry, environment_with_torch_home);
  ASSERT_TRUE(found) << found.error().message;
  const auto& url = std::get<UrlSource>(*found);
  EXPECT_EQ(url.root, "/torch/home");
  EXPECT_EQ(url.relative, "hub/checkpoints/alexnet-owt-7be5be79.pth");
  EXPECT_EQ(url.digest_rule, "name suffix");
}

TEST(ResolveUrl, LeavesOtherFoldersInTheEvalCacheWhenTorchHomeIsSet) {
  Entry entry = entry_of("n", "https://h/x");
  entry.dest = "torchaudio/x.pt";
  const auto found = resolved(entry, environment_with_torch_home);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(std::get<UrlSource>(*found).path(), "/cache/eval/torchaudio/x.pt");
}

TEST(ResolveUrl, KeepsTheMirrorsInOrderBehindTheSource) {
  Entry entry = entry_of("n", "https://h/x?sig=1");
  entry.mirrors = {"https://m1/x", "http://m2/x"};
  entry.size = 7;
  const auto found = resolved(entry);
  ASSERT_TRUE(found) << found.error().message;
  const FileSpec& file = std::get<UrlSource>(*found).file;
  EXPECT_EQ(file.urls,
            (std::vector<std::string>{"https://h/x?sig=1", "https://m1/x", "http://m2/x"}));
  EXPECT_EQ(file.size, 7U);
  EXPECT_EQ(file.blob, "");
}

TEST(ResolveUrl, NoPartOfAnAddressThatMayBeSecretNamesAPublicLock) {
  for (const std::string rest : {"?", "?sig=1", "#part", "?sig=1#part"}) {
    const auto found = resolved(entry_of("n", "https://h/x" + rest));
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(fastvideo_key(*found), std::nullopt) << rest;
  }
  const auto found = resolved(entry_of("n", "https://h/x"));
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(fastvideo_key(*found), "https://h/x");
}

TEST(ResolveUrl, AnArchiveIsKnownByWhatTheManifestSaysAlone) {
  Entry entry = entry_of("n", "https://h/x.zip");
  entry.dest = "torch/hub/checkpoints/a-7be5be79.pth";  // of the folder: no digest of the archive
  entry.unpack = true;
  entry.strip_components = 1;
  const auto found = resolved(entry);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(kind_of(*found), EntryKind::kArchive);
  const auto& url = std::get<UrlSource>(*found);
  EXPECT_EQ(url.strip_components, 1U);
  EXPECT_EQ(url.file.digest, std::nullopt);
  EXPECT_EQ(fastvideo_key(*found), std::nullopt);
}

TEST(ResolveUrl, RefusesANameThatLeavesTheCache) {
  for (const std::string name : {"../x", "/x", "a/../../x", ""}) {
    const auto found = resolved(entry_of(name, "https://h/x"));
    ASSERT_FALSE(found) << name;
    EXPECT_EQ(found.error().code, ErrorCode::kUsage);
  }
}

// Hub.

TEST(ResolveHub, TakesAWholeSnapshotOfMainByDefault) {
  const auto found = resolved(entry_of("", "org/name"));
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(kind_of(*found), EntryKind::kHubSnapshot);
  const auto& hub = std::get<HubSource>(*found);
  EXPECT_EQ(hub.repo.id, "org/name");
  EXPECT_EQ(hub.repo.type, hub::RepoType::kModel);
  EXPECT_EQ(hub.revision, "main");
}

TEST(ResolveHub, KeepsWhatTheEntryAsksFor) {
  Entry entry = entry_of("n", "org/name");
  entry.repo_type = "dataset";
  entry.revision = "v1.0";
  entry.filename = "a/b.bin";
  entry.sha256 = std::string(64, 'B');
  entry.size = 3;
  const auto found = resolved(entry);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(kind_of(*found), EntryKind::kHubFile);
  const auto& hub = std::get<HubSource>(*found);
  EXPECT_EQ(hub.repo.type, hub::RepoType::kDataset);
  EXPECT_EQ(hub.revision, "v1.0");
  EXPECT_EQ(hub.filename, "a/b.bin");
  EXPECT_EQ(hub.sha256, std::string(64, 'b'));
  EXPECT_EQ(hub.size, 3U);
}

TEST(ResolveHub, NeedsARepoTypeForAnIdWithoutSlash) {
  Entry entry = entry_of("n", "bert-base-uncased");
  const auto bare = resolved(entry);
  ASSERT_FALSE(bare);
  EXPECT_NE(bare.error().hint.find("repo_type"), std::string::npos);
  entry.repo_type = "model";
  const auto typed = resolved(entry);
  ASSERT_TRUE(typed) << typed.error().message;
  EXPECT_EQ(std::get<HubSource>(*typed).repo.id, "bert-base-uncased");
}

TEST(ResolveHub, RefusesADigestForAWholeSnapshot) {
  Entry entry = entry_of("n", "org/name");
  entry.sha256 = kOtherDigest;
  const auto found = resolved(entry);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kUsage);
}

// Destinations.

class Destinations : public testing::Test {
 protected:
  void add(std::string name, std::string source, std::string dest = {}, std::string sha256 = {}) {
    Entry entry = entry_of(std::move(name), std::move(source));
    entry.dest = std::move(dest);
    entry.sha256 = std::move(sha256);
    auto found = resolve(entry, environment_with_torch_home, cache);
    ASSERT_TRUE(found) << found.error().message;
    entries.push_back(entry);
    sources.push_back(std::move(*found));
  }
  [[nodiscard]] std::string problems() const {
    const Status status = check_destinations(entries, sources);
    if (status) return "";
    EXPECT_EQ(status.error().code, ErrorCode::kUsage);
    return status.error().message;
  }

  std::string cache = "/cache/eval";
  std::vector<Entry> entries;
  std::vector<Source> sources;
};

TEST_F(Destinations, MayBeManyAndDifferent) {
  add("a", "https://h/a");
  add("b", "https://h/b");
  add("ab", "https://h/a", "lib/ab");
  add("org", "org/name");
  EXPECT_EQ(problems(), "");
}

TEST_F(Destinations, MayBeSharedByEntriesOfOneSource) {
  add("a", "https://h/a", "lib/a");
  add("b", "https://h/a", "lib/a");
  EXPECT_EQ(problems(), "");
}

TEST_F(Destinations, MustNotBeSharedByTwoSources) {
  add("a", "https://h/a");
  add("b", "https://h/b", "models/a");
  EXPECT_EQ(problems(),
            "entries `a` and `b` have different sources and one destination, "
            "`/cache/eval/models/a`");
}

TEST_F(Destinations, AreComparedAfterTorchHomeIsKnown) {
  cache = "/torch/home";
  add("a", "https://h/a", "hub/x");
  add("b", "https://h/b", "torch/hub/x");
  EXPECT_NE(problems().find("entries `a` and `b`"), std::string::npos);
}

TEST_F(Destinations, MustNotHaveTwoDigests) {
  add("a", "https://h/a", "lib/a", kOtherDigest);
  add("b", "https://h/a", "lib/a");
  EXPECT_NE(problems().find("not one sha256"), std::string::npos);
}

TEST_F(Destinations, MustNotBeAFolderOfAnother) {
  add("a", "https://h/a");
  add("a/b/c", "https://h/b");
  EXPECT_EQ(problems(),
            "the destination of entry `a/b/c` lies below that of entry `a`, "
            "`/cache/eval/models/a`, which is a file");
}

TEST_F(Destinations, MustNotBeUnpackedInTwoWays) {
  add("a", "https://h/a.zip", "lib/a");
  add("b", "https://h/a.zip", "lib/a");
  entries.back().unpack = true;
  EXPECT_NE(problems().find("not one `unpack`"), std::string::npos);
}

TEST_F(Destinations, MustNotLieInWhatIsUnpackedAsAWhole) {
  add("a", "https://h/a.zip", "lib/a");
  entries.back().unpack = true;
  add("b", "https://h/b", "lib/a/b");
  EXPECT_NE(problems().find("`/cache/eval/lib/a`, which is unpacked as a whole"),
            std::string::npos);
}

TEST_F(Destinations, AreNoFoldersOfNamesThatOnlyBeginAlike) {
  add("a", "https://h/a");
  add("ab/c", "https://h/b");
  add("a-b", "https://h/c");
  EXPECT_EQ(problems(), "");
}

TEST_F(Destinations, BelongToEntriesOfDifferentNames) {
  add("a", "org/a");
  add("a", "org/b");
  EXPECT_EQ(problems(), "two entries have the name `a`");
}

// Choice of files.

std::vector<RepoFile> tree() {
  const std::string sha1(40, '1');
  return {{".gitattributes", 1, sha1, "", 0, ""},
          {"config.json", 2, sha1, "", 0, ""},
          {"model.bin", 9, sha1, kClipDigest, 9, ""},
          {"model.safetensors", 9, sha1, kOtherDigest, 9, ""},
          {"onnx/config.json", 3, sha1, "", 0, ""},
          {"onnx/model.onnx", 9, sha1, kOtherDigest, 9, ""}};
}

struct SelectRow {
  const char* name;
  std::vector<std::string> include;
  std::vector<std::string> exclude;
  std::vector<std::string> paths;
};
class Select : public testing::TestWithParam<SelectRow> {};

TEST_P(Select, KeepsWhatIsIncludedAndNotExcluded) {
  HubSource source;
  source.repo.id = "org/name";
  source.include = GetParam().include;
  source.exclude = GetParam().exclude;
  const auto files = select(source, tree());
  ASSERT_TRUE(files) << files.error().message;
  std::vector<std::string> paths;
  for (const RepoFile& file : *files) paths.push_back(file.path);
  EXPECT_EQ(paths, GetParam().paths);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Select,
    testing::Values(
        SelectRow{"All",
                  {},
                  {},
                  {".gitattributes", "config.json", "model.bin", "model.safetensors",
                   "onnx/config.json", "onnx/model.onnx"}},
        SelectRow{"IncludeMatchesInFolders", {"*.json"}, {}, {"config.json", "onnx/config.json"}},
        SelectRow{"AnyInclude", {"*.bin", "*.onnx"}, {}, {"model.bin", "onnx/model.onnx"}},
        SelectRow{"ExcludeWins", {"*.json"}, {"onnx/*"}, {"config.json"}},
        SelectRow{
            "ExcludeAlone", {}, {"*.bin", "onnx*", ".*"}, {"config.json", "model.safetensors"}},
        SelectRow{
            "TrailingSlashMeansAllBelow", {"onnx/"}, {}, {"onnx/config.json", "onnx/model.onnx"}},
        SelectRow{"BackslashIsSlash", {"onnx\\*.json"}, {}, {"onnx/config.json"}}),
    [](const auto& row) { return row.param.name; });

HubSource file_source(std::string filename) {
  HubSource source;
  source.repo.id = "org/name";
  source.revision = "main";
  source.filename = std::move(filename);
  return source;
}

TEST(Select, TakesOneFileByItsWholePath) {
  const auto files = select(file_source("onnx/config.json"), tree());
  ASSERT_TRUE(files) << files.error().message;
  ASSERT_EQ(files->size(), 1U);
  EXPECT_EQ(files->front().path, "onnx/config.json");
}

TEST(Select, NamesTheNearestFileWhenOneIsNotThere) {
  const auto files = select(file_source("model.safetensor"), tree());
  ASSERT_FALSE(files);
  EXPECT_EQ(files.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(files.error().message, "`org/name` has no file `model.safetensor` at revision `main`");
  EXPECT_EQ(files.error().hint, "did you mean `model.safetensors`?");
}

TEST(Select, TakesNoPatternForAFileName) {
  EXPECT_EQ(select(file_source("*.bin"), tree()).error().code, ErrorCode::kNotFound);
}

TEST(Select, ComparesTheManifestsDigestWithTheHubs) {
  HubSource source = file_source("model.bin");
  source.sha256 = kClipDigest;
  EXPECT_TRUE(select(source, tree()));
  source.sha256 = kOtherDigest;
  EXPECT_EQ(select(source, tree()).error().code, ErrorCode::kIntegrity);
}

TEST(Select, ComparesTheManifestsSizeWithTheHubs) {
  HubSource source = file_source("config.json");
  source.size = 2;
  EXPECT_TRUE(select(source, tree()));
  source.size = 3;
  EXPECT_EQ(select(source, tree()).error().code, ErrorCode::kIntegrity);
}

TEST(Select, SaysWhichPatternsMatchNothing) {
  HubSource source = file_source("");
  source.include = {"*.gguf"};
  source.exclude = {"x"};
  const auto files = select(source, tree());
  ASSERT_FALSE(files);
  EXPECT_EQ(files.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(files.error().message,
            "no file of `org/name` matches include [\"*.gguf\"] without exclude [\"x\"]");
}

TEST(Select, SaysThatARepositoryIsEmpty) {
  const auto files = select(file_source(""), {});
  ASSERT_FALSE(files);
  EXPECT_EQ(files.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace fvprefetch
