#include "base/environment.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "support/matchers.h"
#include "support/temp_dir.h"

namespace fvprefetch::environment {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::row_name;
using testing::TempDir;

using Table = std::map<std::string, std::string, std::less<>>;

EnvironmentLookup lookup(Table table) {
  return [table = std::move(table)](std::string_view name) -> std::optional<std::string> {
    const auto found = table.find(name);
    return found == table.end() ? std::nullopt : std::optional(found->second);
  };
}

// Places of a row; none of them exists, so that nothing of this machine changes an answer.
struct Place {
  const char* name;
  Table variables;
  std::string expected;
};

const Place kEvalCaches[] = {
    {"own_variable_is_taken_verbatim", {{"FASTVIDEO_EVAL_CACHE", "~/$X"}, {"HOME", "/h"}}, "~/$X"},
    {"own_variable_wins", {{"FASTVIDEO_EVAL_CACHE", "/e"}, {"FASTVIDEO_CACHE_ROOT", "/r"}}, "/e"},
    {"trailing_slash_is_dropped_as_by_pathlib", {{"FASTVIDEO_EVAL_CACHE", "/e/"}}, "/e"},
    {"empty_counts_as_not_set",
     {{"FASTVIDEO_EVAL_CACHE", ""}, {"FASTVIDEO_CACHE_ROOT", "/r"}},
     "/r/eval"},
    {"cache_root", {{"FASTVIDEO_CACHE_ROOT", "/r"}}, "/r/eval"},
    {"cache_root_expands_home", {{"FASTVIDEO_CACHE_ROOT", "~/c"}, {"HOME", "/h"}}, "/h/c/eval"},
    {"cache_root_expands_no_variables",
     {{"FASTVIDEO_CACHE_ROOT", "$HOME/c"}, {"HOME", "/h"}},
     "$HOME/c/eval"},
    {"xdg", {{"XDG_CACHE_HOME", "/x"}, {"HOME", "/h"}}, "/x/fastvideo/eval"},
    {"empty_xdg_counts_as_not_set",
     {{"XDG_CACHE_HOME", ""}, {"HOME", "/h"}},
     "/h/.cache/fastvideo/eval"},
    {"default", {{"HOME", "/h"}}, "/h/.cache/fastvideo/eval"},
};

class EvalCache : public ::testing::TestWithParam<Place> {};
TEST_P(EvalCache, IsFastVideos) {
  EXPECT_EQ(eval_cache(lookup(GetParam().variables), ""), GetParam().expected);
}
INSTANTIATE_TEST_SUITE_P(Rows, EvalCache, ::testing::ValuesIn(kEvalCaches), row_name<Place>);

TEST(EvalCache, OptionWinsOverTheEnvironment) {
  EXPECT_EQ(eval_cache(lookup({{"FASTVIDEO_EVAL_CACHE", "/e"}}), "/option/"), "/option");
}

// huggingface_hub's constants.py, where an empty variable counts as set.
const std::string kHere = std::filesystem::current_path().string();
const Place kHubCaches[] = {
    {"own_variable_wins",
     {{"HF_HUB_CACHE", "/a"}, {"HUGGINGFACE_HUB_CACHE", "/b"}, {"HF_HOME", "/c"}},
     "/a"},
    {"older_name_is_next", {{"HUGGINGFACE_HUB_CACHE", "/b"}, {"HF_HOME", "/c"}}, "/b"},
    {"hf_home", {{"HF_HOME", "/c"}, {"XDG_CACHE_HOME", "/x"}}, "/c/hub"},
    {"xdg", {{"XDG_CACHE_HOME", "/x"}, {"HOME", "/h"}}, "/x/huggingface/hub"},
    {"default", {{"HOME", "/h"}}, "/h/.cache/huggingface/hub"},
    {"home_is_expanded", {{"HF_HUB_CACHE", "~/hub"}, {"HOME", "/h"}}, "/h/hub"},
    {"variables_are_expanded",
     {{"HF_HOME", "$WORK/${SUB}"}, {"WORK", "/w"}, {"SUB", "s"}},
     "/w/s/hub"},
    {"variables_that_are_not_set_stay", {{"HF_HUB_CACHE", "/a/$NOPE"}}, "/a/$NOPE"},
    {"values_are_not_expanded_again", {{"HF_HUB_CACHE", "/a/$X"}, {"X", "$X"}}, "/a/$X"},
    {"lone_dollar_stays", {{"HF_HUB_CACHE", "/a/$/${X"}, {"X", "x"}}, "/a/$/${X"},
    {"dots_are_resolved", {{"HF_HUB_CACHE", "/a/./b/../c/"}}, "/a/c"},
    {"empty_is_the_working_directory", {{"HF_HUB_CACHE", ""}, {"HF_HOME", "/c"}}, kHere},
    {"empty_hf_home_is_relative", {{"HF_HOME", ""}, {"HOME", "/h"}}, kHere + "/hub"},
    {"empty_xdg_is_relative", {{"XDG_CACHE_HOME", ""}, {"HOME", "/h"}}, kHere + "/huggingface/hub"},
    {"relative_is_made_absolute", {{"HF_HUB_CACHE", "some/hub"}}, kHere + "/some/hub"},
};

TEST(EvalCache, OptionIsExpanded) {
  EXPECT_EQ(eval_cache(lookup({{"FASTVIDEO_EVAL_CACHE", "/a"}, {"HOME", "/h"}}), "~/mine/"),
            "/h/mine");
}

class HubCache : public ::testing::TestWithParam<Place> {};
TEST_P(HubCache, IsHuggingfaceHubs) {
  EXPECT_EQ(hub_cache(lookup(GetParam().variables), ""), GetParam().expected);
}
INSTANTIATE_TEST_SUITE_P(Rows, HubCache, ::testing::ValuesIn(kHubCaches), row_name<Place>);

TEST(HubCache, OptionWinsOverTheEnvironment) {
  EXPECT_EQ(hub_cache(lookup({{"HF_HUB_CACHE", "/a"}, {"HOME", "/h"}}), "~/mine"), "/h/mine");
}

TEST(HubCache, ResolvesLinksOfTheRoot) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "scratch");
  std::filesystem::create_directory_symlink("scratch", dir / "cache");
  EXPECT_EQ(hub_cache(lookup({{"HF_HUB_CACHE", dir / "cache/hub"}}), ""), dir / "scratch/hub");
}

TEST(HubCache, FollowsALinkWhoseTargetIsNotMadeYet) {
  const TempDir dir;
  std::filesystem::create_symlink(dir / "later", dir / "cache");
  EXPECT_EQ(hub_cache(lookup({{"HF_HUB_CACHE", dir / "cache"}}), ""), dir / "later");
}

const Place kHomes[] = {
    {"tilde", {{"HOME", "/h"}}, "/h"},
    {"home_with_a_slash", {{"HOME", "/h/"}}, "/h"},
    {"root_is_home", {{"HOME", "/"}}, "/"},
};
class Home : public ::testing::TestWithParam<Place> {};
TEST_P(Home, IsWhatTildeStandsFor) {
  EXPECT_EQ(expand_user(lookup(GetParam().variables), "~"), GetParam().expected);
}
INSTANTIATE_TEST_SUITE_P(Rows, Home, ::testing::ValuesIn(kHomes), row_name<Place>);

TEST(ExpandUser, LeavesATildeInTheMiddle) {
  EXPECT_EQ(expand_user(lookup({{"HOME", "/h"}}), "/a/~/b"), "/a/~/b");
}

TEST(ExpandUser, KnowsOtherUsersAsPythonDoes) {
  EXPECT_EQ(expand_user(lookup({{"HOME", "/h"}}), "~root/x"), "/root/x");
}

TEST(ExpandUser, LeavesAnUnknownUser) {
  EXPECT_EQ(expand_user(lookup({}), "~no-such-user-here/x"), "~no-such-user-here/x");
}

TEST(TorchHome, IsNoneWhenEmpty) {
  EXPECT_EQ(torch_home(lookup({{"TORCH_HOME", ""}})), std::nullopt);
  EXPECT_EQ(torch_home(lookup({})), std::nullopt);
}

TEST(TorchHome, ExpandsHome) {
  EXPECT_EQ(torch_home(lookup({{"TORCH_HOME", "~/torch/"}, {"HOME", "/h"}})), "/h/torch");
}

TEST(HubEndpoint, IsHuggingFaceByDefault) {
  EXPECT_EQ(hub_endpoint(lookup({})), "https://huggingface.co");
  EXPECT_EQ(hub_endpoint(lookup({{"HF_ENDPOINT", ""}})), "https://huggingface.co");
}

TEST(HubEndpoint, LosesAllTrailingSlashes) {
  EXPECT_EQ(hub_endpoint(lookup({{"HF_ENDPOINT", "http://mirror:8080//"}})), "http://mirror:8080");
}

// Rows of tokens have a token file that says "from_file".
const Place kTokens[] = {
    {"variable", {{"HF_TOKEN", "a"}, {"HUGGING_FACE_HUB_TOKEN", "b"}}, "a"},
    {"newline_at_the_end_is_removed", {{"HF_TOKEN", "a\n"}}, "a"},
    {"line_ends_inside_are_removed", {{"HF_TOKEN", " a\r\nb "}}, "ab"},
    {"empty_falls_to_the_older_name", {{"HF_TOKEN", ""}, {"HUGGING_FACE_HUB_TOKEN", "b"}}, "b"},
    {"blank_falls_to_the_file",
     {{"HF_TOKEN", " \t"}, {"HUGGING_FACE_HUB_TOKEN", "b"}},
     "from_file"},
    {"file", {}, "from_file"},
    {"disabled", {{"HF_TOKEN", "a"}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes"}}, ""},
    {"not_disabled_by_another_word",
     {{"HF_TOKEN", "a"}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "y"}},
     "a"},
};
class HubToken : public ::testing::TestWithParam<Place> {};
TEST_P(HubToken, IsFoundAndCleanedAsByPython) {
  const TempDir dir;
  dir.write("token", "from_file\n");
  Table variables = GetParam().variables;
  variables["HF_HOME"] = dir.path();
  const auto token = hub_token(lookup(variables));
  ASSERT_TRUE(IsOk(token));
  EXPECT_EQ(token->reveal(), GetParam().expected);
}
INSTANTIATE_TEST_SUITE_P(Rows, HubToken, ::testing::ValuesIn(kTokens), row_name<Place>);

TEST(HubToken, MissingFileMeansNone) {
  const TempDir dir;
  const auto token = hub_token(lookup({{"HF_HOME", dir.path()}}));
  ASSERT_TRUE(IsOk(token));
  EXPECT_TRUE(token->empty());
}

TEST(HubToken, FileHasAPathOfItsOwn) {
  const TempDir dir;
  const auto token =
      hub_token(lookup({{"HF_TOKEN_PATH", "$D/t"}, {"D", dir.path()}, {"HF_HOME", "/none"}}));
  dir.write("t", "mine");
  ASSERT_TRUE(IsOk(token));
  EXPECT_TRUE(token->empty());  // read when asked, and then it was not there
  EXPECT_EQ(hub_token(lookup({{"HF_TOKEN_PATH", dir / "t"}}))->reveal(), "mine");
}

TEST(HubToken, UnreadableFileIsAnErrorThatDoesNotSayWhatIsInIt) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "token");  // a directory stops root as well
  EXPECT_TRUE(FailsWith(hub_token(lookup({{"HF_HOME", dir.path()}})), ErrorCode::kPermission,
                        "while reading the token"));
}

struct Truth {
  const char* name;
  Table variables;
  bool offline;
};
const Truth kTruths[] = {
    {"not_set", {}, false},
    {"one", {{"HF_HUB_OFFLINE", "1"}}, true},
    {"on", {{"HF_HUB_OFFLINE", "on"}}, true},
    {"yes", {{"HF_HUB_OFFLINE", "Yes"}}, true},
    {"true_word", {{"HF_HUB_OFFLINE", "TRUE"}}, true},
    {"y_is_no_truth", {{"HF_HUB_OFFLINE", "y"}}, false},
    {"blanks_are_not_stripped", {{"HF_HUB_OFFLINE", " 1"}}, false},
    {"zero_wins_over_transformers",
     {{"HF_HUB_OFFLINE", "0"}, {"TRANSFORMERS_OFFLINE", "1"}},
     false},
    {"empty_falls_to_transformers", {{"HF_HUB_OFFLINE", ""}, {"TRANSFORMERS_OFFLINE", "1"}}, true},
    {"transformers_alone", {{"TRANSFORMERS_OFFLINE", "1"}}, true},
};
class HubOffline : public ::testing::TestWithParam<Truth> {};
TEST_P(HubOffline, IsPythonsTruth) {
  EXPECT_EQ(hub_offline(lookup(GetParam().variables)), GetParam().offline);
}
INSTANTIATE_TEST_SUITE_P(Rows, HubOffline, ::testing::ValuesIn(kTruths), row_name<Truth>);

const Place kTrust[] = {
    {"ssl_cert_file_wins",
     {{"SSL_CERT_FILE", "/1"}, {"CURL_CA_BUNDLE", "/2"}, {"REQUESTS_CA_BUNDLE", "/3"}},
     "/1"},
    {"then_curls", {{"CURL_CA_BUNDLE", "/2"}, {"REQUESTS_CA_BUNDLE", "/3"}}, "/2"},
    {"then_requests", {{"REQUESTS_CA_BUNDLE", "/3"}}, "/3"},
    {"empty_counts_as_not_set", {{"SSL_CERT_FILE", ""}, {"CURL_CA_BUNDLE", "/2"}}, "/2"},
};
class TrustStoreFile : public ::testing::TestWithParam<Place> {};
TEST_P(TrustStoreFile, IsTheFirstThatIsTold) {
  EXPECT_EQ(trust_store(lookup(GetParam().variables)).file, GetParam().expected);
}
INSTANTIATE_TEST_SUITE_P(Rows, TrustStoreFile, ::testing::ValuesIn(kTrust), row_name<Place>);

TEST(TrustStore, TakesADirectoryWhereAFileWasExpected) {
  const TempDir dir;
  const TrustStore store = trust_store(lookup({{"REQUESTS_CA_BUNDLE", dir.path()}}));
  EXPECT_EQ(store.directory, dir.path());
  EXPECT_EQ(store.file, "");
}

TEST(TrustStore, KnowsADirectoryOfCertificates) {
  EXPECT_EQ(trust_store(lookup({{"SSL_CERT_DIR", "/d"}})).directory, "/d");
}

TEST(JobId, IsTheBatchSystems) {
  EXPECT_EQ(job_id(lookup({{"SLURM_JOB_ID", "881"}, {"PBS_JOBID", "1.head"}})), "881");
  EXPECT_EQ(job_id(lookup({{"SLURM_JOB_ID", ""}, {"PBS_JOBID", "1.head"}})), "1.head");
  EXPECT_EQ(job_id(lookup({})), "");
}

TEST(Variables, AreDocumentedOnceEach) {
  std::set<std::string_view> names;
  for (const Variable& variable : variables()) names.insert(variable.name);
  EXPECT_EQ(names.size(), variables().size());
  EXPECT_TRUE(std::none_of(variables().begin(), variables().end(),
                           [](const Variable& v) { return v.meaning.empty(); }));
}

TEST(Variables, EveryOneThatIsReadIsDocumented) {
  std::set<std::string, std::less<>> read;
  const EnvironmentLookup recording = [&read](std::string_view name) {
    read.emplace(name);
    return std::optional<std::string>();
  };
  (void)eval_cache(recording, "");
  (void)torch_home(recording);
  (void)hub_cache(recording, "");
  (void)hub_endpoint(recording);
  (void)hub_token(recording);
  (void)hub_offline(recording);
  (void)trust_store(recording);
  (void)job_id(recording);
  std::string documented;
  for (const Variable& variable : variables()) {
    documented.append(variable.name).append(" ").append(variable.meaning).append(" ");
  }
  for (const std::string& name : read) EXPECT_NE(documented.find(name), std::string::npos) << name;
}

TEST(OrProcess, PrefersTheGivenLookup) {
  EXPECT_EQ(or_process(lookup({{"PATH", "mine"}}))("PATH"), "mine");
}

TEST(OrProcess, ReadsTheProcessEnvironment) {
  ASSERT_EQ(::setenv("FVPREFETCH_TEST_VARIABLE", "set", 1), 0);
  EXPECT_EQ(or_process({})("FVPREFETCH_TEST_VARIABLE"), "set");
  EXPECT_EQ(or_process({})("FVPREFETCH_TEST_NOT_SET"), std::nullopt);
}

}  // namespace
}  // namespace fvprefetch::environment
