#include "cli/diagnosis_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/printable.h"
#include "cli/text.h"

namespace fvprefetch::cli {
namespace {

std::string row(std::string_view left, std::string_view right) {
  return fmt::format("  {:<13} {}\n", left, right);
}
// More about the row above.
std::string below(std::string_view text) {
  return row("", text);
}

std::string finding_text(const Finding& finding) {
  std::string out =
      below(fmt::format("{}: {}", finding.severity == Severity::kFailure ? "FAILS" : "warning",
                        describe(finding.error)));
  if (const auto advice = hint(finding.error); !advice.empty()) {
    out += below(fmt::format("hint: {}", advice));
  }
  return out;
}

std::string findings_about(const std::vector<Finding>& findings, std::string_view about) {
  std::string out;
  for (const Finding& finding : findings) {
    if (finding.about == about) out += finding_text(finding);
  }
  return out;
}

std::string launcher_text(const Diagnosis& diagnosis, const Start& start) {
  std::string how = start.launch.launcher == "none" ? "no launcher" : start.launch.launcher;
  how += fmt::format(", {} on {}",
                     count_text(static_cast<std::uint64_t>(diagnosis.ranks), "rank", "ranks"),
                     count_text(static_cast<std::uint64_t>(diagnosis.nodes), "node", "nodes"));
  if (start.launch.mode == Launch::Mode::kLockOnly) {
    how += fmt::format("; this is one of {} processes, each of which works for itself",
                       start.launch.size ? std::to_string(*start.launch.size) : "several");
  }
  return row("launcher", how) + findings_about(diagnosis.findings, "launcher") +
         row("MPI", !start.mpi_library.empty()                  ? start.mpi_library
                    : start.launch.mode == Launch::Mode::kAlone ? "not needed by one process"
                                                                : "not used");
}

// overlayfs lists all of its layers.
std::string shortened(const std::string& options) {
  constexpr std::size_t kMost = 160;
  return options.size() <= kMost ? options : options.substr(0, kMost) + "...";
}

// --- A node -------------------------------------------------------------------------------------

std::string directory_text(const ExaminedDirectory& directory,
                           const std::vector<Finding>& findings) {
  std::string out = row(directory.role, directory.path.empty() ? "?" : directory.path);
  if (directory.real_path != directory.path && !directory.real_path.empty()) {
    out += below("which is " + directory.real_path);
  }
  if (!directory.exists && !directory.examined.empty()) {
    out +=
        below(fmt::format("does not exist yet; of {}, where it will be made:", directory.examined));
  }
  std::string facts;
  if (directory.rights) {
    const posix::Rights& rights = *directory.rights;
    facts = fmt::format("{}, {} {}:{}",
                        rights.write  ? "writable"
                        : rights.read ? "readable only"
                                      : "not readable",
                        rights.mode, rights.owner, rights.group);
  }
  if (directory.space && directory.space->bytes_total > 0) {
    const posix::Space& space = *directory.space;
    facts += fmt::format("{}{} of {} free", facts.empty() ? "" : "; ", bytes_text(space.bytes_free),
                         bytes_text(space.bytes_total));
    if (space.files_total > 0) facts += fmt::format(", {} inodes free", space.files_free);
  }
  if (!facts.empty()) out += below(facts);
  if (directory.mount) {
    out +=
        below(fmt::format("{} from {} on {} ({})", directory.mount->type, directory.mount->source,
                          directory.mount->point, shortened(directory.mount->options)));
  }
  return out + findings_about(findings, directory.role);
}

std::string node_text(const ExaminedNode& node) {
  std::string out;
  for (const ExaminedDirectory& directory : node.directories) {
    out += directory_text(directory, node.findings);
  }
  out += row("token", node.token_from.empty() ? "none: gated and private repositories are refused"
                                              : "there is one, from " + node.token_from);
  out += findings_about(node.findings, "token");
  out += findings_about(node.findings, "limits");
  out += row("endpoint", node.endpoint + (node.offline ? " (offline: nothing is asked)" : ""));
  out += findings_about(node.findings, "endpoint");
  std::string proxies;
  for (const environment::Setting& proxy : node.proxies) {
    proxies += fmt::format("{}{}={}", proxies.empty() ? "" : ", ", proxy.name, proxy.value);
  }
  out += row("proxy", proxies.empty() ? "none" : proxies);
  if (!node.no_proxy.empty()) out += below("not for " + node.no_proxy);
  std::string trust = node.certificate_file;
  if (!node.certificate_directory.empty()) {
    trust += (trust.empty() ? "" : ", ") + node.certificate_directory;
  }
  out += row("certificates", trust.empty() ? "none found" : trust);
  out += findings_about(node.findings, "certificates");
  return out + findings_about(node.findings, "examination");
}

// Tables of nodes, those that are equal once, with the nodes' names.
std::string nodes_text(const std::vector<ExaminedNode>& nodes) {
  std::vector<std::pair<std::string, std::vector<std::string>>> groups;
  for (const ExaminedNode& node : nodes) {
    const std::string text = node_text(node);
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& each) { return each.first == text; });
    if (group == groups.end()) group = groups.insert(group, {text, {}});
    group->second.push_back(node.node);
  }
  std::string out;
  for (const auto& [text, names] : groups) {
    out += fmt::format("\non {}{}\n{}",
                       names.size() > 1 ? fmt::format("{} nodes: ", names.size()) : "",
                       fmt::join(names, ", "), text);
  }
  return out;
}

// --- Locks --------------------------------------------------------------------------------------

std::string shown_text(const std::optional<std::chrono::milliseconds>& time,
                       std::chrono::milliseconds waited_for) {
  if (!time) return "not within " + duration_text(waited_for);
  return time->count() < 100 ? fmt::format("{} ms", time->count()) : duration_text(*time);
}

std::string locks_text(const TestedDirectory& tested) {
  const SelfTest& test = tested.test;
  if (!tested.same_as.empty()) {
    return fmt::format("\nlocks of the {}: on the same file system as the {}\n", tested.role,
                       tested.same_as);
  }
  std::string out = fmt::format("\nlocks of the {}, in {}", tested.role, test.directory);
  if (test.tried.empty()) {
    return out + fmt::format("\n{}", row("not tested", test.not_run));
  }
  out += fmt::format(", between {}\n", test.between_nodes
                                           ? fmt::format("{}", fmt::join(test.parties, ", "))
                                           : "two processes of this host");
  for (const TriedPrimitive& tried : test.tried) {
    out += row(name(tried.primitive),
               fmt::format("{:<17} {}", name(tried.verdict),
                           tried.detail.empty()
                               ? fmt::format("a try takes at most {} ms", tried.slowest_try.count())
                               : tried.detail));
  }
  out += row("a new name",
             fmt::format("shows after {}; to who had looked before and does not look afresh: {}",
                         shown_text(test.shows_afresh, test.waited_for),
                         shown_text(test.shows_again, test.waited_for)));
  out += row("--lock auto", "relies on " + relied_on(test));
  return out;
}

}  // namespace

std::string diagnosis_text(const Diagnosis& diagnosis, const Start& start) {
  std::string out = launcher_text(diagnosis, start) + nodes_text(diagnosis.examined);
  for (const TestedDirectory& tested : diagnosis.tested) {
    out += locks_text(tested) + findings_about(diagnosis.findings, tested.role);
  }
  out += findings_about(diagnosis.findings, "self test");
  const auto& tested = diagnosis.tested;
  if (std::none_of(tested.begin(), tested.end(),
                   [](const TestedDirectory& each) { return each.test.between_nodes; })) {
    out +=
        "\nWhat two processes of one host see proves nothing about other nodes. To try between "
        "nodes:\n  srun -N2 fvprefetch doctor          mpirun -n 2 --map-by node fvprefetch "
        "doctor\n";
  }
  return escaped_lines(out);  // paths and mounts may have anything in them
}

}  // namespace fvprefetch::cli
