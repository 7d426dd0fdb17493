#include "cli/verification_json.h"

#include <nlohmann/json.hpp>

#include "prefetch/error_json.h"

namespace fvprefetch::cli {
namespace {

using nlohmann::ordered_json;

constexpr int kSchema = 1;

ordered_json number_or_null(const std::optional<std::uint64_t>& number) {
  return number ? ordered_json(*number) : ordered_json();
}

ordered_json file_to_json(const VerifiedFile& file) {
  ordered_json out;
  out["path"] = file.path;
  out["location"] = file.location;
  out["state"] = name(file.state);
  out["algorithm"] = file.expected ? ordered_json(name(file.expected->kind)) : ordered_json();
  out["expected"] = file.expected ? ordered_json(file.expected->hex) : ordered_json();
  out["actual"] = text_or_null(file.actual);
  out["size"] = number_or_null(file.size);
  out["actual_size"] = number_or_null(file.actual_size);
  out["note"] = text_or_null(file.note);
  return out;
}

ordered_json entry_to_json(const VerifiedEntry& entry) {
  ordered_json files = ordered_json::array();
  for (const VerifiedFile& file : entry.files) files.push_back(file_to_json(file));
  ordered_json out;
  out["name"] = entry.name;
  out["kind"] = name(entry.kind);
  out["state"] = entry.state;
  out["repaired"] = entry.repaired;
  out["optional"] = entry.optional;
  out["source"] = entry.source;
  out["path"] = text_or_null(entry.path);
  out["commit"] = text_or_null(entry.commit);
  out["listed_by"] = text_or_null(entry.listed_by);
  out["error"] = error_or_null(entry.error);
  out["files"] = std::move(files);
  return out;
}

ordered_json totals_of(const Verification& verification) {
  std::uint64_t files = 0;
  ordered_json by_state;
  for (const FileState state : {FileState::kOk, FileState::kCorrupt, FileState::kMissing,
                                FileState::kUnverifiable, FileState::kUnchecked}) {
    std::uint64_t count = 0;
    for (const VerifiedEntry& entry : verification.entries) {
      for (const VerifiedFile& file : entry.files) count += file.state == state ? 1U : 0U;
    }
    files += count;
    by_state["files_" + std::string(name(state))] = count;
  }
  ordered_json out{{"entries", verification.entries.size()}, {"files", files}};
  out.update(by_state);
  out["files_read"] = verification.files_read;
  out["bytes_read"] = verification.bytes_read;
  out["seconds"] = verification.seconds;
  return out;
}

std::string_view status_of(const Verification& verification) {
  if (verification.ok()) return "ok";
  return verification.code() == ErrorCode::kPartial ? "partial" : "failed";
}

}  // namespace

std::string verification_to_json(const Verification& verification) {
  ordered_json entries = ordered_json::array();
  for (const VerifiedEntry& entry : verification.entries) entries.push_back(entry_to_json(entry));
  ordered_json out;
  out["schema"] = kSchema;
  out["command"] = "verify";
  out["status"] = status_of(verification);
  out["exit_code"] = exit_code(verification.code());
  out["error"] = error_or_null(verification.error);
  out["entries"] = std::move(entries);
  out["totals"] = totals_of(verification);
  out["repair"] = verification.repair ? ordered_json::parse(to_json(*verification.repair), nullptr,
                                                            /*allow_exceptions=*/false)
                                      : ordered_json();
  // A path or a server's words need not be UTF-8; the document must be.
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace fvprefetch::cli
