#include "cli/pruning_json.h"

#include <nlohmann/json.hpp>

#include "prefetch/error_json.h"

namespace fvprefetch::cli {
namespace {

using nlohmann::ordered_json;

constexpr int kSchema = 1;

ordered_json totals_of(const Pruning& pruning) {
  ordered_json out;
  for (const PruneState state : {PruneState::kRemoved, PruneState::kOrphan, PruneState::kInUse,
                                 PruneState::kYoung, PruneState::kFailed}) {
    const Pruning::Amount amount = pruning.amount(state);
    out["files_" + std::string(name(state))] = amount.files;
    out["bytes_" + std::string(name(state))] = amount.bytes;
  }
  return out;
}

}  // namespace

std::string pruning_to_json(const Pruning& pruning) {
  ordered_json files = ordered_json::array();
  for (const PrunedFile& file : pruning.files) {
    files.push_back({{"path", file.path},
                     {"state", name(file.state)},
                     {"bytes", file.bytes},
                     {"error", error_or_null(file.error)}});
  }
  ordered_json warnings = ordered_json::array();
  for (const Error& warning : pruning.warnings) warnings.push_back(error_to_json(warning));
  ordered_json out;
  out["schema"] = kSchema;
  out["command"] = "prune";
  out["dry_run"] = pruning.dry_run;
  out["status"] = pruning.ok() ? "ok" : "failed";
  out["exit_code"] = exit_code(pruning.code());
  out["error"] = error_or_null(pruning.error);
  out["files"] = std::move(files);
  out["warnings"] = std::move(warnings);
  out["totals"] = totals_of(pruning);
  // A path need not be UTF-8; the document must be.
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace fvprefetch::cli
