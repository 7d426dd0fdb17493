#include "cli/staged.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <string_view>

namespace fvprefetch::cli {
namespace {

constexpr std::string_view kHub = "HF_HUB_CACHE";
constexpr std::string_view kEval = "FASTVIDEO_EVAL_CACHE";
constexpr std::string_view kTorch = "TORCH_HOME";

std::string value_of(const Variables& variables, std::string_view name) {
  const auto it = std::find_if(variables.begin(), variables.end(),
                               [&](const auto& variable) { return variable.first == name; });
  return it == variables.end() ? std::string() : it->second;
}

/// The variable by which the job finds `entry`; nullopt: it needs none.
std::optional<std::string_view> variable_of(const PlannedEntry& entry, const std::string& torch) {
  switch (entry.kind) {
    case EntryKind::kHubFile:
    case EntryKind::kHubSnapshot:
      return kHub;
    case EntryKind::kUrl:
    case EntryKind::kArchive:
      return entry.path.starts_with(torch + "/") ? kTorch : kEval;
    case EntryKind::kPath:
      break;
  }
  return std::nullopt;
}

bool is_complete(const Plan& plan, std::size_t entry) {
  return entry < plan.entries.size() && plan.entries[entry].state == "complete";
}

}  // namespace

StagedVariables staged_variables(const Manifest& manifest, const EnvironmentLookup& env,
                                 const Options& options) {
  const std::string place = std::filesystem::absolute(options.stage).lexically_normal().string();
  const std::string torch = place + (place.ends_with('/') ? "eval/torch" : "/eval/torch");
  Options staged = options;
  staged.cache_dir = std::filesystem::path(torch).parent_path().string();
  staged.hf_cache_dir = std::filesystem::path(staged.cache_dir).replace_filename("hub").string();
  // There torch's files lie in the eval cache, whatever TORCH_HOME says of the shared ones.
  staged.environment = [&env](std::string_view name) {
    return name == kTorch ? std::nullopt : env(name);
  };

  StagedVariables out{job_variables(env, options), {}};
  const Variables there = job_variables(staged.environment, staged);
  const Plan found = status(manifest, staged);
  std::optional<Plan> shared;  // asked only when it matters
  const auto is_shared = [&](std::size_t entry) {
    if (!shared) shared = status(manifest, options);
    return is_complete(*shared, entry);
  };
  for (const std::string_view name : {kHub, kEval, kTorch}) {
    std::size_t wanted = 0;
    std::string lacking;
    for (std::size_t i = 0; i < found.entries.size() && lacking.empty(); ++i) {
      if (variable_of(found.entries[i], torch) != name) continue;
      ++wanted;
      // An optional entry that nobody could get is no reason.
      const bool matters = !manifest.entries[i].optional || is_shared(i);
      if (!is_complete(found, i) && matters) lacking = found.entries[i].name;
    }
    if (wanted == 0) continue;
    if (lacking.empty()) {
      for (auto& variable : out.variables) {
        if (variable.first == name) variable.second = value_of(there, name);
      }
    } else {
      out.notices.push_back(value_of(there, name) + " has no complete copy of `" + lacking +
                            "`: " + std::string(name) + " stays " + value_of(out.variables, name));
    }
  }
  return out;
}

}  // namespace fvprefetch::cli
