// The orchestration: what is fetched, published, reported and left alone.
#include "fvprefetch/prefetch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "support/tiny_disk.h"
#include "unit/prefetch/fixture.h"

namespace fvprefetch {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the fixture's words

TEST_F(PrefetchTest, AnExistingPathIsReturnedUnchangedWithoutARequest) {
  const std::string path = dir.write("mine.pth", "weights");
  const Report report = run(R"([{"name": "mine", "source": ")" + path + R"("}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(report.entries[0].path, path);
  EXPECT_EQ(report.entries[0].state, EntryState::kHit);
  EXPECT_TRUE(wire.sent().empty());
}

TEST_F(PrefetchTest, AUrlIsPublishedWithAReceiptAndIsAHitAfterwards) {
  wire.on("https://host/a.pth", Answer::whole("\1eights"));
  const std::string entries = R"([{"name": "a.pth", "source": "https://host/a.pth"}])";
  const Report cold = run(entries);
  ASSERT_TRUE(cold.ok()) << describe(*cold.error);
  EXPECT_EQ(dir.read("eval/models/a.pth"), "\1eights");
  EXPECT_EQ(cold.entries[0].state, EntryState::kFetched);
  EXPECT_EQ(cold.entries[0].bytes_fetched, 7U);

  const Report warm = run(entries);
  ASSERT_TRUE(warm.ok());
  EXPECT_EQ(warm.entries[0].state, EntryState::kHit);
  EXPECT_EQ(warm.entries[0].verified_by, "receipt");
  EXPECT_EQ(wire.sent().size(), 1U);
}

TEST_F(PrefetchTest, ASnapshotIsOnlyNamedByItsRefWhenEveryFileIsThere) {
  options.max_active = 1;  // one after the other: the first is there when the second fails
  hub_lists({{"a.bin", "aaa"}, {"b.bin", "bbb"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  wire.on(kFiles + "/b.bin", Answer(404));
  const Report report = run(R"([{"name": "m", "source": "org/model"}])");
  EXPECT_EQ(report.code(), ErrorCode::kNotFound);
  EXPECT_EQ(dir.read("hub/models--org--model/refs/main"), "<missing>");
  // What arrived whole stays.
  EXPECT_EQ(dir.read("hub/models--org--model/snapshots/" + kCommit + "/a.bin"), "aaa");
}

TEST_F(PrefetchTest, TheNextRunFetchesOnlyWhatIsMissing) {
  options.max_active = 1;  // one after the other: the first is there when the second fails
  hub_lists({{"a.bin", "aaa"}, {"b.bin", "bbb"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  wire.on(kFiles + "/b.bin", Answer(404));
  (void)run(R"([{"name": "m", "source": "org/model"}])");
  hub_lists({{"a.bin", "aaa"}, {"b.bin", "bbb"}});
  wire.on(kFiles + "/b.bin", Answer::whole("bbb"));
  const Report report = run(R"([{"name": "m", "source": "org/model"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(report.entries[0].bytes_fetched, 3U);
  EXPECT_EQ(dir.read("hub/models--org--model/refs/main"), kCommit);
}

TEST_F(PrefetchTest, OneBlobThatTwoPathsShareIsFetchedOnce) {
  hub_lists({{"a.bin", "same"}, {"sub/b.bin", "same"}});
  wire.on(kFiles + "/a.bin", Answer::whole("same"));
  const Report report = run(R"([{"name": "m", "source": "org/model"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(dir.read("hub/models--org--model/snapshots/" + kCommit + "/sub/b.bin"), "same");
  EXPECT_EQ(report.entries[0].bytes_fetched, 4U);
}

TEST_F(PrefetchTest, TwoEntriesOfOneRepositoryAskForItOnce) {
  hub_lists({{"a.bin", "aaa"}, {"b.bin", "bbb"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  wire.on(kFiles + "/b.bin", Answer::whole("bbb"));
  const Report report = run(R"([{"name": "x", "source": "org/model", "filename": "a.bin"},
                                {"name": "y", "source": "org/model", "filename": "b.bin"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(wire.sent().size(), 4U);
}

TEST_F(PrefetchTest, APinnedCommitIsNeverAskedFor) {
  hub_lists({{"a.bin", "aaa"}}, /*revision=*/false);
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const Report report =
      run(R"([{"name": "m", "source": "org/model", "revision": ")" + kCommit + R"("}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(report.entries[0].resolved_at, "");
  EXPECT_EQ(dir.read("hub/models--org--model/refs/" + kCommit), "<missing>");
}

TEST_F(PrefetchTest, AHubFileThatIsNotTheOneTheManifestPinsIsNotPublished) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const Report report =
      run(R"([{"name": "m", "source": "org/model", "filename": "a.bin", "sha256": ")" +
          sha256_hex("other") + R"("}])");
  EXPECT_EQ(report.code(), ErrorCode::kIntegrity);
  EXPECT_EQ(dir.read("hub/models--org--model/blobs/" + git_sha1_hex("aaa")), "<missing>");
}

TEST_F(PrefetchTest, TheFirstRequiredFailureStopsNewWork) {
  options.max_active = 1;
  wire.on("https://host/a", Answer(404));
  const Report report = run(R"([{"name": "a", "source": "https://host/a"},
                                {"name": "b", "source": "https://host/b"}])");
  EXPECT_EQ(report.code(), ErrorCode::kNotFound);
  EXPECT_EQ(report.entries[1].state, EntryState::kSkipped);
  EXPECT_EQ(wire.urls(), std::vector<std::string>{"https://host/a"});
}

TEST_F(PrefetchTest, WhatRunsWhenAnotherEntryFailsIsCancelledAndGoneOnWithByTheNextRun) {
  wire.on("https://host/a", Answer(200)
                                .header("content-length", "9")
                                .header("etag", "\"v1\"")
                                .body("xxx")
                                .pause(std::chrono::hours(1)));
  wire.on("https://host/b", Answer(404));
  const Report report = run(R"([{"name": "a", "source": "https://host/a"},
                                {"name": "b", "source": "https://host/b"}])");
  EXPECT_EQ(report.code(), ErrorCode::kNotFound);
  EXPECT_EQ(report.entries[0].state, EntryState::kSkipped);
  EXPECT_EQ(wire.running(), 0U);
  EXPECT_FALSE(std::filesystem::exists(dir / "eval/models/a"));

  wire.on(
      "https://host/a",
      Answer(206).header("content-range", "bytes 3-8/9").header("etag", "\"v1\"").body("yyyyyy"));
  const Report next = run(R"([{"name": "a", "source": "https://host/a"}])");
  ASSERT_EQ(next.code(), ErrorCode::kOk);
  EXPECT_EQ(next.entries[0].state, EntryState::kResumed);
  EXPECT_EQ(next.entries[0].bytes_fetched, 6U);
  EXPECT_EQ(wire.sent().back().header("Range"), "bytes=3-");
  EXPECT_EQ(dir.read("eval/models/a"), "xxxyyyyyy");
  for (const std::string& file : dir.files("eval")) EXPECT_EQ(file.find("part"), std::string::npos);
}

TEST_F(PrefetchTest, WhatIsNotResumableLeavesNothingWhenAnotherEntryFails) {
  wire.on("https://host/a",
          Answer(200).header("content-length", "9").body("xxx").pause(std::chrono::hours(1)));
  wire.on("https://host/b", Answer(404));
  const Report report = run(R"([{"name": "a", "source": "https://host/a"},
                                {"name": "b", "source": "https://host/b"}])");
  EXPECT_EQ(report.entries[0].state, EntryState::kSkipped);
  for (const std::string& file : dir.files("eval")) EXPECT_EQ(file.find("part"), std::string::npos);
}

TEST_F(PrefetchTest, KeepGoingFinishesTheRestAndReportsTheFirstFailedInManifestOrder) {
  options.keep_going = true;
  options.retries = 0;
  wire.on("https://host/a", Answer::none(TransportFailure::kConnect));
  wire.on("https://host/b", Answer(404));
  wire.on("https://host/c", Answer::whole("ccc"));
  const Report report = run(R"([{"name": "a", "source": "https://host/a"},
                                {"name": "b", "source": "https://host/b"},
                                {"name": "c", "source": "https://host/c"}])");
  EXPECT_EQ(report.code(), ErrorCode::kNetwork);
  EXPECT_EQ(report.entries[1].error->code, ErrorCode::kNotFound);
  EXPECT_EQ(dir.read("eval/models/c"), "ccc");
}

TEST_F(PrefetchTest, OnlyOptionalFailuresArePartial) {
  wire.on("https://host/a", Answer(404));
  wire.on("https://host/c", Answer::whole("ccc"));
  const Report report = run(R"([{"name": "a", "source": "https://host/a", "optional": true},
                                {"name": "c", "source": "https://host/c"}])");
  EXPECT_EQ(report.code(), ErrorCode::kPartial);
  EXPECT_EQ(dir.read("eval/models/c"), "ccc");
}

TEST_F(PrefetchTest, OfflineListsEverythingThatIsMissingAndSendsNothing) {
  options.offline = true;
  const Report report = run(R"([{"name": "a", "source": "https://host/a"},
                                {"name": "m", "source": "org/model", "filename": "w.bin"}])");
  EXPECT_EQ(report.code(), ErrorCode::kOfflineMissing);
  EXPECT_NE(report.error->message.find("a: "), std::string::npos) << report.error->message;
  EXPECT_NE(report.error->message.find("org/model/w.bin"), std::string::npos);
  EXPECT_TRUE(wire.sent().empty());
}

TEST_F(PrefetchTest, APresentFileWithAWrongDigestIsReplacedAndReported) {
  dir.write("eval/models/a", "wrong");
  wire.on("https://host/a", Answer::whole("right"));
  const Report report = run(R"([{"name": "a", "source": "https://host/a", "sha256": ")" +
                            sha256_hex("right") + R"("}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(dir.read("eval/models/a"), "right");
  ASSERT_EQ(report.entries[0].warnings.size(), 1U);
  EXPECT_NE(report.entries[0].warnings[0].find(sha256_hex("wrong")), std::string::npos);
}

TEST_F(PrefetchTest, APresentFileOfAnotherSourceIsAHitWithAWarningUntilRefreshed) {
  wire.on("https://host/a", Answer::whole("first"));
  ASSERT_TRUE(run(R"([{"name": "a", "source": "https://host/a"}])").ok());
  const std::string other = R"([{"name": "a", "source": "https://host/b"}])";
  const Report hit = run(other);
  EXPECT_EQ(hit.entries[0].state, EntryState::kHit);
  EXPECT_EQ(hit.entries[0].warnings.size(), 1U);
  wire.on("https://host/b", Answer::whole("second"));
  options.refresh = true;
  ASSERT_TRUE(run(other).ok());
  EXPECT_EQ(dir.read("eval/models/a"), "second");
}

TEST_F(PrefetchTest, ANameThatLeavesTheCacheIsRefusedBeforeAnything) {
  const Report report = run(R"([{"name": "../up", "source": "https://host/a"}])");
  EXPECT_EQ(report.code(), ErrorCode::kUsage);
  EXPECT_TRUE(wire.sent().empty());
}

TEST_F(PrefetchTest, ProgressEndsWithEveryByteAndFile) {
  wire.on("https://host/a", Answer::whole("\1eights"));
  ASSERT_TRUE(run(R"([{"name": "a", "source": "https://host/a"}])").ok());
  const auto told = seen.all<BytesArrived>();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().bytes_done, 7U);
  EXPECT_EQ(told.back().files_done, 1U);
  EXPECT_EQ(seen.all<EntryDone>().size(), 1U);
}

TEST_F(PrefetchTest, AnEntryThatPinsSomethingElseFailsAloneOfThoseThatShareAFile) {
  hub_lists({{"a.json", "same"}, {"b.json", "same"}});
  wire.on(kFiles + "/a.json", Answer::whole("same"));
  const Report report = run(
      R"([{"name": "x", "source": "org/model", "filename": "a.json"},
          {"name": "y", "source": "org/model", "filename": "b.json", "optional": true, "sha256": ")" +
      sha256_hex("other") + R"("}])");
  EXPECT_EQ(report.code(), ErrorCode::kPartial);
  EXPECT_EQ(report.entries[0].state, EntryState::kFetched);
  EXPECT_EQ(report.entries[1].error->code, ErrorCode::kIntegrity);
  const std::string snapshot = "hub/models--org--model/snapshots/" + kCommit;
  EXPECT_EQ(dir.read(snapshot + "/a.json"), "same");
  EXPECT_EQ(dir.read(snapshot + "/b.json"), "<missing>");
}

TEST_F(PrefetchTest, AccessToEveryRepositoryIsCheckedBeforeTheFirstBody) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on("https://hub.test/api/models/org/gated/revision/main",
          Answer::whole(R"({"sha": ")" + kCommit + R"("})"));
  wire.on("https://hub.test/api/models/org/gated/tree/" + kCommit + "?recursive=true&expand=false",
          Answer::whole(R"([{"type":"file","path":"w","size":3,"oid":")" + git_sha1_hex("www") +
                        R"("}])"));
  wire.on(kFiles + "/a.bin", Answer(302).header("location", "https://cdn.test/a?Signature=s"));
  wire.on("https://hub.test/org/gated/resolve/" + kCommit + "/w",
          Answer(403).header("x-error-code", "GatedRepo"));
  const Report report = run(R"([{"name": "a", "source": "org/model"},
                                {"name": "g", "source": "org/gated"}])");
  EXPECT_EQ(report.code(), ErrorCode::kAccess);
  for (const std::string& url : wire.urls()) EXPECT_EQ(url.find("cdn.test"), std::string::npos);
}

TEST_F(PrefetchTest, TheAccessCheckIsTheFilesOwnRequest) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer(302).header("location", "https://cdn.test/a?Signature=s"));
  wire.on("https://cdn.test/a?Signature=s", Answer::whole("aaa"));
  wire.on("https://host/b", Answer::whole("bbb"));
  const Report report = run(R"([{"name": "a", "source": "org/model"},
                                {"name": "b", "source": "https://host/b"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(wire.sent().size(), 5U);  // revision, tree, resolve and where it led, b
}

TEST_F(PrefetchTest, AnAddressThatExpiredBeforeItsTurnIsAskedForAgain) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer(302).header("location", "https://cdn.test/a?Signature=old"));
  wire.on("https://cdn.test/a?Signature=old", Answer(403));
  wire.on(kFiles + "/a.bin", Answer(302).header("location", "https://cdn.test/a?Signature=new"));
  wire.on("https://cdn.test/a?Signature=new", Answer::whole("aaa"));
  wire.on("https://host/b", Answer::whole("bbb"));
  const Report report = run(R"([{"name": "a", "source": "org/model"},
                                {"name": "b", "source": "https://host/b"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
}

TEST_F(PrefetchTest, AFileThatTheCommitLacksIsNotedForOtherClients) {
  hub_lists({{"a.bin", "aaa"}});
  const Report report = run(R"([{"name": "m", "source": "org/model", "filename": "b.bin"}])");
  EXPECT_EQ(report.code(), ErrorCode::kNotFound);
  EXPECT_EQ(dir.read("hub/models--org--model/.no_exist/" + kCommit + "/b.bin"), "");
  EXPECT_EQ(dir.read("hub/models--org--model/refs/main"), kCommit);
}

TEST_F(PrefetchTest, ABranchThatTheCacheHasIsNotMovedByAFileThatItLacks) {
  const std::string older(40, 'b');
  dir.write("hub/models--org--model/refs/main", older);
  hub_lists({{"a.bin", "aaa"}});
  options.refresh = true;
  (void)run(R"([{"name": "m", "source": "org/model", "filename": "b.bin"}])");
  EXPECT_EQ(dir.read("hub/models--org--model/refs/main"), older);
}

TEST_F(PrefetchTest, WithoutLinksTheCacheIsMadeOfFilesAndIsAHitAfterwards) {
  environment["HF_HUB_DISABLE_SYMLINKS"] = "1";
  hub_lists({{"a.bin", "same"}, {"b.bin", "same"}});
  wire.on(kFiles + "/a.bin", Answer::whole("same"));
  const std::string entries = R"([{"name": "m", "source": "org/model"}])";
  ASSERT_TRUE(run(entries).ok());
  const std::string repo = "hub/models--org--model";
  EXPECT_EQ(dir.files(repo + "/blobs"), std::vector<std::string>());
  EXPECT_EQ(dir.read(repo + "/snapshots/" + kCommit + "/b.bin"), "same");
  EXPECT_FALSE(std::filesystem::is_symlink(dir / (repo + "/snapshots/" + kCommit + "/b.bin")));
  EXPECT_EQ(run(entries).entries[0].state, EntryState::kHit);
}

TEST_F(PrefetchTest, ATimeoutThatIsNoNumberIsAUsageError) {
  environment["HF_HUB_ETAG_TIMEOUT"] = "ten";
  const Report report = run(R"([{"name": "a", "source": "https://host/a"}])");
  EXPECT_EQ(report.code(), ErrorCode::kUsage);
  EXPECT_NE(report.error->message.find("HF_HUB_ETAG_TIMEOUT"), std::string::npos);
}

TEST_F(PrefetchTest, ProgressKnowsSizesThatOnlyAServerTold) {
  wire.on("https://host/a", Answer(200).body("aaaa"));
  wire.on("https://host/b", Answer::whole("bb"));
  ASSERT_TRUE(run(R"([{"name": "a", "source": "https://host/a"},
                      {"name": "b", "source": "https://host/b", "size": 2}])")
                  .ok());
  for (const BytesArrived& told : seen.all<BytesArrived>()) {
    EXPECT_TRUE(!told.bytes_exact || told.bytes_done <= told.bytes_total);
  }
  EXPECT_EQ(seen.all<BytesArrived>().back().bytes_total, 6U);
}

TEST_F(PrefetchTest, ProgressTellsOfTheFilesThatAreOnTheirWay) {
  options.max_active = 2;
  wire.on("https://host/sub/a", Answer(200)
                                    .header("content-length", "9")
                                    .body("aaa")
                                    .pause(std::chrono::seconds(5))
                                    .body("aaaaaa"));
  wire.on("https://host/b", Answer(200).body("bb").pause(std::chrono::seconds(5)).body("b"));
  wire.on("https://host/c", Answer::whole("c"));
  ASSERT_TRUE(run(R"([{"name": "a", "source": "https://host/sub/a"},
                      {"name": "b", "source": "https://host/b"},
                      {"name": "c", "source": "https://host/c"}])")
                  .ok());
  const auto told = seen.all<BytesArrived>();
  const auto both = std::find_if(told.begin(), told.end(), [](const BytesArrived& event) {
    return event.arriving.size() == 2 && event.bytes_done == 5;
  });
  ASSERT_NE(both, told.end());
  EXPECT_EQ(both->arriving[0].entry, "a");
  EXPECT_EQ(both->arriving[0].path, "a");
  EXPECT_EQ(both->arriving[0].bytes_done, 3U);
  EXPECT_EQ(both->arriving[0].bytes_total, 9U);
  EXPECT_EQ(both->arriving[1].entry, "b");
  EXPECT_EQ(both->arriving[1].bytes_done, 2U);
  EXPECT_EQ(both->arriving[1].bytes_total, std::nullopt);
  EXPECT_TRUE(std::all_of(told.begin(), told.end(),
                          [](const BytesArrived& event) { return event.arriving.size() <= 2; }));
  EXPECT_TRUE(told.back().arriving.empty());
}

TEST_F(PrefetchTest, AnEntryThatDoesNotFitIsNotBegunUnlessToldTo) {
  const TinyDisk disk;  // 1 MiB
  options.cache_dir = disk.dir().path();
  wire.on("https://host/small", Answer::whole("small"));
  const std::string entries = R"([
    {"name": "big", "source": "https://host/big", "size": 4000000, "optional": true},
    {"name": "small", "source": "https://host/small", "size": 5}])";
  const Report report = run(entries);
  EXPECT_EQ(report.code(), ErrorCode::kPartial);
  ASSERT_TRUE(report.entries[0].error);
  EXPECT_EQ(report.entries[0].error->code, ErrorCode::kNoSpace);
  EXPECT_NE(report.entries[0].error->message.find("4000000"), std::string::npos);
  EXPECT_EQ(report.entries[1].state, EntryState::kFetched);
  EXPECT_EQ(wire.sent().size(), 1U);

  options.space_check = false;
  wire.on("https://host/big", Answer(404));
  EXPECT_EQ(run(entries).entries[0].error->code, ErrorCode::kNotFound);
}

TEST_F(PrefetchTest, ASizeThatOnlyTheServerTellsHasToFitToo) {
  const TinyDisk disk;  // 1 MiB
  options.cache_dir = disk.dir().path();
  wire.on("https://host/big", Answer::whole(std::string(4'000'000, 'x')));
  const std::string entries = R"([{"name": "big", "source": "https://host/big"}])";
  const Report report = run(entries);
  EXPECT_EQ(report.code(), ErrorCode::kNoSpace);
  EXPECT_NE(report.entries[0].error->message.find("4000000"), std::string::npos);
  EXPECT_EQ(report.entries[0].requests, 1U);
  EXPECT_EQ(report.entries[0].bytes_fetched, 0U);

  options.space_check = false;
  wire.on("https://host/big", Answer::whole(std::string(4'000'000, 'x')));
  const Report tried = run(entries);
  EXPECT_EQ(tried.code(), ErrorCode::kNoSpace);
  EXPECT_GT(tried.entries[0].bytes_fetched, 0U);
}

}  // namespace
}  // namespace fvprefetch
