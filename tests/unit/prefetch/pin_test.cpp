// Pinned manifests: what lock() makes of one, that a run by it asks the Hub's API nothing, and what
// --frozen refuses.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/try.h"
#include "unit/prefetch/fixture.h"

namespace fvprefetch {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the fixture's words

class PinTest : public PrefetchTest {
 protected:
  Result<Manifest> lock(const std::string& entries) {
    FVP_TRY(const Manifest manifest, parse_manifest(entries));
    Seams seams;
    seams.clock = &clock;
    seams.make_transport = [this] { return std::make_unique<Borrowed>(wire); };
    return lock_with(manifest, options, seams);
  }
  /// One entry that pins `files` (path -> text) of the repository at kCommit.
  static std::string pinned(const std::map<std::string, std::string>& files,
                            const std::string& more = "") {
    std::string list;
    for (const auto& [path, text] : files) {
      list += (list.empty() ? "" : ",") + std::string(R"({"path": ")") + path + R"(", "size": )" +
              std::to_string(text.size()) + R"(, "git_sha1": ")" + git_sha1_hex(text) + "\"}";
    }
    return R"([{"name": "m", "source": "org/model", "revision": ")" + kCommit + "\"" + more +
           R"(, "files": [)" + list + "]}]";
  }
  [[nodiscard]] std::string snapshot(const std::string& path) const {
    return "hub/models--org--model/snapshots/" + kCommit + "/" + path;
  }
  [[nodiscard]] std::size_t receipts() const {
    std::size_t count = 0;
    for (const std::string& file : dir.files("hub")) count += file.find("/receipts/") != file.npos;
    return count;
  }
};

// --- runs ----------------------------------------------------------------------------------------

TEST_F(PinTest, AColdRunSendsNothingButTheFilesRequests) {
  options.frozen = true;
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  wire.on(kFiles + "/b.bin", Answer::whole("bbb"));
  const Report report = run(pinned({{"a.bin", "aaa"}, {"b.bin", "bbb"}}));
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(dir.read(snapshot("b.bin")), "bbb");
  EXPECT_EQ(report.entries[0].commit, kCommit);
  EXPECT_EQ(wire.sent().size(), 2U);
  // The list may be a part of what the commit has, which readers of this file would not know.
  EXPECT_EQ(dir.read("hub/models--org--model/trees/" + kCommit + ".json"), "<missing>");
  EXPECT_EQ(dir.read("hub/models--org--model/refs/main"), "<missing>");
}

TEST_F(PinTest, AWarmRunIsAHitByItsReceiptAndSendsNothing) {
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  ASSERT_TRUE(run(pinned({{"a.bin", "aaa"}})).ok());
  const Report warm = run(pinned({{"a.bin", "aaa"}}));
  EXPECT_EQ(warm.entries[0].state, EntryState::kHit);
  EXPECT_EQ(warm.entries[0].verified_by, "receipt");
  EXPECT_EQ(wire.sent().size(), 1U);
}

TEST_F(PinTest, PatternsAndFilenameChooseFromTheList) {
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const std::map<std::string, std::string> files{{"a.bin", "aaa"}, {"b.txt", "bbb"}};
  const Report some = run(pinned(files, R"(, "include": ["*.bin"])"));
  ASSERT_TRUE(some.ok()) << describe(*some.error);
  EXPECT_EQ(some.entries[0].files, 1U);
  const Report one = run(pinned(files, R"(, "filename": "a.bin")"));
  ASSERT_TRUE(one.ok()) << describe(*one.error);
  EXPECT_EQ(one.entries[0].path, dir / snapshot("a.bin"));
  const Report none = run(pinned(files, R"(, "filename": "a.bim")"));
  EXPECT_EQ(none.code(), ErrorCode::kNotFound);
  EXPECT_NE(none.error->hint.find("a.bin"), std::string::npos) << none.error->hint;
}

TEST_F(PinTest, WhatTheHubSendsMustBeWhatIsPinned) {
  options.retries = 0;
  wire.on(kFiles + "/a.bin", Answer::whole("xxx"));
  wire.on(kFiles + "/a.bin", Answer::whole("xxx"));
  EXPECT_EQ(run(pinned({{"a.bin", "aaa"}})).code(), ErrorCode::kIntegrity);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "<missing>");
  EXPECT_EQ(dir.read("hub/models--org--model/blobs/" + git_sha1_hex("aaa")), "<missing>");
}

TEST_F(PinTest, AReceiptOfAnotherListDoesNotSatisfyThisOne) {
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  ASSERT_TRUE(run(pinned({{"a.bin", "aaa"}})).ok());
  // The same path and size, other bytes: neither the cache nor the Hub has got these.
  for (int i = 0; i < 2; ++i) wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const Report other = run(pinned({{"a.bin", "xxx"}}));
  EXPECT_EQ(other.code(), ErrorCode::kIntegrity);
  EXPECT_NE(other.error->message.find(git_sha1_hex("aaa")), std::string::npos)
      << other.error->message;
  EXPECT_EQ(receipts(), 1U);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
}

TEST_F(PinTest, ACacheThatAnUnpinnedRunFilledIsAHitByTheList) {
  hub_lists({{"a.bin", "aaa"}, {"b.bin", "bbb"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  wire.on(kFiles + "/b.bin", Answer::whole("bbb"));
  ASSERT_TRUE(run(R"([{"name": "m", "source": "org/model"}])").ok());
  const std::string tree = dir.read("hub/models--org--model/trees/" + kCommit + ".json");
  const Report report = run(pinned({{"a.bin", "aaa"}}));
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(report.entries[0].verified_by, "manifest");
  EXPECT_EQ(wire.sent().size(), 4U);
  EXPECT_EQ(dir.read("hub/models--org--model/trees/" + kCommit + ".json"), tree);
  EXPECT_EQ(dir.read("hub/models--org--model/refs/main"), kCommit);
}

TEST_F(PinTest, ACopyInPlaceOfALinkIsHashed) {
  dir.write(snapshot("a.bin"), "aaa");
  const Report good = run(pinned({{"a.bin", "aaa"}}));
  ASSERT_TRUE(good.ok()) << describe(*good.error);
  EXPECT_TRUE(wire.sent().empty());
  // One that is not what is pinned is fetched again, which tells who is right.
  wire.on(kFiles + "/a.bin", Answer::whole("bbb"));
  const Report other = run(pinned({{"a.bin", "bbb"}}));
  ASSERT_TRUE(other.ok()) << describe(*other.error);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "bbb");
  EXPECT_EQ(other.entries[0].warnings.size(), 1U);
}

TEST_F(PinTest, AnotherEntryThatPinsThePathToOtherBytesDoesNotStandInForThem) {
  options.max_active = 1;
  options.keep_going = true;
  for (int i = 0; i < 3; ++i) wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const std::string right = pinned({{"a.bin", "aaa"}});
  std::string wrong = pinned({{"a.bin", "xxx"}});
  wrong.replace(wrong.find(R"("m")"), 3, R"("n")");
  const Report report = run(right.substr(0, right.size() - 1) + "," + wrong.substr(1));
  EXPECT_EQ(report.code(), ErrorCode::kIntegrity);
  EXPECT_EQ(report.entries[0].state, EntryState::kFetched);
  EXPECT_EQ(report.entries[1].state, EntryState::kFailed);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
}

TEST_F(PinTest, OfflineTheListTellsWhatIsMissing) {
  options.offline = true;
  const Report report = run(pinned({{"a.bin", "aaa"}, {"b.bin", "bbb"}}));
  EXPECT_EQ(report.code(), ErrorCode::kOfflineMissing);
  EXPECT_NE(report.error->message.find("b.bin (3 bytes)"), std::string::npos)
      << report.error->message;
}

// --- lock() --------------------------------------------------------------------------------------

TEST_F(PinTest, LockPinsTheSelectedFilesOfABranch) {
  hub_lists({{"b.bin", "bbb"}, {"a.bin", "aaa"}, {"c.txt", "ccc"}});
  const auto locked = lock(R"([{"name": "m", "source": "org/model", "include": ["*.bin"]}])");
  ASSERT_TRUE(IsOk(locked));
  const Entry& entry = locked->entries.at(0);
  EXPECT_EQ(entry.revision, kCommit);
  EXPECT_EQ(entry.locked_from, "main");
  EXPECT_EQ(entry.include, std::vector<std::string>{"*.bin"});
  ASSERT_EQ(entry.files.size(), 2U);
  EXPECT_EQ(entry.files[0].path, "a.bin");
  EXPECT_EQ(entry.files[0].size, 3U);
  EXPECT_EQ(entry.files[1].git_sha1, git_sha1_hex("bbb"));
  EXPECT_FALSE(std::filesystem::exists(dir / "hub"));
}

TEST_F(PinTest, LockOfALockedManifestIsThatManifest) {
  hub_lists({{"a.bin", "aaa"}});
  const auto locked =
      lock(R"([{"name": "m", "source": "org/model", "filename": "a.bin", "optional": true}])");
  ASSERT_TRUE(IsOk(locked));
  EXPECT_EQ(locked->entries.at(0).size, 3U);
  const std::string text = manifest_text(*locked);
  const std::size_t asked = wire.sent().size();
  const auto again = lock(text);
  ASSERT_TRUE(IsOk(again));
  EXPECT_EQ(manifest_text(*again), text);
  EXPECT_EQ(wire.sent().size(), asked);
}

TEST_F(PinTest, LockTakesTheCommitThatTheCacheHasUnlessRefreshed) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const std::string entries = R"([{"name": "m", "source": "org/model"}])";
  ASSERT_TRUE(run(entries).ok());
  const std::size_t asked = wire.sent().size();
  options.offline = true;
  const auto cached = lock(entries);
  ASSERT_TRUE(IsOk(cached));
  EXPECT_EQ(cached->entries.at(0).files.at(0).git_sha1, git_sha1_hex("aaa"));
  EXPECT_EQ(wire.sent().size(), asked);

  options.offline = false;
  options.refresh = true;
  const std::string newer(40, 'd');
  wire.on(kApi + "/revision/main", Answer::whole(R"({"sha": ")" + newer + R"("})"));
  wire.on(kApi + "/tree/" + newer + "?recursive=true&expand=false",
          Answer::whole(R"([{"type": "file", "path": "n.bin", "size": 1, "oid": ")" +
                        git_sha1_hex("n") + R"("}])"));
  const auto refreshed = lock(entries);
  ASSERT_TRUE(IsOk(refreshed));
  EXPECT_EQ(refreshed->entries.at(0).revision, newer);
}

TEST_F(PinTest, LockPinsAUrlByItsReceiptOrByHashingTheCachedFile) {
  wire.on("https://host/a", Answer::whole("aaa"));
  const std::string a = R"({"name": "a", "source": "https://host/a"})";
  ASSERT_TRUE(run("[" + a + "]").ok());
  dir.write("eval/models/b", "put there by hand");
  wire.on("https://host/b", Answer(200).header("content-length", "17"));  // of a HEAD
  const auto locked = lock("[" + a + R"(, {"name": "b", "source": "https://host/b"}])");
  ASSERT_TRUE(IsOk(locked));
  EXPECT_EQ(locked->entries[0].sha256, sha256_hex("aaa"));
  EXPECT_EQ(locked->entries[0].size, 3U);
  EXPECT_EQ(locked->entries[1].sha256, sha256_hex("put there by hand"));
  EXPECT_EQ(wire.sent().size(), 2U);
}

TEST_F(PinTest, LockPinsNoFileThatIsEmptyOrNotOfTheServersSize) {
  const std::string one = R"([{"name": "b", "source": "https://host/b"}])";
  dir.write("eval/models/b", "");
  EXPECT_TRUE(FailsWith(lock(one), ErrorCode::kOfflineMissing, "the file in the cache is empty"));
  dir.write("eval/models/b", "half");
  wire.on("https://host/b", Answer(200).header("content-length", "8"));
  EXPECT_TRUE(FailsWith(lock(one), ErrorCode::kOfflineMissing, "has 4 bytes, the server has 8"));
  options.offline = true;
  EXPECT_TRUE(IsOk(lock(one)));
}

TEST_F(PinTest, LockKeepsTheDigestOfTheManifestAndNeedsNoFileThen) {
  const std::string sha256(64, 'a');
  const std::string clip = "https://host/clip/models/" + std::string(64, 'b') + "/x.pt";
  const auto locked =
      lock(R"([{"name": "a", "source": "https://host/a", "sha256": ")" + sha256 +
           R"("}, {"name": "x", "source": ")" + clip + R"(", "dest": "clip/x.pt"}])");
  ASSERT_TRUE(IsOk(locked));
  EXPECT_EQ(locked->entries[0].sha256, sha256);
  EXPECT_FALSE(locked->entries[0].size.has_value());
  EXPECT_EQ(locked->entries[1].sha256, std::string(64, 'b'));
}

TEST_F(PinTest, LockNamesEveryUrlThatNothingTellsTheDigestOf) {
  wire.on("https://host/a", Answer::whole("aaa"));
  ASSERT_TRUE(run(R"([{"name": "a", "source": "https://host/a"}])").ok());
  const auto locked = lock(R"([{"name": "a", "source": "https://host/other?token=secret"},
                               {"name": "b", "source": "https://host/b"},
                               {"name": "c", "source": "https://host/c"}])");
  ASSERT_TRUE(
      FailsWith(locked, ErrorCode::kOfflineMissing, "`a` (the file in the cache came from"));
  EXPECT_TRUE(FailsWith(locked, ErrorCode::kOfflineMissing, "`b` (not in the cache"));
  EXPECT_TRUE(FailsWith(locked, ErrorCode::kOfflineMissing, "`c` (not in the cache"));
  EXPECT_NE(locked.error().hint.find("fvprefetch MANIFEST"), std::string::npos);
  EXPECT_EQ(describe(locked.error()).find("secret"), std::string::npos);
}

TEST_F(PinTest, LockRefusesAFileThatIsNotWhatItsNameSays) {
  dir.write("eval/torch/hub/checkpoints/x-7be5be79.pth", "other");
  const auto locked = lock(R"([{"name": "x", "source": "https://host/x-7be5be79.pth",
                                "dest": "torch/hub/checkpoints/x-7be5be79.pth"}])");
  EXPECT_TRUE(FailsWith(locked, ErrorCode::kIntegrity, "7be5be79"));
}

TEST_F(PinTest, LockOfflineNamesTheRepositoriesThatTheCacheDoesNotKnow) {
  options.offline = true;
  const auto locked = lock(R"([{"name": "m", "source": "org/model"},
                               {"name": "n", "source": "org/other", "revision": "v1"}])");
  EXPECT_TRUE(FailsWith(locked, ErrorCode::kOfflineMissing, "`m` ("));
  EXPECT_TRUE(FailsWith(locked, ErrorCode::kOfflineMissing, "revision v1"));
}

TEST_F(PinTest, LockKeepsAnExistingPath) {
  const std::string path = dir.write("mine.pth", "weights");
  const std::string entries = R"([{"name": "mine", "source": ")" + path + R"("}])";
  const auto locked = lock(entries);
  ASSERT_TRUE(IsOk(locked));
  EXPECT_EQ(locked->entries, parse_manifest(entries)->entries);
}

// --- --frozen ------------------------------------------------------------------------------------

TEST_F(PinTest, FrozenRefusesWhatIsNotPinnedAndNamesAllOfIt) {
  options.frozen = true;
  const std::string commit_only = R"({"name": "c", "source": "org/model", "revision": ")" + kCommit;
  const Report report = run(R"([{"name": "m", "source": "org/model"}, )" + commit_only +
                            R"("}, {"name": "u", "source": "https://host/u", "size": 1},
                            {"name": "p", "source": "/no/such/path", "optional": true}])");
  EXPECT_EQ(report.code(), ErrorCode::kUsage);
  for (const std::string_view named : {"`m`", "`c`", "`u`", "`p`"}) {
    EXPECT_NE(report.error->message.find(named), std::string::npos) << report.error->message;
  }
  EXPECT_NE(report.error->hint.find("fvprefetch lock"), std::string::npos);
  EXPECT_TRUE(wire.sent().empty());
}

TEST_F(PinTest, FrozenNamesTheLockFileThatLiesBesideTheManifest) {
  options.frozen = true;
  dir.write("m.lock.json", "{}");
  const auto manifest = parse_manifest(R"([{"name": "m", "source": "org/model"}])", dir / "m.json");
  const Report report = prefetch_with(*manifest, options, {});
  EXPECT_NE(report.error->hint.find(dir / "m.lock.json"), std::string::npos) << report.error->hint;
  EXPECT_EQ(status(*manifest, options).error->code, ErrorCode::kUsage);
}

TEST_F(PinTest, FrozenExcludesRefresh) {
  options.frozen = true;
  options.refresh = true;
  EXPECT_EQ(run(pinned({{"a.bin", "aaa"}})).code(), ErrorCode::kUsage);
}

TEST(LockPath, TakesTheSuffixOffFirst) {
  EXPECT_EQ(lock_path("m.json"), "m.lock.json");
  EXPECT_EQ(lock_path("dir.json/m"), "dir.json/m.lock.json");
}

TEST_F(PinTest, ABlobThatIsNotWhatItIsNamedAfterIsNoHitForWhoKnowsTheDigest) {
  dir.write("hub/models--org--model/blobs/" + git_sha1_hex("aaa"), "bad");
  std::filesystem::create_directories(dir / ("hub/models--org--model/snapshots/" + kCommit));
  std::filesystem::create_symlink("../../blobs/" + git_sha1_hex("aaa"), dir / snapshot("a.bin"));
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const Report report = run(pinned({{"a.bin", "aaa"}}));
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
}

TEST_F(PinTest, FrozenAPathIsWhatTheManifestPins) {
  const std::string path = dir.write("mine.pth", "weights");
  options.frozen = true;
  const auto entry = [&](const std::string& more) {
    return R"([{"name": "mine", "source": ")" + path + "\"" + more + "}]";
  };
  EXPECT_TRUE(run(entry("")).ok());
  EXPECT_TRUE(run(entry(R"(, "size": 7, "sha256": ")" + sha256_hex("weights") + "\"")).ok());
  EXPECT_EQ(run(entry(R"(, "size": 8)")).code(), ErrorCode::kIntegrity);
  EXPECT_EQ(run(entry(R"(, "sha256": ")" + sha256_hex("other") + "\"")).code(),
            ErrorCode::kIntegrity);
}

}  // namespace
}  // namespace fvprefetch
