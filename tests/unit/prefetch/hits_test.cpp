// What counts as there already: with a receipt, without one, offline, and when the cache is not
// what it claims to be.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "cache/receipt.h"
#include "cache/url_store.h"
#include "prefetch/lookup.h"
#include "unit/prefetch/fixture.h"

namespace fvprefetch {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the fixture's words

class HitsTest : public PrefetchTest {
 protected:
  Plan look() {
    const auto manifest = parse_manifest(entries);
    if (!manifest) return {};
    return status(*manifest, options);
  }
  [[nodiscard]] std::string snapshot(const std::string& path) const {
    return "hub/models--org--model/snapshots/" + kCommit + "/" + path;
  }
  /// One entry for the repository at kCommit.
  std::string pinned_to_commit(const std::string& more = "") {
    return R"([{"name": "m", "source": "org/model", "revision": ")" + kCommit + "\"" + more + "}]";
  }
  void link(const std::string& path, const std::string& target) {
    const std::filesystem::path pointer = dir / snapshot(path);
    std::filesystem::create_directories(pointer.parent_path());
    std::filesystem::create_symlink(target, pointer);
  }
  std::string entries;
};

// --- URL files -----------------------------------------------------------------------------------

UrlSource url_source(const TempDir& dir, const std::string& sha256) {
  UrlSource source;
  source.root = dir / "eval";
  source.relative = "models/a";
  source.file.path = "a";
  source.file.urls = {"https://host/a"};
  source.file.digest = Digest{Digest::Kind::kSha256, sha256};
  source.digest_rule = "manifest";
  return source;
}

TEST_F(HitsTest, LookingAtAPinnedFileEndsWhenTheRunHasTo) {
  dir.write("eval/models/a", "bytes");
  const auto verdict =
      judge_url_file(url_source(dir, sha256_hex("bytes")), {}, [] { return interrupted(15); });
  ASSERT_FALSE(verdict.has_value());
  EXPECT_EQ(exit_code(verdict.error().code), 128 + 15);
}

TEST_F(HitsTest, AFileThatIsReplacedWhileItIsHashedIsJudgedAsWhatItIsNow) {
  dir.write("eval/models/a", "expected");
  bool replaced = false;
  const auto verdict =
      judge_url_file(url_source(dir, sha256_hex("expected")), {}, [&]() -> std::optional<Error> {
        if (!replaced) std::filesystem::rename(dir.write("new", "another"), dir / "eval/models/a");
        replaced = true;
        return std::nullopt;
      });
  ASSERT_TRUE(IsOk(verdict));
  EXPECT_FALSE(verdict->good);
  EXPECT_NE(verdict->why.find(sha256_hex("another")), std::string::npos) << verdict->why;
}

TEST_F(HitsTest, AReceiptOfAnotherSourceThatDoesNotFitTheFileSaysNothing) {
  wire.on("https://host/a", Answer::whole("first"));
  ASSERT_TRUE(run(R"([{"name": "a", "source": "https://host/a"}])").ok());
  dir.write("eval/models/a", "put there by hand");
  const Report report = run(R"([{"name": "a", "source": "https://host/b"}])");
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report.entries[0].warnings.empty()) << report.entries[0].warnings[0];
}

TEST_F(HitsTest, OfflineAPresentFileOfAnotherSourceIsAHitEvenWithRefresh) {
  wire.on("https://host/a", Answer::whole("first"));
  ASSERT_TRUE(run(R"([{"name": "a", "source": "https://host/a"}])").ok());
  options.offline = true;
  options.refresh = true;
  const Report report = run(R"([{"name": "a", "source": "https://host/b"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(report.entries[0].warnings.size(), 1U);
}

TEST_F(HitsTest, TorchHomeInsideTheEvalCacheIsTheSamePlaceAsNone) {
  const std::string one =
      R"([{"name": "a", "source": "https://host/a", "dest": "torch/hub/checkpoints/a"}])";
  wire.on("https://host/a", Answer::whole("first"));
  ASSERT_TRUE(run(one).ok());
  environment["TORCH_HOME"] = dir / "eval/../eval/torch";
  const Report again = run(one);
  EXPECT_EQ(again.entries[0].verified_by, "receipt");  // the one that the first run wrote
}

TEST_F(HitsTest, AFileThatNothingVouchesForIsOpenedOnceAndAReceiptKeepsIt) {
  dir.write("eval/models/a.pth", "\x01weights");
  const std::string one = R"([{"name": "a.pth", "source": "https://host/a.pth"}])";
  const Report first = run(one);
  ASSERT_TRUE(first.ok()) << describe(*first.error);
  EXPECT_EQ(first.entries[0].verified_by, "present");
  const UrlStore store(dir / "eval", "models/a.pth");
  const auto receipt = read_receipt(store.paths().receipt());
  ASSERT_TRUE(receipt.has_value());
  EXPECT_EQ(receipt->files.at(0).sha256, "");
  EXPECT_EQ(receipt->source_key, "");
  // It does not say where the file came from: another source is no other one.
  const Report second = run(R"([{"name": "a.pth", "source": "https://host/b.pth"}])");
  EXPECT_EQ(second.entries[0].state, EntryState::kHit);
  EXPECT_EQ(second.entries[0].verified_by, "present");
  EXPECT_TRUE(second.entries[0].warnings.empty());
  EXPECT_TRUE(wire.sent().empty());
}

TEST_F(HitsTest, AWrongFileIsToldAndFetchedAgainAndOfflineItIsMissingWithTheReason) {
  dir.write("eval/models/a.pth", "Not found");
  const std::string one = R"([{"name": "a.pth", "source": "https://host/a.pth"}])";
  options.offline = true;
  const Report offline = run(one);
  EXPECT_EQ(offline.code(), ErrorCode::kOfflineMissing);
  EXPECT_NE(offline.error->message.find("Not found"), std::string::npos) << offline.error->message;
  options.offline = false;
  wire.on("https://host/a.pth", Answer::whole("\x01weights"));
  const Report online = run(one);
  ASSERT_TRUE(online.ok()) << describe(*online.error);
  EXPECT_EQ(online.entries[0].warnings.size(), 1U);
  EXPECT_EQ(dir.read("eval/models/a.pth"), "\x01weights");
  EXPECT_EQ(run(one).entries[0].verified_by, "receipt");
}

TEST_F(HitsTest, RefreshFetchesWhatNothingVouchesForOnce) {
  dir.write("eval/models/a", "\x01short");
  wire.on("https://host/a", Answer::whole("\x01weights"));
  const std::string one = R"([{"name": "a", "source": "https://host/a"}])";
  ASSERT_TRUE(run(one).ok());
  EXPECT_TRUE(wire.sent().empty());
  options.refresh = true;
  ASSERT_TRUE(run(one).ok());
  EXPECT_EQ(dir.read("eval/models/a"), "\x01weights");
  ASSERT_TRUE(run(one).ok());
  EXPECT_EQ(wire.sent().size(), 1U);
}

// --- Hub files -----------------------------------------------------------------------------------

TEST_F(HitsTest, APinnedSha256OfASmallHubFileIsCheckedWhenItsBlobIsThereAlready) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  ASSERT_TRUE(run(R"([{"name": "m", "source": "org/model", "filename": "a.bin"}])").ok());
  std::filesystem::remove(dir / snapshot("a.bin"));  // only the blob is left
  const std::string head =
      R"([{"name": "m", "source": "org/model", "filename": "a.bin", "sha256": ")";
  const Report wrong = run(head + sha256_hex("other") + R"("}])");
  EXPECT_EQ(wrong.code(), ErrorCode::kIntegrity);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "<missing>");
  const Report right = run(head + sha256_hex("aaa") + R"("}])");
  EXPECT_TRUE(right.ok()) << describe(*right.error);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
}

TEST_F(HitsTest, APinnedSha256OfABlobThatSomebodyLeftIsHashedOnceOnlineAndOffline) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  ASSERT_TRUE(run(R"([{"name": "m", "source": "org/model", "filename": "a.bin"}])").ok());
  const std::string pinned =
      R"([{"name": "m", "source": "org/model", "filename": "a.bin", "sha256": ")" +
      sha256_hex("aaa") + R"("}])";
  dir.write("hub/models--org--model/blobs/" + git_sha1_hex("aaa"), "bad");
  options.offline = true;
  EXPECT_EQ(run(pinned).code(), ErrorCode::kOfflineMissing);
  options.offline = false;
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const Report online = run(pinned);
  ASSERT_TRUE(online.ok()) << describe(*online.error);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
  EXPECT_EQ(run(pinned).entries[0].verified_by, "receipt");
}

TEST_F(HitsTest, VerifyForeignHashesWhatAReceiptOfALookLetThrough) {
  hub_lists({{"a", "aaa"}});
  wire.on(kFiles + "/a", Answer::whole("aaa"));
  const std::string one = R"([{"name": "m", "source": "org/model"}])";
  ASSERT_TRUE(run(one).ok());
  options.verify_foreign = true;
  EXPECT_EQ(run(one).entries[0].verified_by, "receipt");  // ours was hashed as it came
  std::filesystem::remove_all(dir / "hub/models--org--model/.fvprefetch");
  dir.write("hub/models--org--model/blobs/" + git_sha1_hex("aaa"), "bad");
  options.verify_foreign = false;
  EXPECT_EQ(run(one).entries[0].verified_by, "tree");
  EXPECT_EQ(run(one).entries[0].verified_by, "receipt");
  options.verify_foreign = true;
  wire.on(kFiles + "/a", Answer::whole("aaa"));
  const Report report = run(one);
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(dir.read(snapshot("a")), "aaa");
  EXPECT_EQ(run(one).entries[0].verified_by, "receipt");
}

TEST_F(HitsTest, ACommitOfWhichAFileIsMissingIsNoHitOffline) {
  options.max_active = 1;
  hub_lists({{"a.bin", "aaa"}, {"b.bin", "bbb"}}, /*revision=*/false);
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  wire.on(kFiles + "/b.bin", Answer(404));
  entries = pinned_to_commit();
  EXPECT_EQ(run(entries).code(), ErrorCode::kNotFound);
  options.offline = true;
  const Report offline = run(entries);
  EXPECT_EQ(offline.code(), ErrorCode::kOfflineMissing);
  EXPECT_NE(offline.error->message.find("b.bin"), std::string::npos) << offline.error->message;
  EXPECT_EQ(look().entries[0].state, "partial");
}

TEST_F(HitsTest, OfflineASnapshotThatNothingListsIsAnUnverifiedHit) {
  dir.write("hub/models--org--model/blobs/x", "\1aa");
  link("sub/a.bin", "../../../blobs/x");
  options.offline = true;
  entries = pinned_to_commit();
  const Report report = run(entries);
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(report.entries[0].verified_by, "unverified");
  EXPECT_EQ(report.entries[0].files, 1U);
  EXPECT_EQ(report.entries[0].bytes_total, 3U);
  // Whoever fetched it may not have come to its end.
  EXPECT_EQ(look().entries[0].state, "partial");
}

TEST_F(HitsTest, OfflineALinkThatLeadsNowhereIsMissing) {
  dir.write("hub/models--org--model/blobs/x", "\1aa");
  link("a.bin", "../../blobs/x");
  link("b.bin", "../../blobs/gone");
  options.offline = true;
  EXPECT_EQ(run(pinned_to_commit()).code(), ErrorCode::kOfflineMissing);
  EXPECT_TRUE(run(pinned_to_commit(R"(, "include": ["a.*"])")).ok());
  EXPECT_EQ(run(pinned_to_commit(R"(, "filename": "b.bin")")).code(), ErrorCode::kOfflineMissing);
}

TEST_F(HitsTest, OfflineASnapshotWithoutAFileThatIsWantedIsMissing) {
  dir.write("hub/models--org--model/blobs/x", "\1aa");
  link("a.bin", "../../blobs/x");
  options.offline = true;
  EXPECT_EQ(run(pinned_to_commit(R"(, "include": ["*.safetensors"])")).code(),
            ErrorCode::kOfflineMissing);
}

TEST_F(HitsTest, AReceiptWithANameThatLeavesTheCacheIsNoReceipt) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const std::string one = R"([{"name": "m", "source": "org/model"}])";
  ASSERT_TRUE(run(one).ok());
  std::string receipt;
  for (const std::string& file : dir.files("hub")) {
    if (file.find("/receipts/") != std::string::npos) receipt = "hub/" + file;
  }
  const std::string text = dir.read(receipt);
  const std::string blob = git_sha1_hex("aaa");
  for (const std::string& bad : {std::string("../../../escaped"), std::string()}) {
    std::string changed = text;
    changed.replace(changed.find(blob), blob.size(), bad);
    dir.write(receipt, changed);
    std::filesystem::remove(dir / snapshot("a.bin"));
    const Report report = run(one);  // by the tree
    ASSERT_TRUE(report.ok()) << describe(*report.error);
    EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
  }
  for (const std::string& file : dir.files()) {
    EXPECT_EQ(file.find("escaped"), std::string::npos) << file;
  }
}

TEST_F(HitsTest, ReceiptsThatWereExchangedAreNoReceipts) {
  hub_lists({{"a.bin", "aaa"}, {"b.bin", "bbb"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  wire.on(kFiles + "/b.bin", Answer::whole("bbb"));
  const std::string both = R"([{"name": "x", "source": "org/model", "filename": "a.bin"},
                               {"name": "y", "source": "org/model", "filename": "b.bin"}])";
  ASSERT_TRUE(run(both).ok());
  std::vector<std::string> receipts;
  for (const std::string& file : dir.files("hub")) {
    if (file.find("/receipts/") != std::string::npos) receipts.push_back(dir / ("hub/" + file));
  }
  ASSERT_EQ(receipts.size(), 2U);
  std::filesystem::rename(receipts[0], dir / "swap");
  std::filesystem::rename(receipts[1], receipts[0]);
  std::filesystem::rename(dir / "swap", receipts[1]);
  std::filesystem::remove(dir / snapshot("b.bin"));
  // Alone: the other entry would bring it back by the receipt that it has now.
  const Report report = run(R"([{"name": "y", "source": "org/model", "filename": "b.bin"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(dir.read(snapshot("b.bin")), "bbb");
}

TEST_F(HitsTest, AReceiptOfAnotherCommitIsNoReceipt) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const std::string one = R"([{"name": "m", "source": "org/model"}])";
  ASSERT_TRUE(run(one).ok());
  EXPECT_EQ(run(one).entries[0].verified_by, "receipt");
  for (const std::string& file : dir.files("hub")) {
    if (file.find("/receipts/") == std::string::npos) continue;
    std::string text = dir.read("hub/" + file);
    text.replace(text.find(kCommit), kCommit.size(), std::string(40, 'e'));
    dir.write("hub/" + file, text);
  }
  EXPECT_EQ(run(one).entries[0].verified_by, "tree");
}

TEST_F(HitsTest, ASmallFileThatIsNotEvenWhatItsNameSaysIsFetchedAgain) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  ASSERT_TRUE(run(R"([{"name": "m", "source": "org/model", "filename": "a.bin"}])").ok());
  dir.write("hub/models--org--model/blobs/" + git_sha1_hex("aaa"), "bad");
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const Report report =
      run(R"([{"name": "m", "source": "org/model", "filename": "a.bin", "sha256": ")" +
          sha256_hex("aaa") + R"("}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
  EXPECT_EQ(report.entries[0].warnings.size(), 1U);
}

TEST_F(HitsTest, ARefThatMovesWhileTheFilesAreListedDoesNotMoveTheListing) {
  dir.write("hub/models--org--model/refs/main", kCommit);
  Answer tree = Answer::whole("[{\"type\":\"file\",\"path\":\"a.bin\",\"size\":3,\"oid\":\"" +
                              git_sha1_hex("aaa") + "\"}]");
  tree.then([&] { dir.write("hub/models--org--model/refs/main", std::string(40, 'd')); });
  wire.on(kTree, tree);
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const Report report = run(R"([{"name": "m", "source": "org/model"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(report.entries[0].commit, kCommit);
  EXPECT_EQ(dir.read("hub/models--org--model/trees/" + std::string(40, 'd') + ".json"),
            "<missing>");
}

TEST_F(HitsTest, AFifoInPlaceOfAFileIsAnErrorAndIsNotWaitedFor) {
  std::filesystem::create_directories(dir / "eval/models");
  ASSERT_EQ(::mkfifo((dir / "eval/models/a").c_str(), 0600), 0);
  const Report report = run(R"([{"name": "a", "source": "https://host/a"}])");
  EXPECT_EQ(report.code(), ErrorCode::kUsage);
}

TEST_F(HitsTest, ARefWithANewlineIsMendedAtAHit) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const std::string one = R"([{"name": "m", "source": "org/model"}])";
  ASSERT_TRUE(run(one).ok());
  for (const bool offline : {false, true}) {
    dir.write("hub/models--org--model/refs/main", kCommit + "\n");
    options.offline = offline;
    EXPECT_EQ(run(one).entries[0].state, EntryState::kHit);
    EXPECT_EQ(dir.read("hub/models--org--model/refs/main"), kCommit);
  }
}

TEST_F(HitsTest, AFileThatTheCachedListingLacksIsAskedFor) {
  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  ASSERT_TRUE(run(R"([{"name": "m", "source": "org/model"}])").ok());
  // The branch has moved on to a commit that has it.
  const std::string newer(40, 'd');
  wire.on(kApi + "/revision/main", Answer::whole(R"({"sha": ")" + newer + R"("})"));
  wire.on(kApi + "/tree/" + newer + "?recursive=true&expand=false",
          Answer::whole("[{\"type\":\"file\",\"path\":\"new.bin\",\"size\":3,\"oid\":\"" +
                        git_sha1_hex("new") + "\"}]"));
  wire.on("https://hub.test/org/model/resolve/" + newer + "/new.bin", Answer::whole("new"));
  const Report report = run(R"([{"name": "n", "source": "org/model", "filename": "new.bin"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(report.entries[0].commit, newer);
}

// --- The Hub does not answer ---------------------------------------------------------------------

class FallBackTest : public HitsTest {
 protected:
  FallBackTest() {
    options.retries = 0;
    hub_lists({{"a.bin", "aaa"}});
    wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
    EXPECT_TRUE(run(branch).ok());
    options.refresh = true;
  }
  const std::string revision = kApi + "/revision/main";
  const std::string branch = R"([{"name": "m", "source": "org/model"}])";
};

TEST_F(FallBackTest, WhatTheCacheHasIsTakenWhenTheHubIsNotReached) {
  wire.on(revision, Answer::none(TransportFailure::kConnect));
  const Report report = run(branch);
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(report.entries[0].commit, kCommit);
  ASSERT_EQ(report.entries[0].warnings.size(), 1U);
  EXPECT_NE(report.entries[0].warnings[0].find(kCommit), std::string::npos);
}

TEST_F(FallBackTest, ARefusedOrVanishedRepositoryIsTakenFromTheCacheToo) {
  wire.on(revision, Answer(401).header("x-error-code", "GatedRepo"));
  EXPECT_TRUE(run(branch).ok());
  wire.on(revision, Answer(404).header("x-error-code", "RepoNotFound"));
  EXPECT_TRUE(run(branch).ok());
  wire.on(revision, Answer(503));
  EXPECT_TRUE(run(branch).ok());
}

TEST_F(FallBackTest, AnAnswerWithoutAWordForItIsOneOfHttpAndFallsBack) {
  wire.on(revision, Answer(404));
  EXPECT_TRUE(run(branch).ok());
}

TEST_F(FallBackTest, WhoHasASubstituteAsksOnceAndAHubThatIsAwayIsNotAskedForTheNext) {
  options.retries = 5;
  const std::size_t before = wire.sent().size();
  wire.on(revision, Answer::none(TransportFailure::kConnect));
  const Report report = run(R"([{"name": "m", "source": "org/model"},
                                {"name": "a", "source": "org/model", "filename": "a.bin"}])");
  ASSERT_TRUE(report.ok()) << describe(*report.error);
  EXPECT_EQ(wire.sent().size(), before + 1);
}

TEST_F(FallBackTest, ALongWaitThatAServerAsksForIsNotWaitedWhereThereIsASubstitute) {
  options.retries = 5;
  const Clock::TimePoint begin = clock.now();
  wire.on(revision, Answer(429).header("retry-after", "3600"));
  EXPECT_TRUE(run(branch).ok());
  EXPECT_EQ(clock.now(), begin);
}

TEST_F(FallBackTest, OnceTheHubHasNamedACommitNoOtherStandsInForIt) {
  const std::string newer(40, 'd');
  wire.on(revision, Answer::whole(R"({"sha": ")" + newer + R"("})"));
  wire.on(kApi + "/tree/" + newer + "?recursive=true&expand=false", Answer(500));
  EXPECT_EQ(run(branch).code(), ErrorCode::kNetwork);
}

TEST_F(FallBackTest, AConnectionThatBreaksIsAnError) {
  wire.on(revision, Answer::none(TransportFailure::kCut));
  EXPECT_EQ(run(branch).code(), ErrorCode::kNetwork);
}

TEST_F(FallBackTest, ARevisionThatTheHubDoesNotKnowIsAnError) {
  wire.on(revision, Answer(404).header("x-error-code", "RevisionNotFound"));
  EXPECT_EQ(run(branch).code(), ErrorCode::kNotFound);
}

TEST_F(FallBackTest, AProxyThatFailsIsAnError) {
  wire.on(revision, Answer::none(TransportFailure::kProxy));
  EXPECT_EQ(run(branch).code(), ErrorCode::kNetwork);
}

TEST_F(FallBackTest, AnIncompleteSnapshotIsNoSubstitute) {
  std::filesystem::remove(dir / snapshot("a.bin"));
  wire.on(revision, Answer::none(TransportFailure::kConnect));
  EXPECT_EQ(run(branch).code(), ErrorCode::kNetwork);
}

// --- status --------------------------------------------------------------------------------------

TEST_F(HitsTest, StatusCallsAFileThatIsThereCompleteAndABranchNotMissingForRefresh) {
  dir.write("hub/models--org--model/blobs/x", "\1aa");
  link("a.bin", "../../blobs/x");
  entries = pinned_to_commit(R"(, "filename": "a.bin")");
  EXPECT_EQ(look().entries[0].state, "complete");
  link("b.bin", "../../blobs/gone");
  entries = pinned_to_commit();
  EXPECT_EQ(look().entries[0].state, "partial");

  hub_lists({{"a.bin", "aaa"}});
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  entries = R"([{"name": "m", "source": "org/model"}])";
  ASSERT_TRUE(run(entries).ok());
  options.refresh = true;
  EXPECT_EQ(look().entries[0].state, "complete");
}

}  // namespace
}  // namespace fvprefetch
