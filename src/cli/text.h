// What people and shells read, as pure functions: numbers, the lines of stdout, and the words about
// a finished run. Nothing here writes.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fvprefetch/manifest.h"
#include "fvprefetch/plan.h"
#include "fvprefetch/prefetch.h"
#include "fvprefetch/pruning.h"
#include "fvprefetch/report.h"
#include "fvprefetch/verification.h"

namespace fvprefetch::cli {

/// SI units, one decimal: "512 B", "28.3 GB".
[[nodiscard]] std::string bytes_text(std::uint64_t bytes);
/// "3.2 of 28.3 GB"; both units where they differ.
[[nodiscard]] std::string bytes_of_text(std::uint64_t part, std::uint64_t whole);
/// "0.4 s", "42 s", "4 min 10 s", "12 min", "2 h 5 min".
[[nodiscard]] std::string duration_text(std::chrono::milliseconds time);
/// "1 file", "2 files", "no files".
[[nodiscard]] std::string count_text(std::uint64_t count, std::string_view one,
                                     std::string_view many);

/// `text` as one word of a POSIX shell.
[[nodiscard]] std::string shell_quote(std::string_view text);

/// stdout of `fetch`: name<TAB>path for each entry that is there, in manifest order.
[[nodiscard]] std::string results_text(const Report& report);
/// stdout of `ensure`: the path, or nothing.
[[nodiscard]] std::string path_text(const Report& report);
/// stdout of `plan`. `all_files` lists those that are there, too.
[[nodiscard]] std::string plan_text(const Plan& plan, bool all_files);
/// stdout of `status`: one line per entry.
[[nodiscard]] std::string status_text(const Plan& plan);
/// stdout of `verify`: one line per entry, and one below it for each file that is not as it ought
/// to be, with expected and actual digest. `all_files` lists the others, too.
[[nodiscard]] std::string verification_text(const Verification& verification, bool all_files);
/// "3 entries, 5 files: 3 ok, 1 corrupt, 1 unverifiable, read 1.2 GB in 12 s (100.0 MB/s)".
[[nodiscard]] std::string verification_summary(const Verification& verification);
/// As failure_lines(Report): the errors of entries that that of the whole does not tell of.
[[nodiscard]] std::vector<std::string> failure_lines(const Verification& verification);

/// stdout of `prune`: the path of each file that was removed, or would be, one a line.
[[nodiscard]] std::string pruning_text(const Pruning& pruning);
/// "removed 3 files, 1.2 GB; kept 2 files, 4.0 MB, in use and 1 file, 512 B, not a day old".
[[nodiscard]] std::string pruning_summary(const Pruning& pruning);
/// What could not be looked into or removed, one line each, but for what the error tells.
[[nodiscard]] std::vector<std::string> failure_lines(const Pruning& pruning);

using Variables = std::vector<std::pair<std::string, std::string>>;
/// What the job that follows needs to find everything without a connection.
[[nodiscard]] Variables job_variables(const EnvironmentLookup& env, const Options& options);
/// stdout of `env`: one `export NAME=value` a line.
[[nodiscard]] std::string exports_text(const Variables& variables);

/// "3 entries: 1 hit, 2 fetched, 1.2 GB in 12 s (100.0 MB/s), 5 requests".
[[nodiscard]] std::string summary_text(const Report& report);
/// What was copied to the nodes' own disks, a line each; none where nothing was to be.
[[nodiscard]] std::vector<std::string> stage_lines(const Report& report);
/// "2 entries pinned in m.lock.json: 12 files, 28.3 GB".
[[nodiscard]] std::string lock_summary(const Manifest& locked, std::string_view path);
/// One line per failed entry that the report's error does not tell of already, and one that lists
/// what was not finished.
[[nodiscard]] std::vector<std::string> failure_lines(const Report& report);

}  // namespace fvprefetch::cli
