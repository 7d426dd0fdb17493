// Report <-> JSON: what --json prints is what rank 0 broadcasts, so that the format which users
// rely on is exercised by every MPI run.
//
// Version rule: "schema" changes when a field changes its meaning or goes away; new fields do not
// change it, readers ignore what they do not know.
#include "fvprefetch/report.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "prefetch/error_json.h"

namespace fvprefetch {

using json = nlohmann::ordered_json;  // people read it: the order is ours, not the alphabet's

namespace {

constexpr int kSchema = 1;

constexpr std::array kKinds{std::pair{EntryKind::kPath, "path"}, std::pair{EntryKind::kUrl, "url"},
                            std::pair{EntryKind::kArchive, "archive"},
                            std::pair{EntryKind::kHubFile, "hub_file"},
                            std::pair{EntryKind::kHubSnapshot, "hub_snapshot"}};
constexpr std::array kStates{
    std::pair{EntryState::kHit, "hit"},         std::pair{EntryState::kFetched, "fetched"},
    std::pair{EntryState::kResumed, "resumed"}, std::pair{EntryState::kStaged, "staged"},
    std::pair{EntryState::kFailed, "failed"},   std::pair{EntryState::kSkipped, "skipped"}};

template <typename Table, typename Key>
std::string_view name_in(const Table& table, Key key) {
  for (const auto& [value, text] : table) {
    if (value == key) return text;
  }
  return "unknown";
}

template <typename Key, typename Table>
std::optional<Key> value_in(const Table& table, std::string_view text) {
  for (const auto& [value, name] : table) {
    if (text == name) return value;
  }
  return std::nullopt;
}

std::string text_of(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

template <typename Number>
Number number_of(const json& object, const char* key, Number fallback = {}) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number() ? it->get<Number>() : fallback;
}

std::optional<Error> error_of(const json& object) {
  const auto it = object.find("error");
  if (it == object.end() || !it->is_object()) return std::nullopt;
  return error_from_json(*it);
}

json entry_to_json(const EntryReport& entry) {
  json out;
  out["name"] = entry.name;
  out["kind"] = name(entry.kind);
  out["state"] = name(entry.state);
  out["optional"] = entry.optional;
  out["path"] = text_or_null(entry.path);
  out["commit"] = text_or_null(entry.commit);
  out["resolved_at"] = text_or_null(entry.resolved_at);
  out["verified_by"] = text_or_null(entry.verified_by);
  out["files"] = entry.files;
  out["bytes_total"] = entry.bytes_total;
  out["bytes_fetched"] = entry.bytes_fetched;
  out["requests"] = entry.requests;
  out["seconds"] = entry.seconds;
  out["warnings"] = entry.warnings;
  out["error"] = error_or_null(entry.error);
  return out;
}

std::optional<EntryReport> entry_from_json(const json& in) {
  if (!in.is_object()) return std::nullopt;
  const auto kind = value_in<EntryKind>(kKinds, text_of(in, "kind"));
  const auto state = value_in<EntryState>(kStates, text_of(in, "state"));
  if (!kind || !state) return std::nullopt;
  EntryReport entry;
  entry.name = text_of(in, "name");
  entry.kind = *kind;
  entry.state = *state;
  entry.optional = in.value("optional", false);
  entry.path = text_of(in, "path");
  entry.commit = text_of(in, "commit");
  entry.resolved_at = text_of(in, "resolved_at");
  entry.verified_by = text_of(in, "verified_by");
  entry.files = number_of<std::uint64_t>(in, "files");
  entry.bytes_total = number_of<std::uint64_t>(in, "bytes_total");
  entry.bytes_fetched = number_of<std::uint64_t>(in, "bytes_fetched");
  entry.requests = number_of<std::uint64_t>(in, "requests");
  entry.seconds = number_of<double>(in, "seconds");
  entry.warnings = in.value("warnings", std::vector<std::string>{});
  entry.error = error_of(in);
  return entry;
}

json stage_to_json(const StageReport& stage) {
  json out{{"directory", stage.directory}, {"bytes_read", stage.bytes_read}};
  out["nodes"] = json::array();
  for (const NodeReport& node : stage.nodes) {
    out["nodes"].push_back({{"node", node.node},
                            {"entries", node.entries},
                            {"files", node.files},
                            {"bytes", node.bytes},
                            {"seconds", node.seconds},
                            {"error", error_or_null(node.error)}});
  }
  return out;
}

StageReport stage_from_json(const json& in) {
  StageReport stage;
  stage.directory = text_of(in, "directory");
  stage.bytes_read = number_of<std::uint64_t>(in, "bytes_read");
  for (const json& item : in.value("nodes", json::array())) {
    NodeReport node;
    node.node = text_of(item, "node");
    node.entries = number_of<std::uint64_t>(item, "entries");
    node.files = number_of<std::uint64_t>(item, "files");
    node.bytes = number_of<std::uint64_t>(item, "bytes");
    node.seconds = number_of<double>(item, "seconds");
    node.error = error_of(item);
    stage.nodes.push_back(std::move(node));
  }
  return stage;
}

json totals(const Report& report) {
  std::uint64_t files = 0;
  std::uint64_t bytes_total = 0;
  std::uint64_t bytes_fetched = 0;
  std::uint64_t requests = report.requests;
  for (const EntryReport& entry : report.entries) {
    files += entry.files;
    bytes_total += entry.bytes_total;
    bytes_fetched += entry.bytes_fetched;
    requests += entry.requests;
  }
  return {{"entries", report.entries.size()}, {"files", files},       {"bytes_total", bytes_total},
          {"bytes_fetched", bytes_fetched},   {"requests", requests}, {"seconds", report.seconds}};
}

std::string_view status_of(const Report& report) {
  if (report.ok()) return "ok";
  return report.error->code == ErrorCode::kPartial ? "partial" : "failed";
}

}  // namespace

std::string_view name(EntryKind kind) {
  return name_in(kKinds, kind);
}
std::string_view name(EntryState state) {
  return name_in(kStates, state);
}

json text_or_null(const std::string& text) {
  return text.empty() ? json() : json(text);
}

json error_or_null(const std::optional<Error>& error) {
  return error ? error_to_json(*error) : json();
}

json error_to_json(const Error& error) {
  json out;
  out["code"] = exit_code(error.code);
  out["name"] = name(error.code);
  out["message"] = error.message;
  out["hint"] = text_or_null(std::string(hint(error)));
  out["context"] = error.context;
  out["subject"] = text_or_null(error.subject);
  out["reason"] = text_or_null(error.reason);
  out["retry_after_seconds"] = error.retry_after ? json(error.retry_after->count()) : json();
  out["retryable"] = retryable(error.code);
  return out;
}

Error error_from_json(const json& in) {
  Error error;
  error.code = static_cast<ErrorCode>(number_of<int>(in, "code", 1));
  error.message = text_of(in, "message");
  error.hint = text_of(in, "hint");
  error.context = in.value("context", std::vector<std::string>{});
  error.subject = text_of(in, "subject");
  error.reason = text_of(in, "reason");
  if (const auto it = in.find("retry_after_seconds"); it != in.end() && it->is_number_integer()) {
    error.retry_after = std::chrono::seconds(it->get<std::int64_t>());
  }
  return error;
}

Report failed_report(Error error) {
  Report report;
  report.error = std::move(error);
  return report;
}

std::string to_json(const Report& report) {
  json out;
  out["schema"] = kSchema;
  out["status"] = status_of(report);
  out["exit_code"] = exit_code(report.code());
  out["error"] = error_or_null(report.error);
  out["ranks"] = report.ranks;
  out["nodes"] = report.nodes;
  out["launcher"] = report.launcher;
  out["entries"] = json::array();
  for (const EntryReport& entry : report.entries) out["entries"].push_back(entry_to_json(entry));
  out["totals"] = totals(report);
  out["requests_shared"] = report.requests;
  out["lock"] = {{"kind", report.lock.kind},
                 {"waited_seconds", report.lock.waited_seconds},
                 {"holder", text_or_null(report.lock.holder)}};
  if (report.stage) out["stage"] = stage_to_json(*report.stage);
  // A path or a server's words need not be UTF-8; the document must be.
  return out.dump(2, ' ', false, json::error_handler_t::replace);
}

Result<Report> report_from_json(std::string_view text) {
  const json in = json::parse(text, nullptr, false);
  if (!in.is_object()) return fail(ErrorCode::kInternal, "the report is not a JSON object");
  if (const int schema = number_of<int>(in, "schema"); schema != kSchema) {
    return fail(ErrorCode::kInternal, "the report has schema " + std::to_string(schema) +
                                          ", this program knows " + std::to_string(kSchema));
  }
  try {
    Report report;
    report.error = error_of(in);
    report.ranks = number_of<int>(in, "ranks", 1);
    report.nodes = number_of<int>(in, "nodes", 1);
    report.launcher = text_of(in, "launcher");
    for (const json& item : in.value("entries", json::array())) {
      auto entry = entry_from_json(item);
      if (!entry) return fail(ErrorCode::kInternal, "an entry of the report cannot be understood");
      report.entries.push_back(*std::move(entry));
    }
    report.requests = number_of<std::uint64_t>(in, "requests_shared");
    const json totals_in = in.value("totals", json::object());
    report.seconds = number_of<double>(totals_in, "seconds");
    const json lock = in.value("lock", json::object());
    report.lock.kind = text_of(lock, "kind");
    report.lock.waited_seconds = number_of<double>(lock, "waited_seconds");
    report.lock.holder = text_of(lock, "holder");
    if (const auto stage = in.find("stage"); stage != in.end() && stage->is_object()) {
      report.stage = stage_from_json(*stage);
    }
    return report;
  } catch (const json::exception& e) {  // a field of the wrong type
    return fail(ErrorCode::kInternal, std::string("the report cannot be understood: ") + e.what());
  }
}

}  // namespace fvprefetch
