// The command line and FVPREFETCH_* in the environment -> one Invocation.
//
// Every option stands in one table (options.cpp): its name, which is also that of its variable, its
// help, and what it sets. A flag wins over the variable; a bad value is the same usage error in
// both places and names where it came from. Pure but for ~user: reads no file, asks the environment
// by a lookup.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/launcher.h"
#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch::cli {

enum class Command {
  kFetch,
  kEnsure,
  kPlan,
  kStatus,
  kVerify,
  kLock,
  kPrune,
  kEnv,
  kExec,
  kDoctor,
  kSchema,
  kHelp,
  kVersion
};

/// Which processes of a job print results on stdout.
enum class PrintMode {
  kAuto,  ///< rank 0 when the launcher itself has started the command, else each process
  kRank0,
  kAll,
  kNone
};

enum class ProgressWish { kAuto, kBar, kLog, kNone };

struct Invocation {
  Command command = Command::kFetch;
  /// `fvprefetch MANIFEST`: the first word was taken for a manifest since it is no command.
  bool command_implied = false;
  std::string target;  ///< MANIFEST or SOURCE; `env` and `prune` may have none

  // `ensure` only.
  std::string name;
  bool name_is_guessed = false;  ///< no --name: the last part of `target`
  std::string filename;
  std::string revision;

  std::vector<std::string> program;  ///< `exec` only: what stands behind `--`; not empty

  std::string output;  ///< `lock` only: where to write; "-" is stdout, empty beside the manifest

  Options options;  ///< without observer, stop and environment
  MpiWish mpi = MpiWish::kAuto;
  PrintMode print = PrintMode::kAuto;

  ProgressWish progress = ProgressWish::kAuto;
  bool json = false;
  bool quiet = false;
  bool verbose = false;

  std::string help;  ///< kHelp: the text
};

/// `arguments` without the program's name. Errors: kUsage, the same on every rank.
[[nodiscard]] Result<Invocation> parse_arguments(const std::vector<std::string>& arguments,
                                                 const EnvironmentLookup& env);

/// Of `fvprefetch --help`, or of one command. Fits 80 columns.
[[nodiscard]] std::string help_text(std::optional<Command> command = std::nullopt);

/// "500ms", "90s", "10m", "2h"; a plain number is seconds. nullopt: no duration.
[[nodiscard]] std::optional<std::chrono::milliseconds> parse_duration(std::string_view text);

/// The candidate that `word` was probably meant to be; nullopt when none is near.
[[nodiscard]] std::optional<std::string_view> nearest(std::string_view word,
                                                      std::span<const std::string_view> candidates);

/// The error of a first word that is neither a command nor a manifest, when it looks like the
/// former: "statsu".
[[nodiscard]] std::optional<Error> mistyped_command(std::string_view word);

}  // namespace fvprefetch::cli
