#include "cli/diagnosis_json.h"

#include <nlohmann/json.hpp>

#include "prefetch/error_json.h"

namespace fvprefetch::cli {
namespace {

using nlohmann::ordered_json;

constexpr int kSchema = 1;

std::string_view name(Launch::Mode mode) {
  return mode == Launch::Mode::kMpi        ? "mpi"
         : mode == Launch::Mode::kLockOnly ? "lock_only"
                                           : "alone";
}

ordered_json milliseconds_or_null(const std::optional<std::chrono::milliseconds>& time) {
  return time ? ordered_json(time->count()) : nullptr;
}

ordered_json locks_to_json(const TestedDirectory& tested) {
  const SelfTest& test = tested.test;
  ordered_json primitives = ordered_json::array();
  for (const TriedPrimitive& tried : test.tried) {
    primitives.push_back({{"name", fvprefetch::name(tried.primitive)},
                          {"verdict", fvprefetch::name(tried.verdict)},
                          {"detail", text_or_null(tried.detail)},
                          {"slowest_try_ms", tried.slowest_try.count()}});
  }
  ordered_json out{{"role", tested.role}, {"same_as", text_or_null(tested.same_as)}};
  out["directory"] = text_or_null(test.directory);
  out["between"] = test.tried.empty() ? ordered_json(nullptr)
                                      : ordered_json(test.between_nodes ? "nodes" : "processes");
  out["parties"] = test.parties;
  out["blind"] = test.blind;
  out["not_run"] = text_or_null(test.not_run);
  out["primitives"] = std::move(primitives);
  out["new_name"] = {{"looked_afresh_ms", milliseconds_or_null(test.shows_afresh)},
                     {"looked_again_ms", milliseconds_or_null(test.shows_again)},
                     {"waited_for_ms", test.waited_for.count()}};
  out["auto_relies_on"] = text_or_null(relied_on(test));
  return out;
}

}  // namespace

std::string diagnosis_to_json(const Diagnosis& diagnosis, const Start& start) {
  ordered_json nodes = ordered_json::array();
  for (const ExaminedNode& node : diagnosis.examined) {
    nodes.push_back(ordered_json::parse(to_json_line(node)));
  }
  ordered_json locks = ordered_json::array();
  for (const TestedDirectory& tested : diagnosis.tested) locks.push_back(locks_to_json(tested));
  ordered_json findings = ordered_json::array();
  for (const Finding& finding : diagnosis.findings) {
    findings.push_back({{"severity", fvprefetch::name(finding.severity)},
                        {"about", finding.about},
                        {"error", error_to_json(finding.error)}});
  }
  ordered_json out;
  out["schema"] = kSchema;
  out["command"] = "doctor";
  out["status"] = diagnosis.error ? "failed" : "ok";
  out["exit_code"] = exit_code(diagnosis.code());
  out["error"] = error_or_null(diagnosis.error);
  out["launcher"] = {{"name", start.launch.launcher},
                     {"mode", name(start.launch.mode)},
                     {"ranks", diagnosis.ranks},
                     {"mpi_library", text_or_null(start.mpi_library)}};
  out["nodes"] = std::move(nodes);
  out["locks"] = std::move(locks);
  out["findings"] = std::move(findings);
  // A path need not be UTF-8; the document must be.
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace fvprefetch::cli
