#include "cli/options.h"

#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "support/matchers.h"

namespace fvprefetch::cli {
namespace {

using std::chrono::milliseconds;
using testing::FailsWith;
using testing::IsOk;

using Environment = std::map<std::string, std::string>;

Result<Invocation> parse(const std::vector<std::string>& arguments,
                         const Environment& environment = {}) {
  return parse_arguments(arguments, [&](std::string_view name) -> std::optional<std::string> {
    const auto it = environment.find(std::string(name));
    return it == environment.end() ? std::nullopt : std::optional(it->second);
  });
}

TEST(Options, AManifestAloneIsFetch) {
  const auto call = parse({"manifest.json"});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->command, Command::kFetch);
  EXPECT_EQ(call->target, "manifest.json");
  EXPECT_FALSE(call->options.lock_timeout.has_value());  // absent is not the same as any value
}

TEST(Options, AManifestThatIsCalledLikeACommandIsReachedByItsPath) {
  EXPECT_EQ(parse({"plan", "m.json"})->command, Command::kPlan);
  EXPECT_EQ(parse({"./plan"})->target, "./plan");
  EXPECT_EQ(parse({"fetch", "plan"})->target, "plan");
}

TEST(Options, EnsureTakesItsOwnOptions) {
  const auto call = parse({"ensure", "org/repo", "--filename", "a.bin", "--revision", "v1"});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->filename, "a.bin");
  EXPECT_EQ(call->revision, "v1");
}

struct SameBothWays {
  const char* name;
  std::vector<std::string> flag;
  Environment variable;
  bool (*holds)(const Invocation&);
};
class FlagAndVariable : public ::testing::TestWithParam<SameBothWays> {};
TEST_P(FlagAndVariable, SetTheSame) {
  std::vector<std::string> arguments{"m.json"};
  EXPECT_FALSE(GetParam().holds(*parse(arguments)));
  arguments.insert(arguments.end(), GetParam().flag.begin(), GetParam().flag.end());
  const auto by_flag = parse(arguments);
  ASSERT_TRUE(IsOk(by_flag));
  EXPECT_TRUE(GetParam().holds(*by_flag));
  const auto by_variable = parse({"m.json"}, GetParam().variable);
  ASSERT_TRUE(IsOk(by_variable));
  EXPECT_TRUE(GetParam().holds(*by_variable));
}
const SameBothWays kSameBothWays[] = {
    {"cache_dir",
     {"--cache-dir", "/c"},
     {{"FVPREFETCH_CACHE_DIR", "/c"}},
     [](const Invocation& i) { return i.options.cache_dir == "/c"; }},
    {"hf_cache_dir",
     {"--hf-cache-dir=/h"},
     {{"FVPREFETCH_HF_CACHE_DIR", "/h"}},
     [](const Invocation& i) { return i.options.hf_cache_dir == "/h"; }},
    {"offline",
     {"--offline"},
     {{"FVPREFETCH_OFFLINE", "1"}},
     [](const Invocation& i) { return i.options.offline; }},
    {"refresh",
     {"--refresh"},
     {{"FVPREFETCH_REFRESH", "1"}},
     [](const Invocation& i) { return i.options.refresh; }},
    {"keep_going",
     {"--keep-going"},
     {{"FVPREFETCH_KEEP_GOING", "1"}},
     [](const Invocation& i) { return i.options.keep_going; }},
    {"lock",
     {"--lock", "none"},
     {{"FVPREFETCH_LOCK", "none"}},
     [](const Invocation& i) { return i.options.lock == LockMode::kNone; }},
    {"lock_timeout",
     {"--lock-timeout", "90s"},
     {{"FVPREFETCH_LOCK_TIMEOUT", "90s"}},
     [](const Invocation& i) { return i.options.lock_timeout == milliseconds(90'000); }},
    {"deadline",
     {"--deadline", "10m"},
     {{"FVPREFETCH_DEADLINE", "10m"}},
     [](const Invocation& i) { return i.options.deadline == milliseconds(600'000); }},
    {"stall_timeout",
     {"--stall-timeout", "5"},
     {{"FVPREFETCH_STALL_TIMEOUT", "5"}},
     [](const Invocation& i) { return i.options.stall_timeout == milliseconds(5'000); }},
    {"retries",
     {"--retries", "0"},
     {{"FVPREFETCH_RETRIES", "0"}},
     [](const Invocation& i) { return i.options.retries == 0; }},
    {"max_active",
     {"--max-active", "2"},
     {{"FVPREFETCH_MAX_ACTIVE", "2"}},
     [](const Invocation& i) { return i.options.max_active == 2; }},
    {"visible_timeout",
     {"--visible-timeout", "3s"},
     {{"FVPREFETCH_VISIBLE_TIMEOUT", "3s"}},
     [](const Invocation& i) { return i.visible_timeout == milliseconds(3'000); }},
    {"mpi_off",
     {"--mpi", "off"},
     {{"FVPREFETCH_MPI", "off"}},
     [](const Invocation& i) { return i.mpi == MpiWish::kOff; }},
    {"require_mpi",
     {"--require-mpi"},
     {{"FVPREFETCH_REQUIRE_MPI", "1"}},
     [](const Invocation& i) { return i.mpi == MpiWish::kOn; }},
    {"progress",
     {"--progress", "bar"},
     {{"FVPREFETCH_PROGRESS", "bar"}},
     [](const Invocation& i) { return i.progress == ProgressWish::kBar; }},
    {"json", {"--json"}, {{"FVPREFETCH_JSON", "1"}}, [](const Invocation& i) { return i.json; }},
    {"quiet",
     {"--quiet"},
     {{"FVPREFETCH_QUIET", "1"}},
     [](const Invocation& i) { return i.quiet; }},
    {"verbose",
     {"--verbose"},
     {{"FVPREFETCH_VERBOSE", "1"}},
     [](const Invocation& i) { return i.verbose; }},
};
INSTANTIATE_TEST_SUITE_P(Rows, FlagAndVariable, ::testing::ValuesIn(kSameBothWays),
                         testing::row_name<SameBothWays>);

TEST(Options, TheFlagWinsOverTheVariable) {
  const auto call = parse({"m.json", "--retries", "7"}, {{"FVPREFETCH_RETRIES", "2"}});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->options.retries, 7);
}

struct Mistake {
  const char* name;
  std::vector<std::string> arguments;
  Environment environment;
  const char* said;
};
class Mistakes : public ::testing::TestWithParam<Mistake> {};
TEST_P(Mistakes, AreUsageErrorsThatNameWhatIsWrong) {
  const auto call = parse(GetParam().arguments, GetParam().environment);
  ASSERT_FALSE(call);
  EXPECT_EQ(call.error().code, ErrorCode::kUsage);
  const std::string text = describe(call.error()) + "\n" + std::string(hint(call.error()));
  EXPECT_NE(text.find(GetParam().said), std::string::npos) << text;
}
const Mistake kMistakes[] = {
    {"nothing", {}, {}, "MANIFEST"},
    {"unknown_option_names_the_nearest", {"m.json", "--ofline"}, {}, "--offline"},
    {"value_missing", {"m.json", "--retries"}, {}, "--retries"},
    {"not_a_number", {"m.json", "--retries", "many"}, {}, "many"},
    {"negative", {"m.json", "--retries=-1"}, {}, "-1"},
    {"no_file_at_once", {"m.json", "--max-active", "0"}, {}, "--max-active"},
    {"not_a_duration", {"m.json", "--deadline", "soon"}, {}, "soon"},
    {"not_a_choice", {"m.json", "--lock", "lease"}, {}, "lease"},
    {"bad_variable_is_named", {"m.json"}, {{"FVPREFETCH_DEADLINE", "soon"}}, "FVPREFETCH_DEADLINE"},
    {"two_manifests", {"a.json", "b.json"}, {}, "b.json"},
};
INSTANTIATE_TEST_SUITE_P(Rows, Mistakes, ::testing::ValuesIn(kMistakes),
                         testing::row_name<Mistake>);

struct Duration {
  const char* name;
  const char* text;
  std::optional<long> milliseconds;
};
class Durations : public ::testing::TestWithParam<Duration> {};
TEST_P(Durations, AreParsed) {
  const auto parsed = parse_duration(GetParam().text);
  ASSERT_EQ(parsed.has_value(), GetParam().milliseconds.has_value());
  EXPECT_EQ(parsed.value_or(milliseconds(0)).count(), GetParam().milliseconds.value_or(0));
}
const Duration kDurations[] = {{"milliseconds", "500ms", 500},
                               {"seconds", "90s", 90'000},
                               {"plain", "90", 90'000},
                               {"minutes", "10m", 600'000},
                               {"hours", "2h", 7'200'000},
                               {"fraction", "0.5s", 500},
                               {"empty", "", std::nullopt},
                               {"unit_alone", "s", std::nullopt},
                               {"unknown_unit", "3d", std::nullopt},
                               {"negative", "-3s", std::nullopt},
                               {"rest", "3sx", std::nullopt}};
INSTANTIATE_TEST_SUITE_P(Rows, Durations, ::testing::ValuesIn(kDurations),
                         testing::row_name<Duration>);

TEST(Options, HelpFitsEightyColumnsAndNamesEveryOption) {
  const std::string help = help_text();
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80U) << line;
  for (const SameBothWays& row : kSameBothWays) {
    const std::string option = row.flag.front().substr(0, row.flag.front().find('='));
    EXPECT_NE(help.find(option), std::string::npos) << option;
  }
}

TEST(Options, AMistypedCommandIsNotTakenForAManifest) {
  const auto error = mistyped_command("statsu");
  ASSERT_TRUE(error.has_value());
  EXPECT_NE((describe(*error) + std::string(hint(*error))).find("status"), std::string::npos);
  EXPECT_FALSE(mistyped_command("manifest.json").has_value());
}

}  // namespace
}  // namespace fvprefetch::cli
