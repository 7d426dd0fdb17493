#include "fvprefetch/manifest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

namespace fvprefetch {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> stems(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& file : fs::directory_iterator(folder)) {
    if (file.path().extension() == ".json") names.push_back(file.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string row_name(const testing::TestParamInfo<std::string>& info) {
  return info.param;
}

// tests/data/manifests/bad/x.json and, beside it, the whole message in x.expected.
class BadManifest : public testing::TestWithParam<std::string> {};

TEST_P(BadManifest, IsRefusedWithEveryMistakeAndItsPlace) {
  const fs::path folder = fs::path(FVP_MANIFESTS) / "bad";
  const auto manifest = parse_manifest(read(folder / (GetParam() + ".json")), GetParam() + ".json");
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kUsage);
  EXPECT_EQ(manifest.error().message + "\n", read(folder / (GetParam() + ".expected")));
}

INSTANTIATE_TEST_SUITE_P(Files, BadManifest,
                         testing::ValuesIn(stems(fs::path(FVP_MANIFESTS) / "bad")), row_name);

class GoodManifest : public testing::TestWithParam<std::string> {};

TEST_P(GoodManifest, IsAccepted) {
  const fs::path file = fs::path(FVP_MANIFESTS) / "good" / (GetParam() + ".json");
  const auto manifest = load_manifest(file.string());
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->origin, file.string());
  EXPECT_FALSE(manifest->entries.empty());
}

TEST_P(GoodManifest, HasEntriesThatAreValidInCodeToo) {
  const auto manifest =
      parse_manifest(read(fs::path(FVP_MANIFESTS) / "good" / (GetParam() + ".json")));
  ASSERT_TRUE(manifest) << manifest.error().message;
  for (const Entry& entry : manifest->entries) {
    const Status valid = validate(entry);
    EXPECT_TRUE(valid) << entry.name << ": " << valid.error().message;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoodManifest,
                         testing::ValuesIn(stems(fs::path(FVP_MANIFESTS) / "good")), row_name);

TEST(Manifest, ReadsEveryField) {
  const auto manifest = load_manifest(FVP_MANIFESTS "/good/full.json");
  ASSERT_TRUE(manifest) << manifest.error().message;
  ASSERT_EQ(manifest->entries.size(), 7U);

  Entry raft;
  raft.name = "raft";
  raft.source = "sbalani/raft-things";
  raft.filename = "raft-things.pth";
  EXPECT_EQ(manifest->entries[0], raft);

  Entry score;
  score.name = "videoscore";
  score.source = "TIGER-Lab/VideoScore2";
  score.revision = "main";
  score.include = {"*.safetensors", "*.json"};
  score.exclude = {"*.bin"};
  EXPECT_EQ(manifest->entries[1], score);

  Entry amt;
  amt.name = "amt-s.pth";
  amt.source = "https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth";
  amt.sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
  amt.size = 12345678;
  amt.mirrors = {"https://mirror.example/amt-s.pth"};
  EXPECT_EQ(manifest->entries[2], amt);

  EXPECT_EQ(manifest->entries[3].dest, "clip/ViT-B-32.pt");
  EXPECT_TRUE(manifest->entries[3].optional);
  EXPECT_EQ(manifest->entries[4].repo_type, "model");
  EXPECT_FALSE(manifest->entries[4].unpack);
  EXPECT_TRUE(manifest->entries[5].unpack);
  EXPECT_EQ(manifest->entries[5].strip_components, 1U);
  EXPECT_FALSE(manifest->entries[6].optional);
}

TEST(Manifest, ReadsWhatALockFileHas) {
  const auto manifest = load_manifest(FVP_MANIFESTS "/good/locked.json");
  ASSERT_TRUE(manifest) << manifest.error().message;
  const Entry& model = manifest->entries.at(0);
  EXPECT_EQ(model.locked_from, "main");
  ASSERT_EQ(model.files.size(), 3U);
  PinnedFile large;
  large.path = "sub/model.safetensors";
  large.size = 600000;
  large.sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
  EXPECT_EQ(model.files[0], large);
  EXPECT_EQ(model.files[1].git_sha1, "0123456789abcdef0123456789abcdef01234567");
}

TEST_P(GoodManifest, IsWrittenAsItIsRead) {
  const auto manifest =
      parse_manifest(read(fs::path(FVP_MANIFESTS) / "good" / (GetParam() + ".json")));
  ASSERT_TRUE(manifest) << manifest.error().message;
  const std::string text = manifest_text(*manifest);
  const auto again = parse_manifest(text);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->entries, manifest->entries);
  EXPECT_EQ(manifest_text(*again), text);
}

TEST(Manifest, TakesAnEmptyOrNullFilenameForNone) {
  const auto manifest = load_manifest(FVP_MANIFESTS "/good/bare_array.json");
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->entries[0].filename, "");
  EXPECT_EQ(manifest->entries[1].filename, "");
  EXPECT_EQ(manifest->entries[2].filename, "c.pth");
}

TEST(Manifest, HintsAtTheSchemaWhenItIsWrong) {
  const auto manifest = parse_manifest("{}");
  ASSERT_FALSE(manifest);
  EXPECT_NE(manifest.error().hint.find("fvprefetch schema"), std::string::npos);
  EXPECT_EQ(manifest.error().subject, "<text>");
}

TEST(Manifest, NeverShowsTheQueryOfAUrl) {
  const auto manifest =
      parse_manifest(R"([{"name": "a", "source": "https://u:pw@[bad/x?token=secret"}])");
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().message.find("secret"), std::string::npos);
  EXPECT_EQ(manifest.error().message.find("pw"), std::string::npos);
}

TEST(Manifest, CountsTheMistakesThatItDoesNotShow) {
  std::string text = "[";
  for (int i = 0; i < 150; ++i) text += std::string(i == 0 ? "" : ",\n") + "{}";
  const auto manifest = parse_manifest(text + "]");  // two mistakes an entry
  ASSERT_FALSE(manifest);
  const std::string& message = manifest.error().message;
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 100);
  EXPECT_NE(message.find("... and 200 more"), std::string::npos) << message;
}

TEST(Manifest, IsAtMost64MiB) {
  std::string text(65U << 20U, ' ');
  text.front() = '[';
  text.back() = ']';
  const auto manifest = parse_manifest(text, "big.json");
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kUsage);
  EXPECT_NE(manifest.error().message.find("64 MiB"), std::string::npos);
}

TEST(LoadManifest, SaysThatTheFileIsNotThere) {
  const auto manifest = load_manifest(FVP_MANIFESTS "/no-such.json");
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kNotFound);
  EXPECT_NE(manifest.error().message.find("no-such.json` does not exist"), std::string::npos);
  EXPECT_FALSE(manifest.error().hint.empty());
}

TEST(LoadManifest, RefusesADirectory) {
  const auto manifest = load_manifest(FVP_MANIFESTS);
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, ErrorCode::kUsage);
  EXPECT_NE(manifest.error().message.find("is a directory"), std::string::npos);
}

TEST(LoadManifest, ReadsStandardInputForADash) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  constexpr std::string_view kText = R"([{"name": "a", "source": "org/a"}, {"nam": 1}])";
  ASSERT_EQ(write(ends[1], kText.data(), kText.size()), static_cast<ssize_t>(kText.size()));
  close(ends[1]);
  const int saved = dup(STDIN_FILENO);
  ASSERT_EQ(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
  close(ends[0]);

  const auto manifest = load_manifest("-");

  if (saved >= 0) {
    dup2(saved, STDIN_FILENO);
    close(saved);
  }
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().message.substr(0, 31), "<stdin>:1:36: /1: `name` is mis");
}

TEST(LoadManifest, ReadsAPipeLargerThanItsBuffer) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  std::string text = R"([{"name": "a", "source": "org/a"}])";
  text.insert(1, 300'000, ' ');
  std::thread writer([&] {
    std::string_view rest = text;
    while (!rest.empty()) {
      const ssize_t sent = write(ends[1], rest.data(), rest.size());
      if (sent <= 0) break;
      rest.remove_prefix(static_cast<std::size_t>(sent));
    }
    close(ends[1]);
  });
  const auto manifest = load_manifest("/dev/fd/" + std::to_string(ends[0]));
  writer.join();
  close(ends[0]);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->entries.size(), 1U);
}

// Schema and parser are two texts of one format.

TEST(ManifestSchema, NamesTheFieldsThatTheParserKnows) {
  const auto schema = nlohmann::json::parse(manifest_schema(), nullptr, false);
  ASSERT_TRUE(schema.is_object());
  // The parser lists what it knows when a field is near to none of it.
  const auto known = [](const std::string& text) {
    const auto manifest = parse_manifest(text);
    const std::string message = manifest ? "" : manifest.error().message;
    constexpr std::string_view kMark = "unknown field; known are ";
    std::set<std::string> names;
    const std::string rest = message.substr(message.find(kMark) + kMark.size());
    std::stringstream list(rest.substr(0, rest.find('\n')));
    for (std::string name; std::getline(list, name, ',');) {
      names.insert(name.starts_with(' ') ? name.substr(1) : name);
    }
    return names;
  };
  const auto properties = [](const nlohmann::json& object) {
    std::set<std::string> names;
    for (const auto& property : object.at("properties").items()) names.insert(property.key());
    return names;
  };
  EXPECT_EQ(properties(schema.at("$defs").at("entry")),
            known(R"([{"name": "a", "source": "org/a", "qqqqqqqqqq": 1}])"));
  EXPECT_EQ(properties(schema.at("$defs").at("file")),
            known(R"([{"name": "a", "source": "org/a", "files": [{"qqqqqqqqqq": 1}]}])"));
  EXPECT_EQ(properties(schema.at("oneOf").at(0)),
            known(R"({"version": 1, "entries": [{"name": "a", "source": "o/a"}], "qqqqqqqq": 1})"));
  EXPECT_EQ(schema.at("$defs").at("entry").at("required"), nlohmann::json({"name", "source"}));
}

TEST(ManifestSchema, RefusesFieldsThatItDoesNotKnow) {
  const auto schema = nlohmann::json::parse(manifest_schema(), nullptr, false);
  EXPECT_EQ(schema.at("$defs").at("entry").at("additionalProperties"), false);
  EXPECT_EQ(schema.at("oneOf").at(0).at("additionalProperties"), false);
  EXPECT_EQ(schema.at("$schema"), "https://json-schema.org/draft/2020-12/schema");
}

// ensure_checkpoint's arguments.

Entry entry_of(std::string name, std::string source) {
  Entry entry;
  entry.name = std::move(name);
  entry.source = std::move(source);
  return entry;
}

TEST(Validate, IgnoresTheNameOfWhatIsNotAUrl) {
  EXPECT_TRUE(validate(entry_of("", "org/repo")));
  EXPECT_TRUE(validate(entry_of("../x", "/some/path")));
}

TEST(Validate, NeedsANameThatStaysInTheCacheForAUrl) {
  EXPECT_FALSE(validate(entry_of("", "https://example.org/a")));
  EXPECT_FALSE(validate(entry_of("../x", "https://example.org/a")));
  EXPECT_FALSE(validate(entry_of("/abs", "https://example.org/a")));
  EXPECT_TRUE(validate(entry_of("sub/x.pth", "https://example.org/a")));
}

TEST(Validate, LeavesRoomForTheNameOfAnUnfinishedDownload) {
  EXPECT_TRUE(validate(entry_of(std::string(229, 'x'), "https://example.org/a")));
  EXPECT_FALSE(validate(entry_of(std::string(230, 'x'), "https://example.org/a")));
}

TEST(Validate, NamesEveryWrongFieldInOneError) {
  Entry entry = entry_of("", "https://example.org/a");
  entry.sha256 = "12";
  entry.filename = "x";
  const Status valid = validate(entry);
  ASSERT_FALSE(valid);
  EXPECT_EQ(valid.error().code, ErrorCode::kUsage);
  EXPECT_EQ(valid.error().message,
            "`name`: must not be empty\n"
            "`filename`: is for Hub repos only, and the source is a URL\n"
            "`sha256`: expected 64 hex digits, got 2");
}

TEST(Validate, NamesWhatIsWrongWithPinnedFiles) {
  Entry entry = entry_of("a", "org/a");
  entry.files.resize(1);
  entry.files[0].path = "x";
  const Status valid = validate(entry);
  ASSERT_FALSE(valid);
  EXPECT_EQ(valid.error().message,
            "`files`: needs a commit of 40 hex digits as `revision`\n"
            "`files/0/sha256`: is missing, and so is `git_sha1`");
}

TEST(Validate, RefusesAnEmptySource) {
  EXPECT_FALSE(validate(entry_of("a", "")));
}

// What the program ships.

TEST(ShippedManifest, IsValid) {
  const auto manifest = load_manifest(FVP_SHIPPED_MANIFESTS "/fastvideo-eval.json");
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->entries.size(), 28U);
}

TEST(ShippedManifest, PutsFilesWhereTheirLibrariesLook) {
  const auto manifest = load_manifest(FVP_SHIPPED_MANIFESTS "/fastvideo-eval.json");
  ASSERT_TRUE(manifest) << manifest.error().message;
  std::map<std::string, std::string> dest;
  for (const Entry& entry : manifest->entries) dest[entry.name] = entry.dest;
  EXPECT_EQ(dest.at("clip-vit-l-14"), "clip/ViT-L-14.pt");
  EXPECT_EQ(dest.at("clip-vit-b-32"), "clip/ViT-B-32.pt");
  EXPECT_EQ(dest.at("dino-code"), "torch/hub/facebookresearch_dino_main");
  EXPECT_EQ(dest.at("alexnet-owt-7be5be79.pth"), "torch/hub/checkpoints/alexnet-owt-7be5be79.pth");
  EXPECT_EQ(dest.at("musiq_spaq_ckpt-358bb6af.pth"), "pyiqa/musiq_spaq_ckpt-358bb6af.pth");
  EXPECT_EQ(dest.at("amt-s.pth"), "");
}

}  // namespace
}  // namespace fvprefetch
