// Who started this process: the launcher's daemon itself, a script or program inside a task, or a
// process that runs MPI. From /proc, before MPI_Init and without MPI.
//
// MPI_Init may be called once in a task: a second process of the same rank that calls it ends the
// job, its own or that of the program that comes after it. Environment variables do not tell, since
// every process below a task inherits them. What tells is the way up to the launcher:
//
//   parent                                       this process was started by
//   the launcher's daemon                        the launcher: kLauncher
//   a wrapper that runs one program (container   looked through: as if it were not there
//     runtime, timeout, `sh -c` of one command)
//   anything else (a script, Python)             kScript
//   ... and one of them maps an MPI library      kMpiProgram
//
// The daemon is known by its name; else by its environment, which lacks the rank that it gave to
// its child; by another user (slurmstepd is root's); or as the first process of a container.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/process.h"

namespace fvprefetch {

struct Starter {
  enum class Kind {
    kLauncher,
    kScript,     ///< a shell, an interpreter, or an orphan: its parent has ended
    kMpiProgram  ///< an ancestor inside the task runs MPI
  };
  Kind kind = Kind::kLauncher;
  /// "bash (pid 4242)": the process that makes the difference. Empty for kLauncher.
  std::string name;
  /// The task's first process: the launcher's direct child. This process itself, when it is that.
  ProcessInfo task;
  /// The launcher's daemon on this node, when it was found and can be looked at.
  std::optional<ProcessInfo> daemon;
};

/// `rank`: "NAME=value", the variable by which the launcher told this process its rank.
[[nodiscard]] Starter find_starter(const Processes& processes, std::string_view rank);

/// Standard input is the one that the launcher gave to the task: another process of the task, or of
/// another rank, may read it as well.
[[nodiscard]] bool has_standard_input_of_task(const Starter& starter);

/// `text`, as given to `sh -c`, is one simple command that names `program`, or a variable: no list,
/// pipeline, loop, substitution, or anything that runs other text.
[[nodiscard]] bool is_one_command(std::string_view text, std::string_view program);

/// The path of a library of that name is an MPI library's: libmpi.so.40, libmpich.so.12, ...
[[nodiscard]] bool is_mpi_library(std::string_view path);

}  // namespace fvprefetch
