#include "cli/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/ascii.h"
#include "base/environment.h"
#include "base/try.h"

namespace fvprefetch::cli {
namespace {

struct Verb {
  Command command;
  std::string_view name;
  std::string_view argument;  // "" when it takes none
  bool argument_required;
  std::string_view help;
};

constexpr std::array kVerbs{
    Verb{Command::kFetch, "fetch", "MANIFEST", true, "fetch what is missing, print the paths"},
    Verb{Command::kEnsure, "ensure", "SOURCE", true, "one checkpoint, without a manifest"},
    Verb{Command::kPlan, "plan", "MANIFEST", true, "say what would be fetched; writes nothing"},
    Verb{Command::kStatus, "status", "MANIFEST", true, "say what is there; sends no request"},
    Verb{Command::kVerify, "verify", "MANIFEST", true, "hash what is there; --repair fetches anew"},
    Verb{Command::kLock, "lock", "MANIFEST", true, "pin commits and digests; see --frozen"},
    Verb{Command::kPrune, "prune", "[MANIFEST]", false, "remove what killed runs left a day ago"},
    Verb{Command::kEnv, "env", "[MANIFEST]", false, "shell exports for the job that follows"},
    Verb{Command::kExec, "exec", "MANIFEST", true,
         "run CMD, given after --, with the exports of env"},
    Verb{Command::kDoctor, "doctor", "", false,
         "say what a job will meet here, under srun on each node"},
    Verb{Command::kSchema, "schema", "", false, "print the JSON Schema of a manifest"},
};

const Verb* find_verb(std::string_view name) {
  const auto* it = std::find_if(kVerbs.begin(), kVerbs.end(),
                                [&](const Verb& verb) { return verb.name == name; });
  return it == kVerbs.end() ? nullptr : it;
}

std::string_view verb_name(Command command) {
  const auto* it = std::find_if(kVerbs.begin(), kVerbs.end(),
                                [&](const Verb& verb) { return verb.command == command; });
  return it == kVerbs.end() ? "fvprefetch" : it->name;
}

// What the options set, before those that exclude each other have been weighed.
struct Draft {
  Invocation call;
  EnvironmentLookup env;  // of "~"
  bool require_mpi = false;
  bool help = false;
  bool version = false;
};

// `value` is refused: the message continues "--retries: ", the hint says what would be right.
struct Refusal {
  std::string message;
  std::string hint;
};
using Applied = std::optional<Refusal>;

Applied choose(std::string_view value, std::span<const std::string_view> choices,
               std::size_t& chosen) {
  const auto it = std::find(choices.begin(), choices.end(), value);
  if (it != choices.end()) {
    chosen = static_cast<std::size_t>(it - choices.begin());
    return std::nullopt;
  }
  std::string list;
  for (const std::string_view choice : choices) {
    list += (list.empty() ? "" : ", ") + std::string(choice);
  }
  const auto near = nearest(value, choices);
  return Refusal{fmt::format("`{}` is none of {}", value, list),
                 near ? fmt::format("did you mean `{}`?", *near) : "give one of " + list};
}

template <typename Enum, std::size_t N>
Applied choose(std::string_view value, const std::array<std::string_view, N>& choices,
               const std::array<Enum, N>& values, Enum& target) {
  std::size_t chosen = 0;
  if (auto refusal = choose(value, choices, chosen)) return refusal;
  target = values[chosen];
  return std::nullopt;
}

enum class Zero { kAllowed, kRefused };

Applied duration(std::string_view value, Zero zero, std::chrono::milliseconds& target) {
  const auto parsed = parse_duration(value);
  if (!parsed) {
    return Refusal{fmt::format("`{}` is not a duration", value),
                   "write 500ms, 90s, 10m or 2h; a plain number is seconds"};
  }
  if (zero == Zero::kRefused && parsed->count() == 0) {
    return Refusal{fmt::format("`{}` is no time at all", value), "give more than zero"};
  }
  target = *parsed;
  return std::nullopt;
}

Applied duration(std::string_view value, Zero zero,
                 std::optional<std::chrono::milliseconds>& target) {
  std::chrono::milliseconds parsed{};
  if (auto refusal = duration(value, zero, parsed)) return refusal;
  target = parsed;
  return std::nullopt;
}

Applied number(std::string_view value, int least, int most, int& target) {
  int parsed = 0;
  const char* const end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, parsed);
  if (error != std::errc() || stop != end || parsed < least || parsed > most) {
    return Refusal{fmt::format("`{}` is not a number from {} to {}", value, least, most),
                   fmt::format("give a whole number from {} to {}", least, most)};
  }
  target = parsed;
  return std::nullopt;
}

// "300K", "20M", "1.5G" with the units of curl's option of that name, or bytes.
Applied rate(std::string_view value, std::optional<std::uint64_t>& target) {
  constexpr std::string_view kUnits = "KMGT";
  std::string_view digits = value;
  double unit = 1;
  if (!digits.empty()) {
    const char last = digits.back();
    const std::size_t power =
        kUnits.find(last >= 'a' && last <= 'z' ? static_cast<char>(last - 32) : last);
    if (power != std::string_view::npos) {
      for (std::size_t i = 0; i <= power; ++i) unit *= 1024;
      digits.remove_suffix(1);
    }
  }
  double parsed = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, parsed, std::chars_format::fixed);
  constexpr double kMost = 1e15;
  if (error != std::errc() || stop != end || !(parsed * unit >= 1) || parsed * unit > kMost) {
    return Refusal{fmt::format("`{}` is not a rate", value),
                   "write 300K, 20M or 1.5G bytes per second (K is 1024)"};
  }
  target = static_cast<std::uint64_t>(parsed * unit);
  return std::nullopt;
}

Applied flag(std::string_view value, bool& target) {
  const std::string word = lower(std::string(value));
  if (word == "1" || word == "true" || word == "yes" || word == "on") {
    target = true;
  } else if (word == "0" || word == "false" || word == "no" || word == "off") {
    target = false;
  } else {
    return Refusal{fmt::format("`{}` is neither yes nor no", value), "give 1 or 0"};
  }
  return std::nullopt;
}

Applied text(std::string_view value, std::string& target) {
  target = value;
  return std::nullopt;
}

// A shell leaves the "~" of --cache-dir=~/x alone.
Applied path(std::string_view value, const Draft& draft, std::string& target) {
  target = environment::expand_user(draft.env, std::string(value));
  if (!target.starts_with('~')) return std::nullopt;
  return Refusal{fmt::format("`{}` names no user of this host", value.substr(0, value.find('/'))),
                 "write the whole path; a folder of that name is ./~..."};
}

// One that has to be absolute; `example` follows "give".
Applied absolute_path(std::string_view value, const Draft& draft, std::string_view example,
                      std::string& target) {
  std::string expanded;
  if (auto refusal = path(value, draft, expanded)) return refusal;
  if (!expanded.starts_with('/')) {
    return Refusal{fmt::format("`{}` is not an absolute path", value), std::string(example)};
  }
  target = std::move(expanded);
  return std::nullopt;
}

Applied lock_mode(std::string_view value, LockMode& target) {
  constexpr std::array<std::string_view, 4> kNames{"auto", "flock", "lease", "none"};
  return choose(value, kNames,
                std::array{LockMode::kAuto, LockMode::kFlock, LockMode::kLease, LockMode::kNone},
                target);
}

// A colon between them, as in PATH: how the variable has several.
Applied directories(std::string_view value, const Draft& draft, std::vector<std::string>& target) {
  target.clear();
  while (!value.empty()) {
    const std::size_t end = std::min(value.find(':'), value.size());
    const std::string_view directory = value.substr(0, end);
    value.remove_prefix(std::min(end + 1, value.size()));
    if (directory.empty()) continue;
    std::string found;
    if (auto refusal = absolute_path(
            directory, draft,
            "several are given by repeating the option, or with a colon between them", found)) {
      return refusal;
    }
    target.push_back(std::move(found));
  }
  return std::nullopt;
}

Applied scope_wish(std::string_view value, Scope& target) {
  constexpr std::array<std::string_view, 3> kNames{"auto", "shared", "node"};
  return choose(value, kNames, std::array{Scope::kAuto, Scope::kShared, Scope::kNode}, target);
}

Applied hit_check(std::string_view value, HitCheck& target) {
  constexpr std::array<std::string_view, 2> kNames{"one", "all"};
  return choose(value, kNames, std::array{HitCheck::kOneFile, HitCheck::kAll}, target);
}

Applied mpi_wish(std::string_view value, MpiWish& target) {
  constexpr std::array<std::string_view, 3> kNames{"auto", "on", "off"};
  return choose(value, kNames, std::array{MpiWish::kAuto, MpiWish::kOn, MpiWish::kOff}, target);
}

Applied print_mode(std::string_view value, PrintMode& target) {
  constexpr std::array<std::string_view, 4> kNames{"auto", "rank0", "all", "none"};
  return choose(value, kNames,
                std::array{PrintMode::kAuto, PrintMode::kRank0, PrintMode::kAll, PrintMode::kNone},
                target);
}

Applied progress_wish(std::string_view value, ProgressWish& target) {
  constexpr std::array<std::string_view, 4> kNames{"auto", "bar", "log", "none"};
  return choose(
      value, kNames,
      std::array{ProgressWish::kAuto, ProgressWish::kBar, ProgressWish::kLog, ProgressWish::kNone},
      target);
}

enum class Group { kWhere, kHow, kSay, kEnsure, kVerify, kLock, kPrune, kHelp };

struct OptionSpec {
  std::string_view name;   // without dashes
  std::string_view value;  // placeholder; "" for a flag
  Group group;
  std::string_view help;
  Applied (*apply)(std::string_view, Draft&);
};

constexpr std::array kOptions{
    OptionSpec{"cache-dir", "DIR", Group::kWhere, "cache for URL checkpoints",
               [](std::string_view v, Draft& d) { return path(v, d, d.call.options.cache_dir); }},
    OptionSpec{
        "hf-cache-dir", "DIR", Group::kWhere, "Hugging Face cache",
        [](std::string_view v, Draft& d) { return path(v, d, d.call.options.hf_cache_dir); }},
    OptionSpec{"extra-cache", "DIR", Group::kWhere, "use what is complete there; may be repeated",
               [](std::string_view v, Draft& d) {
                 return directories(v, d, d.call.options.extra_caches);
               }},
    OptionSpec{"stage", "DIR", Group::kWhere,
               "each node's copy: fetch makes it, env and exec use it",
               [](std::string_view v, Draft& d) {
                 return absolute_path(
                     v, d, "give a folder that is each node's own, like /local/$SLURM_JOB_ID",
                     d.call.options.stage);
               }},
    OptionSpec{"offline", "", Group::kHow, "open no connection; list what is missing",
               [](std::string_view v, Draft& d) { return flag(v, d.call.options.offline); }},
    OptionSpec{"refresh", "", Group::kHow, "ask again what a branch points to",
               [](std::string_view v, Draft& d) { return flag(v, d.call.options.refresh); }},
    OptionSpec{"verify-foreign", "", Group::kHow, "hash once what others put into the caches",
               [](std::string_view v, Draft& d) { return flag(v, d.call.options.verify_foreign); }},
    OptionSpec{"frozen", "", Group::kHow, "take only what a manifest pins; see `lock`",
               [](std::string_view v, Draft& d) { return flag(v, d.call.options.frozen); }},
    OptionSpec{"no-space-check", "", Group::kHow, "begin though what is missing may not fit",
               [](std::string_view v, Draft& d) {
                 bool unchecked = !d.call.options.space_check;
                 Applied applied = flag(v, unchecked);
                 d.call.options.space_check = !unchecked;
                 return applied;
               }},
    OptionSpec{"keep-going", "", Group::kHow, "finish the rest after an entry failed",
               [](std::string_view v, Draft& d) { return flag(v, d.call.options.keep_going); }},
    OptionSpec{"lock", "KIND", Group::kHow, "auto (flock+lease), flock, lease, none",
               [](std::string_view v, Draft& d) { return lock_mode(v, d.call.options.lock); }},
    OptionSpec{"lock-timeout", "TIME", Group::kHow, "longest wait for another program's lock",
               [](std::string_view v, Draft& d) {
                 return duration(v, Zero::kAllowed, d.call.options.lock_timeout);
               }},
    OptionSpec{"lease-timeout", "TIME", Group::kHow, "a holder silent for so long is dead (60s)",
               [](std::string_view v, Draft& d) {
                 std::optional<std::chrono::milliseconds> time;
                 Applied applied = duration(v, Zero::kRefused, time);
                 if (!applied && time && *time < std::chrono::seconds(1)) {
                   return Applied(Refusal{fmt::format("`{}` is less than a second", v),
                                          "give 1s or more; a slow server needs more than that"});
                 }
                 if (time) d.call.options.lease_timeout = *time;
                 return applied;
               }},
    OptionSpec{"deadline", "TIME", Group::kHow, "longest time for the whole run",
               [](std::string_view v, Draft& d) {
                 return duration(v, Zero::kRefused, d.call.options.deadline);
               }},
    OptionSpec{"stall-timeout", "TIME", Group::kHow, "start a silent transfer again (60s)",
               [](std::string_view v, Draft& d) {
                 return duration(v, Zero::kRefused, d.call.options.stall_timeout);
               }},
    OptionSpec{
        "retries", "N", Group::kHow, "further attempts per file (5)",
        [](std::string_view v, Draft& d) { return number(v, 0, 1000, d.call.options.retries); }},
    OptionSpec{
        "max-active", "N", Group::kHow, "files transferred at once (8)",
        [](std::string_view v, Draft& d) { return number(v, 1, 256, d.call.options.max_active); }},
    OptionSpec{
        "connections", "N", Group::kHow, "connections per file, as far as they pay (8)",
        [](std::string_view v, Draft& d) { return number(v, 1, 64, d.call.options.connections); }},
    OptionSpec{"limit-rate", "RATE", Group::kHow, "bytes per second over all connections",
               [](std::string_view v, Draft& d) { return rate(v, d.call.options.limit_rate); }},
    OptionSpec{"mpi", "WISH", Group::kHow, "auto (not below a script), on or off",
               [](std::string_view v, Draft& d) { return mpi_wish(v, d.call.mpi); }},
    OptionSpec{"require-mpi", "", Group::kHow, "the same as --mpi on",
               [](std::string_view v, Draft& d) { return flag(v, d.require_mpi); }},
    OptionSpec{"visible-timeout", "TIME", Group::kHow, "wait for files to show on all nodes (60s)",
               [](std::string_view v, Draft& d) {
                 return duration(v, Zero::kAllowed, d.call.options.visible_timeout);
               }},
    OptionSpec{
        "visible-check", "WHAT", Group::kHow, "of a hit on each node: one (file) or all",
        [](std::string_view v, Draft& d) { return hit_check(v, d.call.options.visible_check); }},
    OptionSpec{"rank-timeout", "TIME", Group::kHow,
               "fail if a rank sends no heartbeat for TIME (120s)",
               [](std::string_view v, Draft& d) {
                 return duration(v, Zero::kRefused, d.call.options.rank_timeout);
               }},
    OptionSpec{"scope", "KIND", Group::kHow, "whose the caches are: auto, shared, node",
               [](std::string_view v, Draft& d) { return scope_wish(v, d.call.options.scope); }},
    OptionSpec{"stage-required", "", Group::kHow, "a node that cannot stage fails the job",
               [](std::string_view v, Draft& d) { return flag(v, d.call.options.stage_required); }},
    OptionSpec{"min-nodes", "N", Group::kHow, "so do fewer than N nodes that can",
               [](std::string_view v, Draft& d) {
                 return number(v, 0, 1 << 20, d.call.options.min_nodes);
               }},
    OptionSpec{"progress", "KIND", Group::kSay, "auto, bar, log or none",
               [](std::string_view v, Draft& d) { return progress_wish(v, d.call.progress); }},
    OptionSpec{"print", "WHO", Group::kSay, "results by: auto (in a script: all), rank0, all, none",
               [](std::string_view v, Draft& d) { return print_mode(v, d.call.print); }},
    OptionSpec{"json", "", Group::kSay, "print one JSON document on stdout",
               [](std::string_view v, Draft& d) { return flag(v, d.call.json); }},
    OptionSpec{"quiet", "", Group::kSay, "only errors on stderr",
               [](std::string_view v, Draft& d) { return flag(v, d.call.quiet); }},
    OptionSpec{"verbose", "", Group::kSay, "a line for every file on stderr",
               [](std::string_view v, Draft& d) { return flag(v, d.call.verbose); }},
    OptionSpec{"name", "NAME", Group::kEnsure, "name of the file (last part of SOURCE)",
               [](std::string_view v, Draft& d) { return text(v, d.call.name); }},
    OptionSpec{"filename", "FILE", Group::kEnsure, "one file of the repository",
               [](std::string_view v, Draft& d) { return text(v, d.call.filename); }},
    OptionSpec{"revision", "REV", Group::kEnsure, "branch, tag or commit (main)",
               [](std::string_view v, Draft& d) { return text(v, d.call.revision); }},
    OptionSpec{"repair", "", Group::kVerify, "fetch what is corrupt or missing, nothing else",
               [](std::string_view v, Draft& d) { return flag(v, d.call.options.repair); }},
    OptionSpec{"output", "FILE", Group::kLock, "where to write (MANIFEST.lock.json); - is stdout",
               [](std::string_view v, Draft& d) { return path(v, d, d.call.output); }},
    OptionSpec{"dry-run", "", Group::kPrune, "list what would be removed; remove nothing",
               [](std::string_view v, Draft& d) { return flag(v, d.call.options.dry_run); }},
    OptionSpec{"help", "", Group::kHelp, "this text; also after a command",
               [](std::string_view v, Draft& d) { return flag(v, d.help); }},
    OptionSpec{"version", "", Group::kHelp, "print the version",
               [](std::string_view v, Draft& d) { return flag(v, d.version); }},
};

// The command that alone has the options of `group`; nullopt: every command has them.
std::optional<Command> owner_of(Group group) {
  if (group == Group::kEnsure) return Command::kEnsure;
  if (group == Group::kVerify) return Command::kVerify;
  if (group == Group::kLock) return Command::kLock;
  if (group == Group::kPrune) return Command::kPrune;
  return std::nullopt;
}

// What `ensure` and `lock` take belongs to one run, and help is no setting: none has a variable.
bool has_variable(const OptionSpec& option) {
  return option.group != Group::kEnsure && option.group != Group::kLock &&
         option.group != Group::kHelp;
}

bool belongs_to(const OptionSpec& option, Command command) {
  return owner_of(option.group).value_or(command) == command;
}

std::string dashed(const OptionSpec& option) {
  return "--" + std::string(option.name);
}

std::string variable(const OptionSpec& option) {
  std::string name = "FVPREFETCH_";
  for (const char c : option.name) {
    name += c == '-' ? '_' : static_cast<char>(c - 'a' + 'A');
  }
  return name;
}

const OptionSpec* find_option(std::string_view name) {
  const auto* it = std::find_if(kOptions.begin(), kOptions.end(),
                                [&](const OptionSpec& option) { return option.name == name; });
  return it == kOptions.end() ? nullptr : it;
}

bool is_option(std::string_view argument) {
  return argument.size() > 1 && argument[0] == '-';
}

// What stands behind `--`, taken out of `arguments`.
std::vector<std::string> take_program(std::vector<std::string>& arguments) {
  const auto dashes = std::find(arguments.begin(), arguments.end(), "--");
  if (dashes == arguments.end()) return {};
  std::vector<std::string> program(dashes + 1, arguments.end());
  arguments.erase(dashes, arguments.end());
  return program;
}

// Index of the first word that is neither an option nor an option's value; the size when none is,
// and when the first one stands behind `--`: there every word is an argument.
std::size_t first_word(const std::vector<std::string>& arguments) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (!is_option(argument)) return i;
    if (argument == "--") break;
    if (argument.find('=') != std::string_view::npos || !argument.starts_with("--")) continue;
    const OptionSpec* option = find_option(argument.substr(2));
    if (option != nullptr && !option->value.empty()) ++i;
  }
  return arguments.size();
}

tl::unexpected<Error> usage(std::string message, std::string hint) {
  return fail(ErrorCode::kUsage, std::move(message), std::move(hint));
}

tl::unexpected<Error> unknown_option(const std::string& argument, Command command) {
  const std::string word = argument.substr(0, argument.find('='));
  const std::size_t dashes = word.find_first_not_of('-');
  const std::string_view bare =
      std::string_view(word).substr(dashes == std::string::npos ? word.size() : dashes);
  if (const OptionSpec* option = find_option(bare); option != nullptr) {
    if (!belongs_to(*option, command)) {
      return usage(fmt::format("`{}` has no option {}", verb_name(command), dashed(*option)),
                   fmt::format("it belongs to `fvprefetch {}`",
                               verb_name(owner_of(option->group).value_or(command))));
    }
    return usage("unknown option " + word, fmt::format("did you mean {}?", dashed(*option)));
  }
  std::vector<std::string_view> names;
  for (const OptionSpec& option : kOptions) {
    if (belongs_to(option, command)) names.push_back(option.name);
  }
  const auto near = nearest(bare, names);
  return usage("unknown option " + word, near ? fmt::format("did you mean --{}?", *near)
                                              : "`fvprefetch --help` lists the options");
}

// An error of CLI11 in our words.
tl::unexpected<Error> translate(const CLI::ParseError& error) {
  // CLI11 says "--deadline requires 1", "--quiet: ..." and so on: the option's name comes first.
  const std::string what = error.what();
  const std::size_t end = what.find_first_of(" :");
  const std::string word = what.substr(0, end);
  if (word.starts_with("--")) {
    if (const OptionSpec* option = find_option(std::string_view(word).substr(2))) {
      return option->value.empty()
                 ? usage(word + " takes no such value", fmt::format("give {} alone", word))
                 : usage(word + " needs a value", fmt::format("{} {}", word, option->value));
    }
  }
  return usage("the command line cannot be understood: " + what,
               "`fvprefetch --help` shows how it is used");
}

// What stood on the command line.
struct Words {
  std::array<std::optional<std::string>, kOptions.size()> values;  // by index in kOptions
  std::optional<std::string> target;
};

// CLI11 splits the words into options, values and arguments; what they mean is ours to say.
Result<Words> split(std::vector<std::string> arguments, const Verb& verb, bool implied) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();

  std::array<std::string, kOptions.size()> texts;
  std::array<CLI::Option*, kOptions.size()> handles{};
  for (std::size_t i = 0; i < kOptions.size(); ++i) {
    const OptionSpec& option = kOptions[i];
    if (!belongs_to(option, verb.command)) continue;
    const std::string names = option.name == "help" ? "-h,--help" : dashed(option);
    handles[i] =
        option.value.empty() ? app.add_flag(names, texts[i]) : app.add_option(names, texts[i]);
    handles[i]->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    if (option.name == "extra-cache") handles[i]->join(':');
  }
  std::string target;
  CLI::Option* target_handle = verb.argument.empty() ? nullptr : app.add_option("target", target);

  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    return translate(error);
  }

  const std::vector<std::string> rest = app.remaining();
  for (const std::string& word : rest) {
    if (is_option(word) && word != "--") return unknown_option(word, verb.command);
  }
  Words words;
  for (std::size_t i = 0; i < kOptions.size(); ++i) {
    if (handles[i] == nullptr || handles[i]->count() == 0) continue;
    if (texts[i].empty()) {
      // What `ensure` passes on means "none" when it is empty, as in the contract it serves.
      if (kOptions[i].group == Group::kEnsure) continue;
      return usage(dashed(kOptions[i]) + ": the value is empty",
                   "leave the option out to get its default");
    }
    words.values[i] = texts[i];
  }
  if (target_handle != nullptr && target_handle->count() > 0) words.target = target;
  if (const auto extra = std::find_if(rest.begin(), rest.end(),
                                      [](const std::string& word) { return word != "--"; });
      extra != rest.end()) {
    // `fvprefetch pln manifest.json`: two words without a command.
    if (implied && words.target) {
      if (auto error = mistyped_command(*words.target)) return fail(*std::move(error));
      if (words.target->find_first_of("./") == std::string::npos) {
        return usage(fmt::format("unknown command `{}`", *words.target),
                     "`fvprefetch --help` lists the commands");
      }
    }
    return usage(fmt::format("unexpected argument `{}`", *extra),
                 fmt::format("`fvprefetch {} --help` shows what it takes", verb.name));
  }
  return words;
}

// Applies one value; the error names `origin`: the option or the variable.
Status apply(const OptionSpec& option, const std::string& value, const std::string& origin,
             Draft& draft) {
  if (auto refusal = option.apply(value, draft)) {
    return usage(origin + ": " + refusal->message, refusal->hint);
  }
  return {};
}

std::size_t index_of(std::string_view name) {
  return static_cast<std::size_t>(find_option(name) - kOptions.data());
}

// Of two options that exclude each other: said in one place they contradict, said in two places the
// command line wins.
Status exclude(const Words& words, std::string_view one, bool& one_set, std::string_view other,
               bool& other_set) {
  if (!one_set || !other_set) return {};
  const bool one_given = words.values[index_of(one)].has_value();
  const bool other_given = words.values[index_of(other)].has_value();
  if (one_given == other_given) {
    return usage(fmt::format("--{} contradicts --{}", one, other), "leave out one of the two");
  }
  (one_given ? other_set : one_set) = false;
  return {};
}

// --require-mpi is --mpi on: the same rule.
Status weigh(const Words& words, Draft& draft) {
  const bool mpi_given = words.values[index_of("mpi")].has_value();
  const bool require_given = words.values[index_of("require-mpi")].has_value();
  if (draft.require_mpi && draft.call.mpi == MpiWish::kOff) {
    if (mpi_given == require_given) {
      return usage("--require-mpi contradicts --mpi off", "leave out one of the two");
    }
    if (mpi_given) draft.require_mpi = false;
  }
  if (draft.require_mpi) draft.call.mpi = MpiWish::kOn;

  Invocation& call = draft.call;
  FVP_CHECK_OK(exclude(words, "quiet", call.quiet, "verbose", call.verbose));
  return exclude(words, "frozen", call.options.frozen, "refresh", call.options.refresh);
}

// The name of a checkpoint that was given none: the last part of its source; of an address, of its
// path. "" when there is none.
std::string default_name(std::string_view source) {
  source = source.substr(0, source.find_first_of("?#"));
  if (const auto scheme = source.find("://"); scheme != std::string_view::npos) {
    const auto path = source.find('/', scheme + 3);
    source = path == std::string_view::npos ? std::string_view() : source.substr(path);
  }
  while (source.ends_with('/')) source.remove_suffix(1);
  return std::string(source.substr(source.rfind('/') + 1));
}

std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string option_lines(Group group) {
  std::string lines;
  for (const OptionSpec& option : kOptions) {
    if (option.group != group) continue;
    const std::string left = (option.name == "help" ? "-h, " : "") + dashed(option) +
                             (option.value.empty() ? "" : " ") + std::string(option.value);
    lines += fmt::format("  {:<24}{}\n", left, option.help);
  }
  return lines;
}

std::string usage_of(const Verb& verb) {
  const bool exec = verb.command == Command::kExec;
  return fmt::format("fvprefetch {}{}{}{} [OPTIONS]{}", verb.name, verb.argument.empty() ? "" : " ",
                     verb.argument,
                     verb.command == Command::kEnsure        ? " [--filename FILE]"
                     : verb.command == Command::kVerify      ? " [--repair]"
                     : verb.command == Command::kPrune       ? " [--dry-run]"
                     : verb.command == Command::kEnv || exec ? " [--stage DIR]"
                                                             : "",
                     exec ? " -- CMD..." : "");
}

constexpr std::string_view kExitCodes =
    "Exit codes, the same on every rank:\n"
    "  0 all there   1 internal       2 usage          3 only optional entries failed\n"
    "  4 access      5 not found      6 network        7 rate limited   8 integrity\n"
    "  9 no space   10 permission    11 lock timeout  12 offline and missing\n"
    " 13 no MPI     14 not visible   128+n signal n\n";

}  // namespace

std::optional<std::chrono::milliseconds> parse_duration(std::string_view text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(value) || value < 0 || text.starts_with('-')) {
    return std::nullopt;
  }
  constexpr std::array<std::pair<std::string_view, double>, 5> kUnits{
      {{"", 1e3}, {"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}}};
  const std::string_view unit(stop, static_cast<std::size_t>(end - stop));
  const auto* it = std::find_if(kUnits.begin(), kUnits.end(),
                                [&](const auto& known) { return known.first == unit; });
  constexpr double kYear = 366 * 24 * 3600e3;  // more is a mistake, and would overflow a deadline
  if (it == kUnits.end() || value * it->second > kYear) return std::nullopt;
  return std::chrono::milliseconds(std::llround(value * it->second));
}

std::optional<std::string_view> nearest(std::string_view word,
                                        std::span<const std::string_view> candidates) {
  std::optional<std::string_view> best;
  std::size_t best_distance = 0;
  for (const std::string_view candidate : candidates) {
    const std::size_t d = distance(word, candidate);
    if (best && d >= best_distance) continue;
    // A third of the letters, or two where that is still most of the word's letters unchanged.
    if (d > std::max<std::size_t>(candidate.size() / 3, candidate.size() >= 4 ? 2 : 1)) continue;
    best = candidate;
    best_distance = d;
  }
  return best;
}

std::optional<Error> mistyped_command(std::string_view word) {
  if (word.find_first_of("./") != std::string_view::npos) return std::nullopt;
  std::array<std::string_view, kVerbs.size()> names;
  std::transform(kVerbs.begin(), kVerbs.end(), names.begin(),
                 [](const Verb& verb) { return verb.name; });
  const auto near = nearest(word, names);
  if (!near || *near == word) return std::nullopt;  // `-- plan` means a manifest of that name
  Error error;
  error.code = ErrorCode::kUsage;
  error.message = fmt::format("unknown command `{}`", word);
  error.hint = fmt::format("did you mean `{}`? A manifest of that name is `./{}`", *near, word);
  return error;
}

Result<Invocation> parse_arguments(const std::vector<std::string>& arguments,
                                   const EnvironmentLookup& env) {
  std::vector<std::string> rest = arguments;
  const std::size_t word = first_word(rest);
  const Verb* verb = word < rest.size() ? find_verb(rest[word]) : nullptr;
  const bool implied = verb == nullptr;
  if (implied) {
    verb = find_verb("fetch");
  } else {
    rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(word));
  }

  Draft draft;
  draft.env = environment::or_process(env);
  if (verb->command == Command::kExec) draft.call.program = take_program(rest);
  FVP_TRY(const Words words, split(std::move(rest), *verb, implied));
  draft.call.command = verb->command;
  draft.call.command_implied = implied;

  for (std::size_t i = 0; i < kOptions.size(); ++i) {
    if (!words.values[i]) continue;
    FVP_CHECK_OK(apply(kOptions[i], *words.values[i], dashed(kOptions[i]), draft));
  }
  // Before the environment is looked at: help must come whatever is set there.
  if (draft.help) {
    draft.call.command = Command::kHelp;
    draft.call.help = implied ? help_text() : help_text(verb->command);
    return std::move(draft.call);
  }
  if (draft.version) {
    draft.call.command = Command::kVersion;
    return std::move(draft.call);
  }

  for (std::size_t i = 0; i < kOptions.size(); ++i) {
    if (words.values[i] || !has_variable(kOptions[i])) continue;
    if (!belongs_to(kOptions[i], verb->command)) continue;
    const std::string name = variable(kOptions[i]);
    const auto value = env ? env(name) : std::nullopt;
    if (!value || value->empty()) continue;  // empty counts as not set
    FVP_CHECK_OK(apply(kOptions[i], *value, name, draft));
  }
  FVP_CHECK_OK(weigh(words, draft));

  draft.call.target = words.target.value_or("");
  if (draft.call.target.empty() && verb->argument_required) {
    return usage(
        verb->command == Command::kEnsure ? "no source was given" : "no manifest was given",
        implied ? "fvprefetch MANIFEST; `fvprefetch --help` shows the rest" : usage_of(*verb));
  }
  if (verb->command == Command::kExec && draft.call.program.empty()) {
    return usage("no command to run was given", usage_of(*verb));
  }
  const bool exports = verb->command == Command::kEnv;
  if (exports && !draft.call.options.stage.empty() && draft.call.target.empty()) {
    return usage("--stage needs a manifest: it tells what has to be there", usage_of(*verb));
  }
  if (verb->command == Command::kLock && draft.call.target == "-" && draft.call.output.empty()) {
    return usage("a manifest from standard input gives its lock file no name",
                 "say where with --output FILE; --output - is standard output");
  }
  if (verb->command == Command::kEnsure && draft.call.name.empty()) {
    draft.call.name = default_name(draft.call.target);
    draft.call.name_is_guessed = true;
    if (draft.call.name.empty()) {
      return usage("the source names no file", "give the file a name with --name");
    }
  }
  return std::move(draft.call);
}

std::string help_text(std::optional<Command> command) {
  std::string out;
  if (command) {
    const Verb& verb = *find_verb(verb_name(*command));
    out += fmt::format("Usage: {}\n\n{}\n", usage_of(verb), verb.help);
    for (const Group group : {Group::kEnsure, Group::kVerify, Group::kLock, Group::kPrune}) {
      if (owner_of(group) != command) continue;
      out += "\nOptions of this command:\n" + option_lines(group);
    }
  } else {
    out +=
        "fvprefetch puts every checkpoint of a manifest where each rank can open it\n\n"
        "Usage: fvprefetch MANIFEST            alone, or under srun or mpirun\n"
        "       fvprefetch COMMAND [OPTIONS]\n\nCommands:\n";
    for (const Verb& each : kVerbs) {
      out += fmt::format("  {:<24}{}\n", std::string(each.name) + " " + std::string(each.argument),
                         each.help);
    }
    out += "  A manifest named like a command is written ./plan; - is standard input\n";
  }
  out += "\nWhere things are kept:\n" + option_lines(Group::kWhere);
  out += "\nHow it works:\n" + option_lines(Group::kHow);
  out += "\nWhat it says:\n" + option_lines(Group::kSay) + option_lines(Group::kHelp);
  out +=
      "\nTIME is 500ms, 90s, 10m or 2h; a plain number is seconds. Each option is also\n"
      "read from the environment: --max-active from FVPREFETCH_MAX_ACTIVE, and so on.\n"
      "The option wins.\n";
  if (!command) out += "\n" + std::string(kExitCodes);
  return out;
}

}  // namespace fvprefetch::cli
