// The orchestration: what is fetched, published, reported and left alone.
#include "fvprefetch/prefetch.h"

#include <gtest/gtest.h>

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
  wire.on("https://host/a.pth", Answer::whole("weights"));
  const std::string entries = R"([{"name": "a.pth", "source": "https://host/a.pth"}])";
  const Report cold = run(entries);
  ASSERT_TRUE(cold.ok()) << describe(*cold.error);
  EXPECT_EQ(dir.read("eval/models/a.pth"), "weights");
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

TEST_F(PrefetchTest, WhatRunsWhenAnotherEntryFailsIsCancelledAndLeavesNothing) {
  wire.on("https://host/a",
          Answer(200).header("content-length", "9").body("xxx").pause(std::chrono::hours(1)));
  wire.on("https://host/b", Answer(404));
  const Report report = run(R"([{"name": "a", "source": "https://host/a"},
                                {"name": "b", "source": "https://host/b"}])");
  EXPECT_EQ(report.code(), ErrorCode::kNotFound);
  EXPECT_EQ(report.entries[0].state, EntryState::kSkipped);
  EXPECT_EQ(wire.running(), 0U);
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
  wire.on("https://host/a", Answer::whole("weights"));
  ASSERT_TRUE(run(R"([{"name": "a", "source": "https://host/a"}])").ok());
  const auto told = seen.all<BytesArrived>();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().bytes_done, 7U);
  EXPECT_EQ(told.back().files_done, 1U);
  EXPECT_EQ(seen.all<EntryDone>().size(), 1U);
}

}  // namespace
}  // namespace fvprefetch
