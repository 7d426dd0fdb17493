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

TEST(Options, WhatEnsureIsGivenEmptyCountsAsNotGiven) {
  const auto call = parse({"ensure", "org/repo", "--filename", "", "--name", ""});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->filename, "");
  EXPECT_EQ(call->name, "repo");
}

TEST(Options, ATildeThatTheShellLeftIsExpandedInEachPath) {
  const Environment home{{"HOME", "/h"}, {"FVPREFETCH_HF_CACHE_DIR", "~/hub"}};
  const auto call = parse({"m.json", "--cache-dir=~/x", "--stage=~", "--extra-cache=~/a:/b"}, home);
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->options.cache_dir, "/h/x");
  EXPECT_EQ(call->options.hf_cache_dir, "/h/hub");
  EXPECT_EQ(call->options.stage, "/h");
  EXPECT_EQ(call->options.extra_caches, (std::vector<std::string>{"/h/a", "/b"}));
  EXPECT_EQ(parse({"lock", "m.json", "--output=~/l.json"}, home)->output, "/h/l.json");
  EXPECT_TRUE(FailsWith(parse({"m.json", "--cache-dir=~no-such-user-here/x"}), ErrorCode::kUsage,
                        "`~no-such-user-here` names no user"));
}

TEST(Options, EnsureKnowsWhetherANameWasChosen) {
  EXPECT_TRUE(parse({"ensure", "https://h/w"})->name_is_guessed);
  EXPECT_FALSE(parse({"ensure", "https://h/w", "--name", "w"})->name_is_guessed);
}

TEST(Options, LockSaysWhereItWrites) {
  EXPECT_EQ(parse({"lock", "m.json"})->command, Command::kLock);
  EXPECT_EQ(parse({"lock", "-", "--output", "l.json"})->output, "l.json");
  EXPECT_EQ(parse({"lock", "m.json", "--output", "-"})->output, "-");
  EXPECT_TRUE(FailsWith(parse({"lock", "-"}), ErrorCode::kUsage, "standard input"));
  const auto elsewhere = parse({"plan", "m.json", "--output", "x"});
  ASSERT_TRUE(FailsWith(elsewhere, ErrorCode::kUsage, "no option --output"));
  EXPECT_EQ(elsewhere.error().hint, "it belongs to `fvprefetch lock`");
}

TEST(Options, FrozenContradictsRefresh) {
  EXPECT_TRUE(FailsWith(parse({"m.json", "--frozen", "--refresh"}), ErrorCode::kUsage,
                        "--frozen contradicts --refresh"));
  EXPECT_TRUE(
      FailsWith(parse({"m.json"}, {{"FVPREFETCH_FROZEN", "1"}, {"FVPREFETCH_REFRESH", "1"}}),
                ErrorCode::kUsage, "contradicts"));
  const auto call = parse({"m.json", "--frozen"}, {{"FVPREFETCH_REFRESH", "1"}});
  ASSERT_TRUE(IsOk(call));
  EXPECT_TRUE(call->options.frozen);
  EXPECT_FALSE(call->options.refresh);
}

TEST(Options, AnAddressWithoutAFileNameWantsOne) {
  EXPECT_TRUE(FailsWith(parse({"ensure", "https://host/"}), ErrorCode::kUsage, "names no file"));
  EXPECT_TRUE(FailsWith(parse({"ensure", "https://host"}), ErrorCode::kUsage, "names no file"));
  EXPECT_EQ(parse({"ensure", "https://host/", "--name", "x"})->name, "x");
  EXPECT_EQ(parse({"ensure", "https://host/a/b.pth?sig=1"})->name, "b.pth");
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
    {"frozen",
     {"--frozen"},
     {{"FVPREFETCH_FROZEN", "1"}},
     [](const Invocation& i) { return i.options.frozen; }},
    {"no_space_check",
     {"--no-space-check"},
     {{"FVPREFETCH_NO_SPACE_CHECK", "1"}},
     [](const Invocation& i) { return !i.options.space_check; }},
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
    {"connections",
     {"--connections", "3"},
     {{"FVPREFETCH_CONNECTIONS", "3"}},
     [](const Invocation& i) { return i.options.connections == 3; }},
    {"limit_rate",
     {"--limit-rate", "1.5M"},
     {{"FVPREFETCH_LIMIT_RATE", "1.5M"}},
     [](const Invocation& i) { return i.options.limit_rate == 1'572'864U; }},
    {"limit_rate_in_bytes",
     {"--limit-rate", "300000"},
     {{"FVPREFETCH_LIMIT_RATE", "300000"}},
     [](const Invocation& i) { return i.options.limit_rate == 300'000U; }},
    {"visible_timeout",
     {"--visible-timeout", "3s"},
     {{"FVPREFETCH_VISIBLE_TIMEOUT", "3s"}},
     [](const Invocation& i) { return i.options.visible_timeout == milliseconds(3'000); }},
    {"visible_check",
     {"--visible-check", "all"},
     {{"FVPREFETCH_VISIBLE_CHECK", "all"}},
     [](const Invocation& i) { return i.options.visible_check == HitCheck::kAll; }},
    {"print",
     {"--print", "all"},
     {{"FVPREFETCH_PRINT", "all"}},
     [](const Invocation& i) { return i.print == PrintMode::kAll; }},
    {"extra_cache",
     {"--extra-cache", "/a", "--extra-cache=/b"},
     {{"FVPREFETCH_EXTRA_CACHE", "/a::/b"}},
     [](const Invocation& i) {
       return i.options.extra_caches == std::vector<std::string>{"/a", "/b"};
     }},
    {"rank_timeout",
     {"--rank-timeout", "30s"},
     {{"FVPREFETCH_RANK_TIMEOUT", "30s"}},
     [](const Invocation& i) { return i.options.rank_timeout == milliseconds(30'000); }},
    {"scope",
     {"--scope", "node"},
     {{"FVPREFETCH_SCOPE", "node"}},
     [](const Invocation& i) { return i.options.scope == Scope::kNode; }},
    {"stage",
     {"--stage", "/local/x"},
     {{"FVPREFETCH_STAGE", "/local/x"}},
     [](const Invocation& i) { return i.options.stage == "/local/x"; }},
    {"stage_required",
     {"--stage-required"},
     {{"FVPREFETCH_STAGE_REQUIRED", "1"}},
     [](const Invocation& i) { return i.options.stage_required; }},
    {"min_nodes",
     {"--min-nodes", "3"},
     {{"FVPREFETCH_MIN_NODES", "3"}},
     [](const Invocation& i) { return i.options.min_nodes == 3; }},
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

TEST(Options, WhatExcludesEachOtherIsDecidedByTheCommandLine) {
  const auto off = parse({"m.json", "--mpi", "off"}, {{"FVPREFETCH_REQUIRE_MPI", "1"}});
  ASSERT_TRUE(IsOk(off));
  EXPECT_EQ(off->mpi, MpiWish::kOff);
  const auto on = parse({"m.json", "--require-mpi"}, {{"FVPREFETCH_MPI", "off"}});
  ASSERT_TRUE(IsOk(on));
  EXPECT_EQ(on->mpi, MpiWish::kOn);
  const auto quiet = parse({"m.json", "--quiet"}, {{"FVPREFETCH_VERBOSE", "1"}});
  ASSERT_TRUE(IsOk(quiet));
  EXPECT_TRUE(quiet->quiet);
  EXPECT_FALSE(quiet->verbose);
}

TEST(Options, AnEmptyVariableCountsAsNotSet) {
  const auto call = parse({"m.json"}, {{"FVPREFETCH_RETRIES", ""}, {"FVPREFETCH_OFFLINE", ""}});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->options.retries, Options{}.retries);
  EXPECT_FALSE(call->options.offline);
}

TEST(Options, TheLastOfAnOptionGivenTwiceCounts) {
  const auto call = parse({"--retries", "1", "m.json", "--retries", "2"});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->options.retries, 2);
}

TEST(Options, HelpComesWhateverTheEnvironmentHolds) {
  const auto call = parse({"plan", "--help"}, {{"FVPREFETCH_DEADLINE", "soon"}});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->command, Command::kHelp);
  EXPECT_NE(call->help.find("fvprefetch plan MANIFEST"), std::string::npos);
}

TEST(Options, AnOptionsValueIsNotTakenForTheCommand) {
  const auto call = parse({"--cache-dir", "plan", "status", "m.json"});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->command, Command::kStatus);
  EXPECT_EQ(call->options.cache_dir, "plan");
}

struct Named {
  const char* name;
  const char* source;
  const char* expected;
};
class DefaultName : public ::testing::TestWithParam<Named> {};
TEST_P(DefaultName, IsTheLastPartOfTheSource) {
  const auto call = parse({"ensure", GetParam().source});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->name, GetParam().expected);
}
const Named kNamed[] = {{"url", "https://h/a/amt-s.pth", "amt-s.pth"},
                        {"query_left_out", "https://h/a/amt-s.pth?token=x/y", "amt-s.pth"},
                        {"repo", "org/model", "model"},
                        {"directory", "/ckpt/mine/", "mine"}};
INSTANTIATE_TEST_SUITE_P(Rows, DefaultName, ::testing::ValuesIn(kNamed), testing::row_name<Named>);

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
    {"no_connection", {"m.json", "--connections", "0"}, {}, "--connections"},
    {"not_a_rate", {"m.json", "--limit-rate", "fast"}, {}, "fast"},
    {"no_rate", {"m.json", "--limit-rate", "0"}, {}, "--limit-rate"},
    {"negative_rate", {"m.json", "--limit-rate=-3M"}, {}, "-3M"},
    {"a_unit_alone", {"m.json", "--limit-rate", "M"}, {}, "300K"},
    {"more_than_there_is", {"m.json", "--limit-rate", "99999T"}, {}, "99999T"},
    {"not_a_duration", {"m.json", "--deadline", "soon"}, {}, "soon"},
    {"not_a_choice", {"m.json", "--lock", "fcntl"}, {}, "fcntl"},
    {"lease_shorter_than_a_beat", {"m.json", "--lease-timeout", "500ms"}, {}, "less than a second"},
    {"bad_variable_is_named", {"m.json"}, {{"FVPREFETCH_DEADLINE", "soon"}}, "FVPREFETCH_DEADLINE"},
    {"contradiction", {"m.json", "--mpi", "off", "--require-mpi"}, {}, "--mpi off"},
    {"empty_value", {"m.json", "--cache-dir", ""}, {}, "--cache-dir"},
    {"no_time_for_a_stall", {"m.json", "--stall-timeout", "0"}, {}, "--stall-timeout"},
    {"option_of_another_command", {"plan", "m.json", "--filename", "x"}, {}, "ensure"},
    {"command_mistyped", {"pln", "m.json"}, {}, "did you mean `plan`"},
    {"no_source", {"ensure"}, {}, "SOURCE"},
    {"repair_is_of_verify", {"m.json", "--repair"}, {}, "fvprefetch verify"},
    {"unknown_command", {"archive", "m.json"}, {}, "unknown command `archive`"},
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

TEST(Options, RepairIsOfVerifyAloneInTheEnvironmentToo) {
  const Environment repair{{"FVPREFETCH_REPAIR", "1"}};
  EXPECT_TRUE(parse({"verify", "m.json", "--repair"})->options.repair);
  EXPECT_TRUE(parse({"verify", "m.json"}, repair)->options.repair);
  EXPECT_FALSE(parse({"verify", "m.json", "--repair=0"}, repair)->options.repair);
  EXPECT_FALSE(parse({"m.json"}, repair)->options.repair);
  EXPECT_NE(help_text(Command::kVerify).find("--repair"), std::string::npos);
}

TEST(Options, PruneMayHaveAManifestAndADryRun) {
  const auto all = parse({"prune"});
  ASSERT_TRUE(IsOk(all));
  EXPECT_EQ(all->command, Command::kPrune);
  EXPECT_EQ(all->target, "");
  EXPECT_FALSE(all->options.dry_run);
  const auto some = parse({"prune", "m.json", "--dry-run"});
  ASSERT_TRUE(IsOk(some));
  EXPECT_EQ(some->target, "m.json");
  EXPECT_TRUE(some->options.dry_run);
  EXPECT_FALSE(parse({"m.json", "--dry-run"}));
  EXPECT_NE(help_text(Command::kPrune).find("--dry-run"), std::string::npos);
}

TEST(Options, ExecTakesWhatStandsBehindTheDashesAsItIs) {
  const auto call =
      parse({"exec", "m.json", "--stage", "/local", "--", "prog", "--json", "--", "-x"});
  ASSERT_TRUE(IsOk(call));
  EXPECT_EQ(call->command, Command::kExec);
  EXPECT_EQ(call->target, "m.json");
  EXPECT_EQ(call->options.stage, "/local");
  EXPECT_FALSE(call->json);
  EXPECT_EQ(call->program, (std::vector<std::string>{"prog", "--json", "--", "-x"}));
  EXPECT_TRUE(FailsWith(parse({"exec", "m.json"}), ErrorCode::kUsage, "no command to run"));
  EXPECT_TRUE(FailsWith(parse({"exec", "--", "prog"}), ErrorCode::kUsage, "no manifest"));
  EXPECT_TRUE(FailsWith(parse({"exec", "m.json", "prog"}), ErrorCode::kUsage, "`prog`"));
}

TEST(Options, StagedExportsNeedAManifest) {
  EXPECT_EQ(parse({"env", "m.json"}, {{"FVPREFETCH_STAGE", "/local"}})->options.stage, "/local");
  EXPECT_TRUE(FailsWith(parse({"env", "--stage", "/local"}), ErrorCode::kUsage, "manifest"));
  EXPECT_TRUE(IsOk(parse({"prune"}, {{"FVPREFETCH_STAGE", "/local"}})));
  EXPECT_NE(help_text(Command::kExec).find("--stage DIR"), std::string::npos);
}

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
  EXPECT_FALSE(mistyped_command("plan").has_value());  // reached by `fvprefetch -- plan`
}

}  // namespace
}  // namespace fvprefetch::cli
