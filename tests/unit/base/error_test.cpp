#include "fvprefetch/error.h"

#include <gtest/gtest.h>

#include <csignal>

#include "support/matchers.h"

namespace fvprefetch {
namespace {

using testing::row_name;

// The public table: scripts depend on every cell of it.
struct Row {
  const char* name;
  ErrorCode code;
  int exit_code;
  bool retryable;
};
constexpr Row kRows[] = {
    {"ok", ErrorCode::kOk, 0, false},
    {"internal", ErrorCode::kInternal, 1, false},
    {"usage", ErrorCode::kUsage, 2, false},
    {"partial", ErrorCode::kPartial, 3, true},
    {"access", ErrorCode::kAccess, 4, false},
    {"not_found", ErrorCode::kNotFound, 5, false},
    {"network", ErrorCode::kNetwork, 6, true},
    {"rate_limited", ErrorCode::kRateLimited, 7, true},
    {"integrity", ErrorCode::kIntegrity, 8, false},
    {"no_space", ErrorCode::kNoSpace, 9, false},
    {"permission", ErrorCode::kPermission, 10, false},
    {"lock_timeout", ErrorCode::kLockTimeout, 11, true},
    {"offline_missing", ErrorCode::kOfflineMissing, 12, false},
    {"launcher", ErrorCode::kLauncher, 13, false},
    {"not_visible", ErrorCode::kNotVisible, 14, true},
    {"signal", static_cast<ErrorCode>(128 + SIGTERM), 143, true},
};

class ErrorTable : public ::testing::TestWithParam<Row> {};

TEST_P(ErrorTable, KeepsItsNumberNameAndRetryRule) {
  const Row& row = GetParam();
  EXPECT_EQ(exit_code(row.code), row.exit_code);
  EXPECT_EQ(name(row.code), row.name);
  EXPECT_EQ(retryable(row.code), row.retryable);
}

TEST_P(ErrorTable, HasAHintForEveryFailure) {
  Error error;
  error.code = GetParam().code;
  EXPECT_EQ(hint(error).empty(), GetParam().code == ErrorCode::kOk);
}

INSTANTIATE_TEST_SUITE_P(Rows, ErrorTable, ::testing::ValuesIn(kRows), row_name<Row>);

TEST(Error, OwnHintWinsOverTheTables) {
  const Status status = fail(ErrorCode::kUsage, "no such option", "try --help");
  EXPECT_EQ(hint(status.error()), "try --help");
}

TEST(Error, IsDescribedWithOutermostContextFirst) {
  Error error;
  error.message = "404 Not Found";
  error = with_context(std::move(error), "while fetching model.safetensors");
  error = with_context(std::move(error), "entry `raft`");
  EXPECT_EQ(describe(error), "entry `raft`: while fetching model.safetensors: 404 Not Found");
}

TEST(Error, InterruptedNamesTheSignalAndSaysThatWorkIsKept) {
  const Error error = interrupted(SIGTERM);
  EXPECT_EQ(exit_code(error.code), 143);
  EXPECT_EQ(error.message,
            "stopped by SIGTERM (signal 15); run it again: it goes on with what it can use");
}

TEST(Error, InterruptedByASignalWithoutAKnownNameTellsItsNumber) {
  EXPECT_EQ(interrupted(40).message,
            "stopped by signal 40; run it again: it goes on with what it can use");
}

TEST(Error, ForeignCodeCountsAsInternal) {
  EXPECT_EQ(name(static_cast<ErrorCode>(99)), "internal");
}

}  // namespace
}  // namespace fvprefetch
