#include "cli/plan_json.h"

#include <nlohmann/json.hpp>

#include "prefetch/error_json.h"

namespace fvprefetch::cli {
namespace {

using nlohmann::ordered_json;

constexpr int kSchema = 1;

struct Totals {
  bool known = true;  ///< false: a listing or a size was not asked for, so the sums would mislead
  std::uint64_t files = 0;
  std::uint64_t files_missing = 0;
  std::uint64_t bytes_total = 0;
  std::uint64_t bytes_missing = 0;
};

ordered_json file_to_json(const PlannedFile& file, Totals& totals) {
  const std::uint64_t size = file.size.value_or(0);
  totals.known = totals.known && file.size.has_value();
  ++totals.files;
  totals.bytes_total += size;
  if (!file.present) {
    ++totals.files_missing;
    totals.bytes_missing += size;
  }
  ordered_json out;
  out["path"] = file.path;
  out["url"] = text_or_null(file.url);
  out["size"] = file.size ? ordered_json(*file.size) : ordered_json();
  out["present"] = file.present;
  out["digest_rule"] = text_or_null(file.digest_rule);
  return out;
}

ordered_json sum(std::uint64_t value, const Totals& totals) {
  return totals.known ? ordered_json(value) : ordered_json();
}

ordered_json entry_to_json(const PlannedEntry& entry, Totals& all) {
  Totals totals;
  totals.known = !entry.files.empty() || entry.state == "complete";
  ordered_json files = ordered_json::array();
  for (const PlannedFile& file : entry.files) files.push_back(file_to_json(file, totals));
  ordered_json out;
  out["name"] = entry.name;
  out["kind"] = name(entry.kind);
  out["state"] = entry.state;
  out["source"] = entry.source;
  out["path"] = text_or_null(entry.path);
  out["commit"] = text_or_null(entry.commit);
  out["holder"] = text_or_null(entry.holder);
  out["bytes_total"] = sum(totals.bytes_total, totals);
  out["bytes_missing"] = sum(totals.bytes_missing, totals);
  out["bytes_partial"] = entry.bytes_partial;
  out["error"] = error_or_null(entry.error);
  out["files"] = std::move(files);
  all.known = all.known && totals.known;
  all.files += totals.files;
  all.files_missing += totals.files_missing;
  all.bytes_total += totals.bytes_total;
  all.bytes_missing += totals.bytes_missing;
  return out;
}

std::string_view status_of(const Plan& plan) {
  if (!plan.error) return "ok";
  return plan.error->code == ErrorCode::kPartial ? "partial" : "failed";
}

}  // namespace

std::string plan_to_json(const Plan& plan, std::string_view command) {
  Totals totals;
  ordered_json entries = ordered_json::array();
  for (const PlannedEntry& entry : plan.entries) entries.push_back(entry_to_json(entry, totals));
  ordered_json out;
  out["schema"] = kSchema;
  out["command"] = command;
  out["status"] = status_of(plan);
  out["exit_code"] = plan.error ? exit_code(plan.error->code) : 0;
  out["error"] = error_or_null(plan.error);
  out["entries"] = std::move(entries);
  out["totals"] = {{"entries", plan.entries.size()},
                   {"files", sum(totals.files, totals)},
                   {"files_missing", sum(totals.files_missing, totals)},
                   {"bytes_total", sum(totals.bytes_total, totals)},
                   {"bytes_missing", sum(totals.bytes_missing, totals)}};
  // A path or a server's words need not be UTF-8; the document must be.
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace fvprefetch::cli
