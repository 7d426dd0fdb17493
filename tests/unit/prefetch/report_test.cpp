#include "fvprefetch/report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/matchers.h"

namespace fvprefetch {
namespace {

using testing::FailsWith;
using testing::IsOk;

Report full_report() {
  Report report;
  report.ranks = 8;
  report.nodes = 2;
  report.launcher = "slurm";
  report.requests = 3;
  report.seconds = 1.5;
  report.lock = {"flock", 2.25, "node17 pid 4242"};
  EntryReport fetched;
  fetched.name = "raft";
  fetched.kind = EntryKind::kHubFile;
  fetched.state = EntryState::kFetched;
  fetched.path = "/cache/raft.pth";
  fetched.commit = std::string(40, 'a');
  fetched.resolved_at = "2026-11-24T08:14:26Z";
  fetched.verified_by = "digest";
  fetched.files = 1;
  fetched.bytes_total = 5'000'000'000;
  fetched.bytes_fetched = 5'000'000'000;
  fetched.requests = 2;
  fetched.seconds = 0.5;
  fetched.warnings = {"a warning"};
  EntryReport failed;
  failed.name = "clip";
  failed.kind = EntryKind::kUrl;
  failed.optional = true;
  failed.error = with_context(fail(ErrorCode::kRateLimited, "come back later", "wait").value(),
                              "while fetching x");
  failed.error->subject = "https://host/x";
  failed.error->retry_after = std::chrono::seconds(55);
  report.entries = {fetched, failed};
  report.error = fail(ErrorCode::kPartial, "1 of 2 entries failed").value();
  return report;
}

TEST(Report, SurvivesTheWayToOtherRanks) {
  const Report sent = full_report();
  const auto received = report_from_json(to_json(sent));
  ASSERT_TRUE(IsOk(received));
  // One serialiser: when a field were lost on the way, writing it again would differ.
  EXPECT_EQ(to_json(*received), to_json(sent));
  EXPECT_EQ(received->entries[1].error->retry_after, std::chrono::seconds(55));
  EXPECT_EQ(received->entries[0].bytes_total, 5'000'000'000);
  EXPECT_EQ(received->code(), ErrorCode::kPartial);
}

TEST(Report, NamesSchemaStatusAndExitCode) {
  const auto json = nlohmann::json::parse(to_json(full_report()));
  EXPECT_EQ(json["schema"], 1);
  EXPECT_EQ(json["status"], "partial");
  EXPECT_EQ(json["exit_code"], 3);
  EXPECT_EQ(json["entries"][0]["state"], "fetched");
  EXPECT_EQ(json["totals"]["requests"], 5);
  EXPECT_EQ(json["entries"][1]["error"]["name"], "rate_limited");
}

TEST(Report, OfASignalKeepsItsExitCode) {
  const auto received = report_from_json(to_json(failed_report(interrupted(15))));
  ASSERT_TRUE(IsOk(received));
  EXPECT_EQ(exit_code(received->code()), 143);
}

TEST(Report, WithBytesThatAreNotUtf8IsStillADocument) {
  Report report;
  report.entries.emplace_back();
  report.entries[0].path = "/cache/\xff";
  EXPECT_TRUE(IsOk(report_from_json(to_json(report))));
}

struct BadDocument {
  const char* name;
  const char* text;
};
class BadDocuments : public ::testing::TestWithParam<BadDocument> {};
TEST_P(BadDocuments, AreRefused) {
  EXPECT_TRUE(FailsWith(report_from_json(GetParam().text), ErrorCode::kInternal));
}
constexpr BadDocument kBadDocuments[] = {
    {"empty", ""},
    {"no_object", "[]"},
    {"no_schema", "{}"},
    {"later_schema", R"({"schema": 2})"},
    {"unknown_state", R"({"schema": 1, "entries": [{"kind": "url", "state": "lost"}]})"},
    {"entry_is_no_object", R"({"schema": 1, "entries": [1]})"},
    {"warnings_of_a_wrong_type",
     R"({"schema": 1, "entries": [{"kind": "url", "state": "hit", "warnings": 7}]})"}};
INSTANTIATE_TEST_SUITE_P(Rows, BadDocuments, ::testing::ValuesIn(kBadDocuments),
                         testing::row_name<BadDocument>);

}  // namespace
}  // namespace fvprefetch
