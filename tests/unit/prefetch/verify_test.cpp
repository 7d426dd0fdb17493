// verify: what ought to be there against what is, the repair, and how it ends.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "prefetch/hash_pool.h"
#include "prefetch/rejected.h"
#include "unit/prefetch/fixture.h"

namespace fvprefetch {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the fixture's words

/// Does something when all is planned and nothing read, or when all is read and nothing judged.
class AtTheReading : public Observer {
 public:
  enum class When { kBefore, kAfter };
  explicit AtTheReading(std::function<void()> act, When when = When::kBefore)
      : act_(std::move(act)), when_(when) {}
  void on_event(const Event& event) override {
    const auto* planned = std::get_if<FetchPlanned>(&event);
    if (planned != nullptr) {
      told_ = false;
      if (when_ == When::kBefore) act_();
    }
    const auto* arrived = std::get_if<BytesArrived>(&event);
    if (arrived == nullptr || when_ == When::kBefore || told_) return;
    if (arrived->files_done < arrived->files_total) return;
    told_ = true;
    act_();
  }

 private:
  std::function<void()> act_;
  When when_;
  bool told_ = false;
};

class VerifyTest : public PrefetchTest {
 protected:
  Verification verified(const std::string& entries) {
    const auto manifest = parse_manifest(entries);
    if (!manifest) {
      Verification failed;
      failed.error = manifest.error();
      return failed;
    }
    Seams seams;
    seams.clock = &clock;
    seams.make_transport = [this] { return std::make_unique<Borrowed>(wire); };
    return verify_with(*manifest, options, seams);
  }
  [[nodiscard]] std::string snapshot(const std::string& path) const {
    return "hub/models--org--model/snapshots/" + kCommit + "/" + path;
  }
  [[nodiscard]] std::string blob(const std::string& text) const {
    return "hub/models--org--model/blobs/" + git_sha1_hex(text);
  }
  /// The model with two small files, fetched; nothing is left in the script.
  void fetch_model() {
    hub_lists({{"a.bin", "aaa"}, {"b.bin", "bbb"}});
    wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
    wire.on(kFiles + "/b.bin", Answer::whole("bbb"));
    ASSERT_TRUE(run(kModel).ok());
  }
  /// Other bytes in the same file, as a failing disk leaves them: size and time stay.
  void rot(const std::string& path, const std::string& text) {
    const auto time = std::filesystem::last_write_time(dir / path);
    dir.write(path, text);
    std::filesystem::last_write_time(dir / path, time);
  }
  [[nodiscard]] static std::vector<std::string> states(const Verification& found) {
    std::vector<std::string> states;
    for (const VerifiedEntry& entry : found.entries) {
      for (const VerifiedFile& file : entry.files) states.emplace_back(name(file.state));
    }
    return states;
  }

  const std::string kModel = R"([{"name": "m", "source": "org/model"}])";
  const std::string kUrl = R"([{"name": "a", "source": "https://host/a"}])";
};

using States = std::vector<std::string>;

// --- what there ought to be ----------------------------------------------------------------------

TEST_F(VerifyTest, AHubFileIsCheckedByTheDigestThatItsListTells) {
  fetch_model();
  EXPECT_TRUE(verified(kModel).ok());
  rot(blob("aaa"), "axa");
  const Verification found = verified(kModel);
  EXPECT_EQ(found.code(), ErrorCode::kIntegrity);
  EXPECT_EQ(states(found), (States{"corrupt", "ok"}));
  const VerifiedFile& file = found.entries[0].files[0];
  EXPECT_EQ(file.expected, (Digest{Digest::Kind::kGitSha1, git_sha1_hex("aaa")}));
  EXPECT_EQ(file.actual, git_sha1_hex("axa"));
  for (const std::string& digest : {git_sha1_hex("aaa"), git_sha1_hex("axa")}) {
    EXPECT_NE(describe(*found.error).find(digest), std::string::npos) << describe(*found.error);
  }
}

TEST_F(VerifyTest, WithoutAReceiptTheTreeTellsAndWithoutATreeTheNamesOfTheBlobs) {
  fetch_model();
  EXPECT_EQ(verified(kModel).entries[0].listed_by, "receipt");
  std::filesystem::remove_all(dir / "hub/models--org--model/.fvprefetch");
  EXPECT_EQ(verified(kModel).entries[0].listed_by, "tree");
  std::filesystem::remove_all(dir / "hub/models--org--model/trees");
  rot(blob("bbb"), "bxb");
  const Verification found = verified(kModel);
  EXPECT_EQ(found.entries[0].listed_by, "snapshot");
  EXPECT_EQ(states(found), (States{"ok", "corrupt"}));
}

TEST_F(VerifyTest, ASnapshotFileThatIsNoLinkSaysNothingOfItsDigest) {
  dir.write(snapshot("a.bin"), "\1aa");
  const std::string pinned = R"([{"name": "m", "source": "org/model", "filename": "a.bin",)"
                             R"( "revision": ")" +
                             kCommit + "\"";
  const Verification loose = verified(pinned + "}]");
  EXPECT_TRUE(loose.ok());
  EXPECT_EQ(states(loose), States{"unverifiable"});
  EXPECT_EQ(states(verified(pinned + R"(, "sha256": ")" + sha256_hex("\1aa") + R"("}])")),
            States{"ok"});
  EXPECT_EQ(states(verified(pinned + R"(, "size": 4}])")), States{"corrupt"});
}

TEST_F(VerifyTest, AFileThatNoDigestTellsOfIsCorruptWhenThatShows) {
  for (const std::string text : {"Not found", "version https://git-lfs.github.com/spec/v1", ""}) {
    dir.write("eval/models/a.pth", text);
    EXPECT_EQ(states(verified(R"([{"name": "a.pth", "source": "https://host/a"}])")),
              States{"corrupt"});
  }
  dir.write("eval/models/a.pth", "\1weights");
  EXPECT_EQ(states(verified(R"([{"name": "a.pth", "source": "https://host/a"}])")),
            States{"unverifiable"});
}

TEST_F(VerifyTest, AUrlFileIsCheckedByItsReceiptEvenWhenTheReceiptDoesNotFitIt) {
  wire.on("https://host/a", Answer::whole("first"));
  ASSERT_TRUE(run(kUrl).ok());
  EXPECT_EQ(states(verified(kUrl)), States{"ok"});
  rot("eval/models/a", "f1rst");
  EXPECT_EQ(states(verified(kUrl)), States{"corrupt"});
  std::filesystem::remove(dir / "eval/models/a");
  dir.write("eval/models/a", "another file");
  EXPECT_EQ(states(verified(kUrl)), States{"corrupt"});
}

TEST_F(VerifyTest, AReceiptOfAnotherSourceTellsOfItsOwnFileOnly) {
  wire.on("https://host/a", Answer::whole("first"));
  ASSERT_TRUE(run(kUrl).ok());
  const std::string other = R"([{"name": "a", "source": "https://host/b"}])";
  EXPECT_EQ(states(verified(other)), States{"ok"});
  std::filesystem::remove(dir / "eval/models/a");
  dir.write("eval/models/a", "put there by hand");
  const Verification found = verified(other);
  EXPECT_EQ(states(found), States{"unverifiable"});
  EXPECT_NE(found.entries[0].files[0].note.find("another source"), std::string::npos);
}

TEST_F(VerifyTest, ADigestThatANameTellsIsChecked) {
  const std::string digest = sha256_hex("weights");
  const std::string dest = "torch/hub/checkpoints/x-" + digest.substr(0, 12) + ".pth";
  const std::string one =
      R"([{"name": "a", "source": "https://host/x", "dest": ")" + dest + R"("}])";
  dir.write("eval/" + dest, "weights");
  EXPECT_EQ(states(verified(one)), States{"ok"});
  dir.write("eval/" + dest, "w3ights");
  EXPECT_EQ(states(verified(one)), States{"corrupt"});
}

// --- whose failure it is -------------------------------------------------------------------------

TEST_F(VerifyTest, CorruptionComesBeforeWhatIsMissingAndOptionalEntriesAreNoFailure) {
  const std::string absent = R"({"name": "b", "source": "https://host/b")";
  const std::string pin = R"("sha256": ")" + sha256_hex("x") + "\"";
  const std::string wrong = R"({"name": "a", "source": "https://host/a", )" + pin;
  dir.write("eval/models/a", "y");
  EXPECT_EQ(verified("[" + absent + "}]").code(), ErrorCode::kOfflineMissing);
  EXPECT_EQ(verified("[" + absent + "}, " + wrong + "}]").code(), ErrorCode::kIntegrity);
  EXPECT_EQ(verified("[" + absent + "}, " + wrong + R"(, "optional": true}])").code(),
            ErrorCode::kOfflineMissing);
  EXPECT_EQ(verified("[" + wrong + R"(, "optional": true}])").code(), ErrorCode::kPartial);
}

TEST_F(VerifyTest, AFolderOfTheUsersOwnIsThereAndAPinnedOneIsNoFile) {
  std::filesystem::create_directories(dir / "mine");
  const std::string head = R"([{"name": "m", "source": ")" + dir / "mine" + "\"";
  EXPECT_EQ(states(verified(head + "}]")), States{"unverifiable"});
  EXPECT_EQ(states(verified(head + R"(, "size": 1}])")), States{"corrupt"});
}

TEST_F(VerifyTest, AManifestThatCannotBeUsedIsAnErrorOfTheWhole) {
  const Verification found = verified(
      R"([{"name": "a", "source": "https://host/a"},
          {"name": "b", "source": "https://host/b", "dest": "models/a"}])");
  EXPECT_EQ(found.code(), ErrorCode::kUsage);
}

// --- reading -------------------------------------------------------------------------------------

TEST_F(VerifyTest, NamesOfOneFileAreReadOnce) {
  fetch_model();
  const Verification found = verified(
      R"([{"name": "m", "source": "org/model"},
          {"name": "a", "source": "org/model", "filename": "a.bin"}])");
  EXPECT_TRUE(found.ok());
  EXPECT_EQ(states(found), (States{"ok", "ok", "ok"}));
  EXPECT_EQ(found.files_read, 2U);
  EXPECT_EQ(found.bytes_read, 6U);
}

TEST_F(VerifyTest, ProgressEndsWithAllOfIt) {
  fetch_model();
  seen.events.clear();
  ASSERT_TRUE(verified(kModel).ok());
  const auto planned = seen.all<FetchPlanned>();
  ASSERT_EQ(planned.size(), 1U);
  EXPECT_EQ(planned[0].work, Work::kVerifying);
  EXPECT_EQ(planned[0].files, 2U);
  EXPECT_EQ(planned[0].bytes, 6U);
  EXPECT_EQ(seen.all<FileFinished>().size(), 2U);
  ASSERT_EQ(seen.all<EntryDone>().size(), 1U);
  EXPECT_EQ(seen.all<EntryDone>()[0].state, "ok");
}

TEST_F(VerifyTest, AFileThatIsReplacedMeanwhileIsJudgedAsWhatItIsNow) {
  fetch_model();
  rot(blob("aaa"), "axa");
  int rounds = 0;
  AtTheReading observer(
      [&] {
        if (++rounds == 1) std::filesystem::rename(dir.write("new", "aaa"), dir / blob("aaa"));
      },
      AtTheReading::When::kAfter);
  options.observer = &observer;
  const Verification found = verified(kModel);
  EXPECT_TRUE(found.ok()) << describe(*found.error);
  EXPECT_EQ(rounds, 2);
  EXPECT_EQ(found.files_read, 3U);  // a.bin as it was, and again; b.bin
}

TEST_F(VerifyTest, AFileThatIsReplacedAgainAndAgainIsGivenUp) {
  fetch_model();
  AtTheReading observer(
      [&] { std::filesystem::rename(dir.write("new", "aaa"), dir / blob("aaa")); },
      AtTheReading::When::kAfter);
  options.observer = &observer;
  const Verification found = verified(kModel);
  EXPECT_EQ(found.code(), ErrorCode::kInternal);
  EXPECT_EQ(states(found), (States{"unchecked", "ok"}));
}

TEST_F(VerifyTest, AFileThatGoesMeanwhileIsMissing) {
  fetch_model();
  AtTheReading observer([&] { std::filesystem::remove(dir / blob("aaa")); });
  options.observer = &observer;
  const Verification found = verified(kModel);
  EXPECT_EQ(found.code(), ErrorCode::kOfflineMissing);
  EXPECT_EQ(states(found), (States{"missing", "ok"}));
}

TEST_F(VerifyTest, ASignalAndTheDeadlineEndItAndWhatWasNotReadIsNotJudged) {
  fetch_model();
  std::stop_source stop;
  options.stop = stop.get_token();
  AtTheReading signalled([&] { stop.request_stop(); });
  options.observer = &signalled;
  const Verification found = verified(kModel);
  EXPECT_EQ(exit_code(found.code()), 128 + 15);
  EXPECT_EQ(states(found), (States{"unchecked", "unchecked"}));

  options.stop = {};
  options.deadline = std::chrono::seconds(1);
  options.repair = true;
  AtTheReading late([&] { clock.advance(std::chrono::seconds(2)); });
  options.observer = &late;
  const Verification stopped = verified(kModel);
  EXPECT_EQ(stopped.code(), ErrorCode::kNetwork);
  EXPECT_FALSE(stopped.repair.has_value());
}

TEST_F(VerifyTest, ManyFilesAreAllReadInTheOrderThatWasAsked) {
  std::vector<HashJob> jobs;
  for (int i = 0; i < 100; ++i) {
    const std::string text(static_cast<std::size_t>(i), 'x');
    jobs.push_back({dir.write("f" + std::to_string(i), text), Digest::Kind::kSha256, text.size()});
  }
  jobs.push_back({dir / "absent", Digest::Kind::kSha256, 0});
  const Session session(options, {});
  const HashResults results = hash_all(jobs, session, [](std::uint64_t, std::size_t) {});
  ASSERT_EQ(results.files.size(), 101U);
  for (std::size_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(IsOk(results.files[i]));
    EXPECT_EQ(results.files[i]->hex, sha256_hex(std::string(i, 'x')));
  }
  EXPECT_EQ(results.files[100].error().code, ErrorCode::kNotFound);
  EXPECT_EQ(results.bytes_read, 4950U);
  EXPECT_FALSE(results.stopped.has_value());
}

// --- repair --------------------------------------------------------------------------------------

TEST_F(VerifyTest, RepairFetchesTheBadFileAloneWhateverTheReceiptSays) {
  fetch_model();
  wire.on("https://host/a", Answer::whole("first"));
  ASSERT_TRUE(run(kUrl).ok());
  rot(blob("aaa"), "axa");
  rot("eval/models/a", "f1rst");  // the receipt fits it: same size, same time
  const std::string both =
      R"([{"name": "m", "source": "org/model"}, {"name": "a", "source": "https://host/a"}])";
  const std::size_t before = wire.sent().size();
  EXPECT_EQ(verified(both).code(), ErrorCode::kIntegrity);
  EXPECT_EQ(wire.sent().size(), before);

  options.repair = true;
  options.refresh = true;  // says nothing here: what is there is repaired
  wire.on(kFiles + "/a.bin", Answer(307).header("location", "https://hub.test/cache/a.bin"));
  wire.on("https://hub.test/cache/a.bin", Answer::whole("aaa"));
  wire.on("https://host/a", Answer::whole("first"));
  const Verification found = verified(both);
  ASSERT_TRUE(found.ok()) << describe(*found.error);
  EXPECT_EQ(wire.sent().size(), before + 3);  // the small file by way of its redirect
  EXPECT_TRUE(found.entries[0].repaired && found.entries[1].repaired);
  EXPECT_EQ(found.entries[0].state, "corrupt");  // as it was found
  EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
  EXPECT_EQ(dir.read("eval/models/a"), "first");
  const Verification again = verified(both);
  EXPECT_TRUE(again.ok());
  EXPECT_FALSE(again.repair.has_value());
}

TEST_F(VerifyTest, ARepairThatFailsLeavesWhatIsThereAndHasTheLastWord) {
  fetch_model();
  rot(blob("aaa"), "axa");
  options.repair = true;
  options.retries = 0;
  wire.on(kFiles + "/a.bin", Answer(404));
  const Verification found = verified(kModel);
  EXPECT_EQ(found.code(), ErrorCode::kNotFound);
  EXPECT_EQ(found.entries[0].error->code, ErrorCode::kNotFound);
  EXPECT_FALSE(found.entries[0].repaired);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "axa");
}

TEST_F(VerifyTest, OfflineNothingIsRepaired) {
  fetch_model();
  rot(blob("aaa"), "axa");
  options.repair = true;
  options.offline = true;
  const Verification found = verified(kModel);
  EXPECT_EQ(found.code(), ErrorCode::kIntegrity);
  EXPECT_FALSE(found.repair.has_value());
}

TEST_F(VerifyTest, APointerThatLeadsToAnotherBlobIsSetRightAndThatBlobIsLeft) {
  fetch_model();
  std::filesystem::remove(dir / snapshot("a.bin"));
  std::filesystem::create_symlink("../../blobs/" + git_sha1_hex("bbb"), dir / snapshot("a.bin"));
  options.repair = true;
  const Verification found = verified(kModel);
  ASSERT_TRUE(found.ok()) << describe(*found.error);
  EXPECT_EQ(states(found), (States{"corrupt", "ok"}));
  EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
  EXPECT_EQ(dir.read(snapshot("b.bin")), "bbb");
}

TEST_F(VerifyTest, AFileOfACacheWithoutLinksIsReplaced) {
  fetch_model();
  for (const char* file : {"a.bin", "b.bin"}) std::filesystem::remove(dir / snapshot(file));
  std::filesystem::remove_all(dir / "hub/models--org--model/blobs");
  dir.write(snapshot("a.bin"), "axa");
  dir.write(snapshot("b.bin"), "bbb");
  options.repair = true;
  wire.on(kFiles + "/a.bin", Answer::whole("aaa"));
  const Verification found = verified(kModel);
  ASSERT_TRUE(found.ok()) << describe(*found.error);
  EXPECT_EQ(dir.read(snapshot("a.bin")), "aaa");
}

TEST_F(VerifyTest, ARejectedPathIsForgottenWhenAnotherFileLiesThere) {
  const std::string path = dir.write("f", "one");
  Rejected rejected;
  rejected.add(path, **posix::stat(path));
  EXPECT_TRUE(rejected.holds(path));
  EXPECT_FALSE(rejected.holds(dir / "other"));
  std::filesystem::rename(dir.write("g", "two"), path);
  EXPECT_FALSE(rejected.holds(path));
}

}  // namespace
}  // namespace fvprefetch
