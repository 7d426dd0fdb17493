#include "cluster/diagnose.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "base/try.h"

namespace fvprefetch {
namespace {

void add(std::vector<Finding>& findings, Severity severity, std::string about, ErrorCode code,
         std::string message, std::string hint) {
  Error error;
  error.code = code;
  error.message = std::move(message);
  error.hint = std::move(hint);
  findings.push_back({severity, std::move(about), std::move(error)});
}

std::string listed(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

// What a self test found that matters to a fetch.
void judge(std::vector<Finding>& findings, const TestedDirectory& tested) {
  const SelfTest& test = tested.test;
  if (!test.blind.empty() && test.between_nodes) {
    add(findings, Severity::kFailure, tested.role, ErrorCode::kNotVisible,
        "`" + test.directory + "` is not shared: " + listed(test.blind) + " " +
            (test.blind.size() == 1 ? "does" : "do") + " not see what the first node makes in it",
        "name a directory that all nodes share; each node fetches for itself with --mpi off");
  }
  if (test.could_not_write) {
    findings.push_back({Severity::kFailure, tested.role, *test.could_not_write});
  }
  if (test.left_behind) {
    findings.push_back({Severity::kWarning, tested.role, *test.left_behind});
  }
  if (test.tried.empty()) return;
  if (!any_lock_excludes(test)) {
    add(findings, Severity::kWarning, tested.role, ErrorCode::kOk,
        "no lock excludes in `" + test.directory + "`",
        "what is published is right all the same; start one job at a time to fetch things once");
  }
  if (const TriedPrimitive* flock = test.find(Primitive::kFlock);
      flock != nullptr && flock->verdict == Verdict::kHangs) {
    add(findings, Severity::kWarning, tested.role, ErrorCode::kOk, "flock hangs: " + flock->detail,
        "with --lock lease it is not called at all");
  }
  if (!test.shows_afresh) {
    add(findings, Severity::kFailure, tested.role, ErrorCode::kNotVisible,
        "a new name in `" + test.directory + "` does not show on every node within " +
            std::to_string(test.waited_for.count()) + " ms",
        "give --visible-timeout more; on NFS mount with lookupcache=positive or a shorter "
        "acdirmax");
  }
}

// The file systems that this rank's locks lie on, one number per directory.
std::string devices_of(const ExaminedNode& node) {
  std::ostringstream out;
  for (const ExaminedDirectory& directory : node.directories) out << directory.lock_device << ' ';
  return out.str();
}

// The file systems of each rank that has looked.
using Devices = std::vector<std::vector<std::uint64_t>>;

Devices devices_from(const std::vector<std::string>& told) {
  Devices devices;
  for (const std::string& words : told) {
    if (words.empty()) continue;
    std::istringstream in(words);
    std::vector<std::uint64_t>& row = devices.emplace_back();
    for (std::uint64_t device = 0; in >> device;) row.push_back(device);
  }
  return devices;
}

// Whether directories `a` and `b` lie on one file system, for all ranks.
bool alike(const Devices& devices, std::size_t a, std::size_t b) {
  return std::all_of(devices.begin(), devices.end(), [&](const auto& row) {
    return std::max(a, b) < row.size() && row[a] != 0 && row[a] == row[b];
  });
}

// Collective: every rank passes what it has examined.
Status test_locks(Collective& ranks, const ExaminedNode& mine, const SelfTestOptions& options,
                  Diagnosis& diagnosis) {
  // Rank 0's directories are the ones to test; a rank whose environment names fewer takes part in
  // all the same, and sees nothing.
  const std::size_t count = diagnosis.examined.front().directories.size();
  FVP_TRY(const std::vector<std::string> told, ranks.all_gather(devices_of(mine)));
  const Devices devices = devices_from(told);
  for (std::size_t i = 0; i < count; ++i) {
    TestedDirectory& tested = diagnosis.tested.emplace_back();
    tested.role = diagnosis.examined.front().directories[i].role;
    const auto known = std::find_if(
        diagnosis.tested.begin(), diagnosis.tested.end(), [&](const TestedDirectory& each) {
          const auto at = static_cast<std::size_t>(&each - diagnosis.tested.data());
          return at < i && !each.test.tried.empty() && alike(devices, at, i);
        });
    if (known != diagnosis.tested.end()) {
      tested.same_as = known->role;
      continue;
    }
    SelfTestPlace place;
    if (i < mine.directories.size()) {
      const ExaminedDirectory& directory = mine.directories[i];
      place = {directory.probe_base, directory.local};
    }
    FVP_TRY(tested.test, self_test(ranks, place, options));
    judge(diagnosis.findings, tested);
  }
  return {};
}

Status run(Collective& ranks, const Options& options, const DiagnoseOptions& how,
           Diagnosis& diagnosis) {
  // A second rank of a node examines it too, for its own eyes: it may take part in the self test.
  ExamineOptions looking;
  looking.patience = how.self_test.patience;
  looking.task = ranks.rank() == 0 ? NodeTask::kFetch : NodeTask::kUse;
  const bool looks = ranks.node_leader() || ranks.nodes() == 1;
  ExaminedNode mine;
  if (looks) mine = examine(options, ranks.node(), looking);
  const std::string line =
      ranks.node_leader()
          ? guard([&]() -> Result<std::string> { return to_json_line(mine); }).value_or("")
          : "";

  FVP_CHECK_OK(ranks.quiet_wait());
  FVP_TRY(const std::vector<std::string> told, ranks.all_gather(line));
  for (const std::string& text : told) {
    if (text.empty()) continue;
    FVP_TRY(ExaminedNode node, examined_from_json(text));  // the same text on every rank
    diagnosis.examined.push_back(std::move(node));
  }
  if (diagnosis.examined.empty()) return fail(ErrorCode::kInternal, "no node could be examined");
  if (how.locks == DiagnoseOptions::Locks::kLeave) return {};
  return test_locks(ranks, mine, how.self_test, diagnosis);
}

std::optional<Error> first_of(const std::vector<Finding>& findings, const std::string& node) {
  const auto it = std::find_if(findings.begin(), findings.end(), [](const Finding& finding) {
    return finding.severity == Severity::kFailure;
  });
  if (it == findings.end()) return std::nullopt;
  Error error = with_context(it->error, it->about);
  return node.empty() ? error : with_context(std::move(error), "on " + node);
}

}  // namespace

Diagnosis diagnose(Collective& ranks, const Options& options, const DiagnoseOptions& how) {
  Diagnosis diagnosis;
  diagnosis.ranks = ranks.size();
  diagnosis.nodes = ranks.nodes();
  diagnosis.findings = how.findings;
  const Status done = guard([&] { return run(ranks, options, how, diagnosis); });
  if (!done) {
    diagnosis.findings.push_back({Severity::kFailure, "self test", done.error()});
  }
  // The launcher's first, then node by node, then what shows between them.
  diagnosis.error = first_of(how.findings, "");
  for (const ExaminedNode& node : diagnosis.examined) {
    if (!diagnosis.error) diagnosis.error = first_of(node.findings, node.node);
  }
  if (!diagnosis.error) diagnosis.error = first_of(diagnosis.findings, "");
  return diagnosis;
}

}  // namespace fvprefetch
