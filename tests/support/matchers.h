// Assertions on errors as values, and names for the rows of a table.
//
//   ASSERT_TRUE(IsOk(result));
//   EXPECT_TRUE(FailsWith(result, ErrorCode::kNoSpace, "cannot write"));
//   INSTANTIATE_TEST_SUITE_P(Rows, UrlTable, ::testing::ValuesIn(kRows), row_name<Row>);
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "fvprefetch/error.h"

namespace fvprefetch::testing {

template <typename T>
[[nodiscard]] ::testing::AssertionResult IsOk(const Result<T>& result) {
  if (result) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "failed with " << name(result.error().code) << ": " << describe(result.error());
}

/// `text` must be part of the message with its context; "" asks for the code only.
template <typename T>
[[nodiscard]] ::testing::AssertionResult FailsWith(const Result<T>& result, ErrorCode code,
                                                   const std::string& text = {}) {
  if (result) return ::testing::AssertionFailure() << "it is ok, not " << name(code);
  const std::string said = describe(result.error());
  if (result.error().code == code && said.find(text) != std::string::npos) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << "expected " << name(code) << " with `" << text
                                       << "`, got " << name(result.error().code) << ": " << said;
}

/// For tables whose rows have a `name` of letters, digits and underscores.
template <typename Row>
std::string row_name(const ::testing::TestParamInfo<Row>& info) {
  return info.param.name;
}

}  // namespace fvprefetch::testing
