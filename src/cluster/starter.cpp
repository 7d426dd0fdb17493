#include "cluster/starter.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <vector>

#include "base/posix.h"

namespace fvprefetch {
namespace {

// Names are cut to 15 bytes by the kernel. Debian adds the MPI's name: mpirun.openmpi.
constexpr std::array<std::string_view, 17> kLaunchers{
    "slurmstepd",  // Slurm
    "mpirun",
    "mpiexec",
    "orterun",
    "orted",  // Open MPI 4
    "prterun",
    "prted",
    "prte",  // Open MPI 5
    "hydra_pmi_proxy",
    "hydra_bstrap_pr",
    "hydra_nameserve",  // MPICH, Intel MPI
    "palsd",
    "apinit",  // Cray
    "flux-shell",
    "jsmd",
    "psid",
    "mpispawn"};  // Flux, LSF, ParaStation, MVAPICH

// Programs that start one other program and wait for it. (env, nice, numactl, taskset and the like
// exec it, and are not seen at all.)
constexpr std::array<std::string_view, 30> kWrappers{
    "apptainer", "singularity", "starter",   "starter-suid", "appinit",     "sinit",
    "podman",    "docker",      "conmon",    "crun",         "runc",        "docker-init",
    "tini",      "dumb-init",   "catatonit", "bwrap",        "ch-run",      "shifter",
    "sarus",     "enroot",      "unshare",   "nsenter",      "timeout",     "time",
    "strace",    "ltrace",      "perf",      "setsid",       "systemd-run", "nsys"};

constexpr std::array<std::string_view, 8> kShells{"sh",  "bash", "dash", "ash",
                                                  "ksh", "mksh", "zsh",  "busybox"};

template <std::size_t N>
bool is_one_of(std::string_view name, const std::array<std::string_view, N>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_launcher(std::string_view name) {
  const std::string_view stem = name.substr(0, name.find('.'));
  const std::string_view suffix = name.substr(stem.size());
  constexpr std::array<std::string_view, 5> kOfAnMpi{"", ".openmpi", ".mpich", ".hydra", ".orte"};
  return is_one_of(stem, kLaunchers) && is_one_of(suffix, kOfAnMpi);
}

// `sh -c TEXT`, `bash -lc TEXT`, `bash -c -e -- TEXT`: the shell does nothing but run one command.
// (Most shells exec that, and are not seen at all.)
bool runs_one_command(const std::vector<std::string>& arguments, std::string_view program) {
  bool has_text = false;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (argument.empty() || argument[0] != '-') {
      return has_text && is_one_command(argument, program);
    }
    if (argument.size() > 1 && argument[1] != '-') {
      has_text = has_text || argument.find('c') != std::string_view::npos;
    }
  }
  return false;
}

bool is_looked_through(const Processes& processes, const ProcessInfo& process,
                       std::string_view program) {
  if (is_one_of(process.command, kWrappers)) return true;
  return is_one_of(process.command, kShells) &&
         runs_one_command(processes.arguments(process.pid), program);
}

std::string name_of(const ProcessInfo& process) {
  return process.command + " (pid " + std::to_string(process.pid) + ")";
}

bool runs_mpi(const Processes& processes, std::int64_t pid) {
  const auto files = processes.mapped_files(pid);
  return std::any_of(files.begin(), files.end(), is_mpi_library);
}

}  // namespace

bool has_standard_input_of_task(const Starter& starter) {
  if (starter.task.pid == 0 || starter.task.pid == real_processes().self()) return true;
  const auto ours = posix::stat("/proc/self/fd/0");
  const auto its = posix::stat("/proc/" + std::to_string(starter.task.pid) + "/fd/0");
  return ours && *ours && its && *its && (*ours)->device == (*its)->device &&
         (*ours)->inode == (*its)->inode;
}

bool is_mpi_library(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
  constexpr std::array<std::string_view, 5> kNames{"libmpi", "libmpich", "libmpicxx", "libpmpi",
                                                   "libmpi_abi"};
  return std::any_of(kNames.begin(), kNames.end(), [&](std::string_view library) {
    if (!name.starts_with(library)) return false;
    // libmpi.so.40, libmpi_cray.so.12 and libmpich-3.so, but not libmpiwrapper_of_something.so
    const std::string_view rest = name.substr(library.size());
    return rest.starts_with(".so") || rest.starts_with("_cray") || rest.starts_with("_gnu") ||
           rest.starts_with("_intel") || rest.starts_with("_nvidia") || rest.starts_with('-');
  });
}

bool is_one_command(std::string_view text, std::string_view program) {
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && quote != '\'') {
      ++i;
      continue;
    }
    const bool substitutes =
        quote != '\'' && (c == '`' || (c == '$' && i + 1 < text.size() && text[i + 1] == '('));
    const bool redirects = c == '&' && i > 0 && (text[i - 1] == '>' || text[i - 1] == '<');  // 2>&1
    const bool separates =
        quote == 0 && !redirects && std::string_view(";&|\n(){}").find(c) != std::string_view::npos;
    if (substitutes || separates) return false;
    if (quote != 0) {
      if (c == quote) quote = 0;
    } else if (c == '\'' || c == '"') {
      quote = c;
    }
  }
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return false;
  const std::string_view first = text.substr(begin, text.find_first_of(" \t", begin) - begin);
  // A function, a file or a text of its own may hold anything.
  constexpr std::array<std::string_view, 13> kKeywords{
      "if", "for",    "while", "until", "case",     "!",     "select",
      ".",  "source", "eval",  "trap",  "function", "coproc"};
  const bool is_variable = first.starts_with('$') || first.starts_with("\"$");
  if (!is_variable && text.find(program) == std::string_view::npos) return false;
  return !is_one_of(first, kKeywords);
}

Starter find_starter(const Processes& processes, std::string_view rank) {
  Starter starter;
  const auto self = processes.info(processes.self());
  if (!self) return starter;  // a /proc that does not show even us: as the launcher has it
  starter.task = *self;
  std::string script;
  std::string program;
  constexpr int kDeepest = 100;
  for (int level = 0; level < kDeepest && starter.task.parent != 0; ++level) {
    const auto process = processes.info(starter.task.parent);
    const bool first_of_all = starter.task.parent == 1;
    if (process && is_launcher(process->command)) {
      starter.daemon = process;
      break;
    }
    const bool wrapper = process && is_looked_through(processes, *process, self->command);
    if (!wrapper) {
      bool outside = !process || process->other_user;
      if (process && !outside) {
        const auto variables = processes.environment(process->pid);
        outside =
            variables && std::find(variables->begin(), variables->end(), rank) == variables->end();
      }
      if (outside) {
        // The host's first process adopts what has lost its parent.
        if (first_of_all && script.empty()) {
          script = process ? name_of(*process) : "pid 1";
        }
        break;
      }
      if (script.empty()) script = name_of(*process);
      if (program.empty() && runs_mpi(processes, process->pid)) program = name_of(*process);
    }
    starter.task = *process;
  }
  if (!program.empty()) {
    starter.kind = Starter::Kind::kMpiProgram;
    starter.name = program;
  } else if (!script.empty()) {
    starter.kind = Starter::Kind::kScript;
    starter.name = script;
  }
  return starter;
}

}  // namespace fvprefetch
