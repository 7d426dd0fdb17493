#include "cli/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>

#include "base/environment.h"
#include "base/printable.h"

namespace fvprefetch::cli {
namespace {

struct Scaled {
  double value;
  std::string_view unit;
};

Scaled scale(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 7> kUnits{"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  // 999.95 would be printed as 1000.0
  while (value >= (unit == 0 ? 1000.0 : 999.95) && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return {value, kUnits[unit]};
}

std::string number_text(const Scaled& scaled) {
  return scaled.unit == "B" ? fmt::format("{:.0f}", scaled.value)
                            : fmt::format("{:.1f}", scaled.value);
}

std::string short_commit(const std::string& commit) {
  return commit.substr(0, 12);
}

std::string source_text(const PlannedEntry& entry) {
  return entry.commit.empty() ? entry.source
                              : fmt::format("{} @ {}", entry.source, short_commit(entry.commit));
}

struct Totals {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  std::uint64_t missing_files = 0;
  std::uint64_t missing_bytes = 0;
  bool exact = true;  // false: a missing file's size is not known
};

void add(Totals& totals, const PlannedFile& file) {
  ++totals.files;
  totals.bytes += file.size.value_or(0);
  if (file.present) return;
  ++totals.missing_files;
  totals.missing_bytes += file.size.value_or(0);
  totals.exact = totals.exact && file.size.has_value();
}

Totals totals_of(const PlannedEntry& entry) {
  Totals totals;
  for (const PlannedFile& file : entry.files) add(totals, file);
  return totals;
}

std::string missing_text(const Totals& totals) {
  const std::string files = count_text(totals.missing_files, "file", "files");
  if (totals.exact) return fmt::format("{}, {}", files, bytes_text(totals.missing_bytes));
  if (totals.missing_bytes == 0) return files + " of unknown size";
  return fmt::format("{}, at least {}", files, bytes_text(totals.missing_bytes));
}

std::string state_words(const std::string& state) {
  return state == "being_fetched" ? "being fetched" : state;
}

std::string planned_entry_text(const PlannedEntry& entry, bool all_files) {
  const Totals totals = totals_of(entry);
  std::string out = fmt::format("{}: {}", entry.name, state_words(entry.state));
  if (entry.error) {
    out += ": " + escaped(describe(*entry.error));
  } else if (totals.missing_files > 0) {
    out += ", " + missing_text(totals) + " to fetch";
    if (entry.bytes_partial > 0) {
      out += fmt::format(", up to {} of it here already", bytes_text(entry.bytes_partial));
    }
  } else if (!entry.files.empty()) {
    out += fmt::format(", {}, {}", count_text(totals.files, "file", "files"),
                       bytes_text(totals.bytes));
  }
  if (!entry.holder.empty()) out += ", by " + entry.holder;
  out += fmt::format("\n  from  {}\n", escaped(source_text(entry)));
  if (!entry.path.empty()) {
    const bool unpacked = entry.kind == EntryKind::kArchive;
    out += fmt::format("  to    {}{}\n", escaped(entry.path), unpacked ? ", unpacked" : "");
  }
  for (const PlannedFile& file : entry.files) {
    if (file.present && !all_files) continue;
    const std::string size = file.size ? bytes_text(*file.size) : "size unknown";
    if (file.present) {
      out += fmt::format("  have  {}, {}\n", escaped(file.path), size);
    } else {
      out += fmt::format("  get   {}, {}, {}, digest: {}\n", escaped(file.path), size,
                         escaped(file.url), file.digest_rule);
    }
  }
  return out;
}

std::string status_detail(const PlannedEntry& entry) {
  const Totals totals = totals_of(entry);
  std::vector<std::string> parts;
  if (entry.state == "complete") {
    if (!entry.files.empty() && totals.exact && totals.bytes > 0) {
      parts.push_back(bytes_text(totals.bytes));
    }
    if (!entry.path.empty()) parts.push_back(entry.path);
  } else {
    const std::uint64_t there = totals.bytes - totals.missing_bytes + entry.bytes_partial;
    if (there > 0 || entry.state != "missing") {
      parts.push_back(totals.exact && totals.bytes > 0 ? bytes_of_text(there, totals.bytes)
                                                       : bytes_text(there));
    } else if (totals.bytes > 0) {
      parts.push_back(bytes_text(totals.bytes));
    }
    if (!entry.holder.empty()) parts.push_back("by " + entry.holder);
  }
  if (entry.error) parts = {describe(*entry.error)};
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::uint64_t count_files(const VerifiedEntry& entry, FileState state) {
  return static_cast<std::uint64_t>(
      std::count_if(entry.files.begin(), entry.files.end(),
                    [&](const VerifiedFile& file) { return file.state == state; }));
}

constexpr std::array kFileStates{FileState::kOk, FileState::kCorrupt, FileState::kMissing,
                                 FileState::kUnverifiable, FileState::kUnchecked};

// "2 ok, 1 corrupt".
std::string counts_text(const std::array<std::uint64_t, kFileStates.size()>& counts) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) parts.push_back(fmt::format("{} {}", counts[i], name(kFileStates[i])));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string verified_entry_detail(const VerifiedEntry& entry) {
  if (entry.files.empty()) return entry.error ? describe(*entry.error) : "";
  std::uint64_t bytes = 0;
  for (const VerifiedFile& file : entry.files) bytes += file.actual_size.value_or(0);
  std::string out =
      fmt::format("{}, {}", count_text(entry.files.size(), "file", "files"), bytes_text(bytes));
  if (entry.files.size() == 1) {
    // Of a bad one the line below tells.
    if (entry.files[0].state == FileState::kUnverifiable) out += ", " + entry.files[0].note;
    if (entry.files[0].state == FileState::kMissing) out = "1 file";
  } else if (count_files(entry, FileState::kOk) < entry.files.size()) {
    std::array<std::uint64_t, kFileStates.size()> counts{};
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = count_files(entry, kFileStates[i]);
    out += ": " + counts_text(counts);
  }
  if (entry.listed_by == "snapshot") out += "; nothing lists them: others may be missing";
  if (entry.repaired) {
    out += "; repaired";
  } else if (entry.state == "failed" && entry.error) {
    out += "; " + describe(*entry.error);
  }
  return out;
}

std::string verified_file_text(const VerifiedFile& file) {
  std::string out = fmt::format("  {}  {}", name(file.state), file.path);
  if (file.state == FileState::kCorrupt) {
    if (file.expected && !file.actual.empty()) {
      out += fmt::format(", expected {} {}, actual {}", name(file.expected->kind),
                         file.expected->hex, file.actual);
    }
    if (file.size && file.actual_size && *file.size != *file.actual_size) {
      out += fmt::format(", expected {} bytes, actual {}", *file.size, *file.actual_size);
    }
  } else if (file.size || file.actual_size) {
    out += ", " + bytes_text(file.actual_size ? *file.actual_size : *file.size);
  }
  if (!file.note.empty()) out += ", " + file.note;
  return escaped(out) + "\n";
}

// Names and states one below the other.
class Columns {
 public:
  template <typename Entry>
  explicit Columns(const std::vector<Entry>& entries) {
    for (const Entry& entry : entries) {
      name_ = std::max(name_, entry.name.size());
      state_ = std::max(state_, entry.state.size());
    }
  }
  [[nodiscard]] std::string line(std::string_view name, std::string_view state,
                                 std::string_view detail) const {
    std::string line = fmt::format("{:<{}}  {:<{}}  {}", name, name_, state, state_, detail);
    line.erase(line.find_last_not_of(' ') + 1);
    return escaped(line) + "\n";
  }

 private:
  std::size_t name_ = 0;
  std::size_t state_ = 0;
};

// The error of a whole run as it is told, and which entries' errors a reader knows from it. It may
// list thousands, so that looking each up from its beginning would take minutes.
class Told {
 public:
  explicit Told(const std::optional<Error>& error)
      : code_(error ? error->code : ErrorCode::kOk), text_(error ? describe(*error) : "") {}

  // Fastest in the order of the list.
  [[nodiscard]] bool tells_of(const std::string& entry, const Error& error) {
    if (error.code != code_) return false;
    std::size_t at = text_.find(error.message, next_);
    if (at == std::string::npos) at = text_.find(error.message);
    if (at == std::string::npos) return false;
    next_ = at + 1;
    const std::string head = entry + ": ";
    return std::string_view(text_).substr(0, at).ends_with(head) ||
           text_.find(entry) != std::string::npos;
  }

 private:
  ErrorCode code_;
  std::string text_;
  std::size_t next_ = 0;  ///< behind what was found last
};

bool is_there(const EntryReport& entry) {
  return !entry.path.empty() && succeeded(entry.state);
}

std::uint64_t count_state(const Report& report, EntryState state) {
  return static_cast<std::uint64_t>(
      std::count_if(report.entries.begin(), report.entries.end(),
                    [&](const EntryReport& entry) { return entry.state == state; }));
}

}  // namespace

std::string bytes_text(std::uint64_t bytes) {
  const Scaled scaled = scale(bytes);
  return fmt::format("{} {}", number_text(scaled), scaled.unit);
}

std::string bytes_of_text(std::uint64_t part, std::uint64_t whole) {
  const Scaled of = scale(whole);
  const Scaled some = scale(part);
  if (some.unit == of.unit || part == 0) {
    return fmt::format("{} of {} {}", part == 0 ? "0" : number_text(some), number_text(of),
                       of.unit);
  }
  return fmt::format("{} of {}", bytes_text(part), bytes_text(whole));
}

std::string duration_text(std::chrono::milliseconds time) {
  const double seconds = static_cast<double>(time.count()) / 1000;
  if (seconds < 9.95) return fmt::format("{:.1f} s", std::max(seconds, 0.0));
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  const std::int64_t minutes = whole / 60;
  if (minutes < 10) {
    return whole % 60 == 0 ? fmt::format("{} min", minutes)
                           : fmt::format("{} min {} s", minutes, whole % 60);
  }
  if (minutes < 60) return fmt::format("{} min", minutes);
  return minutes % 60 == 0 ? fmt::format("{} h", minutes / 60)
                           : fmt::format("{} h {} min", minutes / 60, minutes % 60);
}

std::string count_text(std::uint64_t count, std::string_view one, std::string_view many) {
  if (count == 0) return fmt::format("no {}", many);
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::string shell_quote(std::string_view text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_-./:@%+,").find(c) != std::string_view::npos;
  });
  if (plain) return std::string(text);
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += R"('\'')";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string results_text(const Report& report) {
  std::string out;
  for (const EntryReport& entry : report.entries) {
    if (is_there(entry)) out += entry.name + "\t" + entry.path + "\n";
  }
  return out;
}

std::string path_text(const Report& report) {
  for (const EntryReport& entry : report.entries) {
    if (is_there(entry)) return entry.path + "\n";
  }
  return {};
}

std::string plan_text(const Plan& plan, bool all_files) {
  std::string out;
  Totals all;
  for (const PlannedEntry& entry : plan.entries) {
    out += planned_entry_text(entry, all_files);
    for (const PlannedFile& file : entry.files) add(all, file);
  }
  if (plan.entries.empty()) return out;
  return out + fmt::format("{}: {}\n", count_text(plan.entries.size(), "entry", "entries"),
                           all.missing_files > 0 ? missing_text(all) + " to fetch"
                           : plan.error          ? "see the errors above"
                                                 : "nothing to fetch");
}

std::string status_text(const Plan& plan) {
  const Columns columns(plan.entries);
  std::string out;
  for (const PlannedEntry& entry : plan.entries) {
    out += columns.line(entry.name, state_words(entry.state), status_detail(entry));
  }
  return out;
}

std::string verification_text(const Verification& verification, bool all_files) {
  const Columns columns(verification.entries);
  std::string out;
  for (const VerifiedEntry& entry : verification.entries) {
    out += columns.line(entry.name, entry.state, verified_entry_detail(entry));
    for (const VerifiedFile& file : entry.files) {
      const bool bad = file.state == FileState::kCorrupt || file.state == FileState::kMissing;
      if (bad || all_files) out += verified_file_text(file);
    }
  }
  return out;
}

std::string verification_summary(const Verification& verification) {
  std::uint64_t files = 0;
  std::array<std::uint64_t, kFileStates.size()> counts{};
  for (const VerifiedEntry& entry : verification.entries) {
    files += entry.files.size();
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += count_files(entry, kFileStates[i]);
  }
  std::string out =
      fmt::format("{}, {}", count_text(verification.entries.size(), "entry", "entries"),
                  count_text(files, "file", "files"));
  if (files > 0) out += ": " + counts_text(counts);
  if (verification.bytes_read == 0) return out;
  const std::chrono::milliseconds time(std::llround(verification.seconds * 1000));
  out += fmt::format(", read {} in {}", bytes_text(verification.bytes_read), duration_text(time));
  if (verification.seconds > 0) {
    out += fmt::format(" ({}/s)",
                       bytes_text(static_cast<std::uint64_t>(
                           static_cast<double>(verification.bytes_read) / verification.seconds)));
  }
  return out;
}

std::string pruning_text(const Pruning& pruning) {
  std::string out;
  for (const PrunedFile& file : pruning.files) {
    const bool listed = file.state == PruneState::kRemoved || file.state == PruneState::kOrphan;
    if (listed) out += file.path + "\n";
  }
  return out;
}

std::string pruning_summary(const Pruning& pruning) {
  const auto amount = [&](PruneState state) -> std::string {
    const auto [files, bytes] = pruning.amount(state);
    if (files == 0) return {};
    return fmt::format("{}, {}", count_text(files, "file", "files"), bytes_text(bytes));
  };
  const std::string gone = amount(pruning.dry_run ? PruneState::kOrphan : PruneState::kRemoved);
  std::string out = fmt::format("{} {}", pruning.dry_run ? "would remove" : "removed",
                                gone.empty() ? "nothing" : gone);
  std::vector<std::string> kept;
  if (const auto in_use = amount(PruneState::kInUse); !in_use.empty()) {
    kept.push_back(in_use + ", in use");
  }
  if (const auto young = amount(PruneState::kYoung); !young.empty()) {
    kept.push_back(young + ", not a day old");
  }
  if (!kept.empty()) out += fmt::format("; kept {}", fmt::join(kept, " and "));
  return out;
}

Variables job_variables(const EnvironmentLookup& env, const Options& options) {
  // Absolute, for the job that follows may run in another directory.
  const auto place = [](const std::string& path) {
    return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
  };
  const std::string eval = place(environment::eval_cache(env, options.cache_dir));
  return {{"HF_HUB_OFFLINE", "1"},
          {"HF_HUB_CACHE", place(environment::hub_cache(env, options.hf_cache_dir))},
          {"FASTVIDEO_EVAL_CACHE", eval},
          {"TORCH_HOME", place(environment::torch_home(env).value_or(eval + "/torch"))}};
}

std::string exports_text(const Variables& variables) {
  std::string out;
  for (const auto& [name, value] : variables) {
    out += fmt::format("export {}={}\n", name, shell_quote(value));
  }
  return out;
}

std::string summary_text(const Report& report) {
  const std::uint64_t hits = count_state(report, EntryState::kHit);
  const std::uint64_t fetched = count_state(report, EntryState::kFetched);
  const std::uint64_t resumed = count_state(report, EntryState::kResumed);
  const std::uint64_t failed = count_state(report, EntryState::kFailed);
  const std::uint64_t skipped = count_state(report, EntryState::kSkipped);
  std::vector<std::string> parts;
  if (hits > 0) parts.push_back(count_text(hits, "hit", "hits"));
  if (fetched > 0) parts.push_back(fmt::format("{} fetched", fetched));
  if (resumed > 0) parts.push_back(fmt::format("{} resumed", resumed));
  if (failed > 0) parts.push_back(fmt::format("{} failed", failed));
  if (skipped > 0) parts.push_back(fmt::format("{} not finished", skipped));

  std::uint64_t bytes = 0;
  std::uint64_t requests = report.requests;
  for (const EntryReport& entry : report.entries) {
    bytes += entry.bytes_fetched;
    requests += entry.requests;
  }
  const std::chrono::milliseconds time(std::llround(report.seconds * 1000));
  if (bytes > 0) {
    std::string part = fmt::format("{} in {}", bytes_text(bytes), duration_text(time));
    if (report.seconds > 0) {
      part += fmt::format(
          " ({}/s)",
          bytes_text(static_cast<std::uint64_t>(static_cast<double>(bytes) / report.seconds)));
    }
    parts.push_back(std::move(part));
  }
  parts.push_back(count_text(requests, "request", "requests"));
  return fmt::format("{}: {}", count_text(report.entries.size(), "entry", "entries"),
                     fmt::join(parts, ", "));
}

std::vector<std::string> stage_lines(const Report& report) {
  if (!report.stage || report.stage->directory.empty()) return {};
  std::uint64_t written = 0;
  std::size_t whole = 0;
  double seconds = 0;
  for (const NodeReport& node : report.stage->nodes) {
    written += node.bytes;
    whole += node.error ? 0 : 1;
    seconds = std::max(seconds, node.seconds);
  }
  const std::size_t nodes = report.stage->nodes.size();
  std::string line = fmt::format("staged to {} on {}", report.stage->directory,
                                 whole == nodes ? count_text(nodes, "node", "nodes")
                                                : fmt::format("{} of {} nodes", whole, nodes));
  if (written > 0) {
    line += fmt::format(": {} read once, {} written in {}", bytes_text(report.stage->bytes_read),
                        bytes_text(written),
                        duration_text(std::chrono::milliseconds(std::llround(seconds * 1000))));
  } else if (whole == nodes) {
    line += ": all of it was there";
  }
  std::vector<std::string> lines{std::move(line)};
  for (const NodeReport& node : report.stage->nodes) {
    if (!node.error) continue;
    lines.push_back(
        fmt::format("node {} uses the shared copy: {}", node.node, describe(*node.error)));
  }
  return lines;
}

std::string lock_summary(const Manifest& locked, std::string_view path) {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  for (const Entry& entry : locked.entries) {
    for (const PinnedFile& file : entry.files) bytes += file.size;
    files += entry.files.size();
    if (entry.files.empty() && !entry.sha256.empty()) {  // a URL
      ++files;
      bytes += entry.size.value_or(0);
    }
  }
  return fmt::format("{} pinned in {}: {}, {}",
                     count_text(locked.entries.size(), "entry", "entries"), path,
                     count_text(files, "file", "files"), bytes_text(bytes));
}

std::vector<std::string> failure_lines(const Verification& verification) {
  Told told(verification.error);
  std::vector<std::string> lines;
  for (const VerifiedEntry& entry : verification.entries) {
    if (!entry.error || told.tells_of(entry.name, *entry.error)) continue;
    lines.push_back(fmt::format("{}`{}` {}: {}", entry.optional ? "optional " : "", entry.name,
                                entry.state, describe(*entry.error)));
  }
  return lines;
}

std::vector<std::string> failure_lines(const Pruning& pruning) {
  std::vector<std::string> lines;
  const std::string told = pruning.error ? describe(*pruning.error) : "";
  for (const Error& warning : pruning.warnings) {
    if (std::string line = describe(warning); line != told) lines.push_back(std::move(line));
  }
  for (const PrunedFile& file : pruning.files) {
    if (!file.error) continue;
    std::string line = describe(*file.error);
    if (line.find(file.path) == std::string::npos) line = file.path + ": " + line;
    if (line != told) lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<std::string> failure_lines(const Report& report) {
  Told told(report.error);
  std::vector<std::string> lines;
  std::vector<std::string> skipped;
  for (const EntryReport& entry : report.entries) {
    if (entry.state == EntryState::kSkipped) skipped.push_back("`" + entry.name + "`");
    if (entry.state != EntryState::kFailed || !entry.error) continue;
    if (told.tells_of(entry.name, *entry.error)) continue;
    lines.push_back(fmt::format("{}`{}` failed: {}", entry.optional ? "optional " : "", entry.name,
                                describe(*entry.error)));
  }
  if (!skipped.empty()) {
    lines.push_back(
        fmt::format("not finished since another entry failed: {}", fmt::join(skipped, ", ")));
  }
  return lines;
}

}  // namespace fvprefetch::cli
