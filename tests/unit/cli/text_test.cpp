#include "cli/text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>

#include "support/matchers.h"

namespace fvprefetch::cli {
namespace {

struct Number {
  const char* name;
  std::string said;
  const char* expected;
};
class Numbers : public ::testing::TestWithParam<Number> {};
TEST_P(Numbers, ReadAsPeopleSayThem) {
  EXPECT_EQ(GetParam().said, GetParam().expected);
}
const Number kNumbers[] = {
    {"bytes", bytes_text(512), "512 B"},
    {"no_bytes", bytes_text(0), "0 B"},
    {"kilobytes", bytes_text(1000), "1.0 kB"},
    {"gigabytes", bytes_text(28'300'000'000), "28.3 GB"},
    {"not_a_thousand_of_the_smaller", bytes_text(999'960), "1.0 MB"},
    {"part_of_whole", bytes_of_text(3'200'000'000, 28'300'000'000), "3.2 of 28.3 GB"},
    {"part_in_another_unit", bytes_of_text(5'000, 28'300'000'000), "5.0 kB of 28.3 GB"},
    {"short_time", duration_text(std::chrono::milliseconds(400)), "0.4 s"},
    {"seconds", duration_text(std::chrono::seconds(42)), "42 s"},
    {"minutes", duration_text(std::chrono::seconds(250)), "4 min 10 s"},
    {"hours", duration_text(std::chrono::minutes(125)), "2 h 5 min"},
    {"one", count_text(1, "file", "files"), "1 file"},
    {"none", count_text(0, "file", "files"), "no files"},
    {"plain_word", shell_quote("/a/b-c_d.e"), "/a/b-c_d.e"},
    {"spaces", shell_quote("a b"), "'a b'"},
    {"quote_inside", shell_quote("it's $HOME"), R"('it'\''s $HOME')"},
    {"empty_word", shell_quote(""), "''"},
};
INSTANTIATE_TEST_SUITE_P(Rows, Numbers, ::testing::ValuesIn(kNumbers), testing::row_name<Number>);

Report report_of(EntryState second) {
  Report report;
  EntryReport hit;
  hit.name = "a";
  hit.state = EntryState::kHit;
  hit.path = "/cache/a";
  EntryReport other;
  other.name = "b";
  other.state = second;
  other.path = second == EntryState::kFetched ? "/cache/b" : "";
  other.bytes_fetched = second == EntryState::kFetched ? 1'200'000'000 : 0;
  other.requests = 5;
  if (second == EntryState::kFailed) other.error = fail(ErrorCode::kNotFound, "404").value();
  report.entries = {hit, other};
  report.seconds = 12;
  return report;
}

TEST(Results, ListOnlyWhatIsThereInManifestOrder) {
  EXPECT_EQ(results_text(report_of(EntryState::kFetched)), "a\t/cache/a\nb\t/cache/b\n");
  EXPECT_EQ(results_text(report_of(EntryState::kFailed)), "a\t/cache/a\n");
}

TEST(Summary, CountsHitsFetchedBytesAndRequests) {
  EXPECT_EQ(summary_text(report_of(EntryState::kFetched)),
            "2 entries: 1 hit, 1 fetched, 1.2 GB in 12 s (100.0 MB/s), 5 requests");
}

TEST(Exports, AreOneQuotedAssignmentALine) {
  EXPECT_EQ(exports_text({{"HF_HUB_OFFLINE", "1"}, {"HF_HUB_CACHE", "/my cache"}}),
            "export HF_HUB_OFFLINE=1\nexport HF_HUB_CACHE='/my cache'\n");
}

TEST(Exports, NameTheCachesAsTheyAreUsed) {
  Options options;
  options.cache_dir = "/eval";
  options.hf_cache_dir = "/hub";
  const auto none = [](std::string_view) -> std::optional<std::string> { return std::nullopt; };
  const Variables expected{{"HF_HUB_OFFLINE", "1"},
                           {"HF_HUB_CACHE", "/hub"},
                           {"FASTVIDEO_EVAL_CACHE", "/eval"},
                           {"TORCH_HOME", "/eval/torch"}};
  EXPECT_EQ(job_variables(none, options), expected);
  const auto torch = [](std::string_view name) -> std::optional<std::string> {
    return name == "TORCH_HOME" ? std::optional<std::string>("/t") : std::nullopt;
  };
  EXPECT_EQ(job_variables(torch, options).back().second, "/t");
}

PlannedEntry missing_entry(std::optional<std::uint64_t> size) {
  PlannedEntry entry;
  entry.name = "w";
  entry.state = "missing";
  entry.source = "org/model";
  entry.commit = std::string(40, 'c');
  entry.path = "/hub/snapshot";
  entry.files.push_back({"have.json", "", 3, true, "hub"});
  entry.files.push_back({"w.bin", "https://hub/w.bin", size, false, "hub"});
  return entry;
}

TEST(PlanText, SaysFromWhereHowBigAndByWhichRule) {
  const std::string text = plan_text({{missing_entry(21'100'000)}, std::nullopt}, false);
  for (const char* part : {"w: missing, 1 file, 21.1 MB to fetch", "org/model @ cccccccccccc\n",
                           "/hub/snapshot", "https://hub/w.bin", "digest: hub"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_EQ(text.find("have.json"), std::string::npos) << text;
}

TEST(PlanText, AnUnknownSizeIsNotCalledZero) {
  PlannedEntry begun = missing_entry(21'100'000);
  begun.bytes_partial = 12'000'000;
  EXPECT_NE(plan_text({{begun}, std::nullopt}, false).find("up to 12.0 MB of it here already"),
            std::string::npos);
  const std::string text = plan_text({{missing_entry(std::nullopt)}, std::nullopt}, false);
  EXPECT_NE(text.find("1 file of unknown size to fetch"), std::string::npos) << text;
  EXPECT_EQ(text.find("0 B"), std::string::npos) << text;
}

TEST(PlanText, ListsWhatIsThereWhenAsked) {
  EXPECT_NE(plan_text({{missing_entry(7)}, std::nullopt}, true).find("have  have.json"),
            std::string::npos);
}

TEST(FailureLines, LeaveOutWhatTheErrorTellsAlready) {
  Report report = report_of(EntryState::kFailed);
  EntryReport skipped;
  skipped.name = "c";
  skipped.state = EntryState::kSkipped;
  report.entries.push_back(skipped);
  report.error = with_context(*report.entries[1].error, "entry `b`");
  const std::vector<std::string> expected{"not finished since another entry failed: `c`"};
  EXPECT_EQ(failure_lines(report), expected);
  report.error = fail(ErrorCode::kPartial, "only optional entries failed").value();
  report.entries[1].optional = true;
  EXPECT_EQ(failure_lines(report).front(), "optional `b` failed: 404");
}

// All entries failed, and the error of the run lists them all.
Report all_missing(int entries) {
  Report report;
  std::string list = "offline, and missing: ";
  for (int i = 0; i < entries; ++i) {
    EntryReport entry;
    entry.name = "entry" + std::to_string(i);
    entry.state = EntryState::kFailed;
    entry.error = fail(ErrorCode::kOfflineMissing, "/cache/models/" + entry.name).value();
    list += (i == 0 ? "" : "; ") + entry.name + ": " + entry.error->message;
    report.entries.push_back(std::move(entry));
  }
  report.error = fail(ErrorCode::kOfflineMissing, list).value();
  return report;
}

double seconds_of_failure_lines(const Report& report) {
  double least = 1e9;
  for (int i = 0; i < 3; ++i) {
    const std::clock_t begin = std::clock();
    EXPECT_TRUE(failure_lines(report).empty());
    least = std::min(least, static_cast<double>(std::clock() - begin));
  }
  return least;
}

TEST(FailureLines, OfFourTimesAsManyEntriesTakeAboutFourTimesAsLong) {
  const Report few = all_missing(10'000);
  const Report many = all_missing(40'000);
  EXPECT_LT(seconds_of_failure_lines(many), 8 * seconds_of_failure_lines(few));  // squared: 16
}

TEST(FailureLines, HaveWhatTheErrorOfTheRunDoesNotList) {
  Report report = all_missing(3);
  report.entries[1].error = fail(ErrorCode::kPermission, "refused").value();
  report.entries[2].error = fail(ErrorCode::kOfflineMissing, "/elsewhere").value();
  EXPECT_EQ(failure_lines(report),
            (std::vector<std::string>{"`entry1` failed: refused", "`entry2` failed: /elsewhere"}));
}

TEST(Status, SaysWhoIsFetchingAndHowFar) {
  Plan plan;
  PlannedEntry entry;
  entry.name = "w";
  entry.state = "being_fetched";
  entry.holder = "node17 pid 4242";
  entry.bytes_partial = 3'200'000'000;
  entry.files.push_back({"w.bin", "", 28'300'000'000, false, "hub"});
  plan.entries.push_back(entry);
  const std::string text = status_text(plan);
  for (const char* part : {"w", "being fetched", "3.2 of 28.3 GB", "node17 pid 4242"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

TEST(LockSummary, CountsFilesOfRepositoriesAndUrls) {
  Manifest locked;
  locked.entries.resize(3);
  locked.entries[0].files.resize(2);
  locked.entries[0].files[1].size = 1500;
  locked.entries[1].sha256 = std::string(64, 'a');
  locked.entries[1].size = 500;
  EXPECT_EQ(lock_summary(locked, "m.lock.json"),
            "3 entries pinned in m.lock.json: 3 files, 2.0 kB");
}

Verification verification_with(FileState state) {
  Verification found;
  VerifiedEntry good;
  good.name = "good";
  good.state = "ok";
  good.files.push_back({"g.bin", "", FileState::kOk, std::nullopt, "", 5, 5, ""});
  VerifiedEntry other;
  other.name = "other";
  other.state = name(state);
  other.files.push_back({"w.bin", "", state, Digest{Digest::Kind::kSha256, "aa"}, "bb", 7, 6, ""});
  found.entries = {good, other};
  return found;
}

TEST(Verification, NamesABadFileWithBothDigestsAndSizes) {
  const std::string text = verification_text(verification_with(FileState::kCorrupt), false);
  EXPECT_NE(
      text.find("corrupt  w.bin, expected sha256 aa, actual bb, expected 7 bytes, actual 6\n"),
      std::string::npos)
      << text;
  EXPECT_EQ(text.find("g.bin"), std::string::npos) << text;
  EXPECT_NE(verification_text(verification_with(FileState::kCorrupt), true).find("g.bin"),
            std::string::npos);
}

TEST(Verification, SaysWhyAFileIsUnverifiableAndCountsIt) {
  Verification found = verification_with(FileState::kUnverifiable);
  found.entries[1].files[0].note = "nothing to check against";
  const std::string text = verification_text(found, false);
  EXPECT_NE(text.find("unverifiable  1 file, 6 B, nothing to check against\n"), std::string::npos)
      << text;
  EXPECT_EQ(verification_summary(found), "2 entries, 2 files: 1 ok, 1 unverifiable");
}

TEST(Verification, AnOptionalEntryIsNamedThoughTheErrorIsNotItsOwn) {
  Verification found = verification_with(FileState::kMissing);
  found.entries[1].optional = true;
  found.entries[1].error = fail(ErrorCode::kOfflineMissing, "w.bin").value();
  found.error = fail(ErrorCode::kPartial, "1 of 2 entries failed, all of them optional").value();
  EXPECT_EQ(failure_lines(found), std::vector<std::string>{"optional `other` missing: w.bin"});
  found.error = fail(ErrorCode::kOfflineMissing, "missing: other: w.bin").value();
  EXPECT_TRUE(failure_lines(found).empty());
}

TEST(PruneText, ListsWhatIsGoneAndCountsWhatStays) {
  Pruning done;
  EXPECT_EQ(pruning_text(done), "");
  EXPECT_EQ(pruning_summary(done), "removed nothing");
  const Error refused = fail(ErrorCode::kPermission, "cannot remove /c/d: Read-only").value();
  const Error unknown = fail(ErrorCode::kPermission, "refused").value();
  done.files = {
      {"/c/a", PruneState::kRemoved, 1000, {}},  {"/c/b", PruneState::kRemoved, 500, {}},
      {"/c/c", PruneState::kInUse, 7, {}},       {"/c/y", PruneState::kYoung, 8, {}},
      {"/c/d", PruneState::kFailed, 9, refused}, {"/c/e", PruneState::kFailed, 9, unknown}};
  done.warnings = {fail(ErrorCode::kPermission, "cannot list /c/x").value()};
  done.error = refused;
  EXPECT_EQ(pruning_text(done), "/c/a\n/c/b\n");
  EXPECT_EQ(pruning_summary(done),
            "removed 2 files, 1.5 kB; kept 1 file, 7 B, in use and 1 file, 8 B, not a day old");
  EXPECT_EQ(failure_lines(done), (std::vector<std::string>{"cannot list /c/x", "/c/e: refused"}));
  done.dry_run = true;
  done.files = {{"/c/a", PruneState::kOrphan, 1000, {}}};
  EXPECT_EQ(pruning_text(done), "/c/a\n");
  EXPECT_EQ(pruning_summary(done), "would remove 1 file, 1.0 kB");
}

}  // namespace
}  // namespace fvprefetch::cli
