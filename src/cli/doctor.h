// `fvprefetch doctor`: what stands in the way of a job on these nodes.
#pragma once

#include <memory>

#include "cli/job.h"
#include "cli/options.h"
#include "cluster/diagnose.h"
#include "cluster/second_process.h"

namespace fvprefetch::cli {

/// The other process that a lock is tested with by one that is alone. nullptr where MPI may bring
/// one, where this process is not the one that tests, or when none can be had. Before any thread:
/// it forks.
[[nodiscard]] std::unique_ptr<SecondProcess> second_process_for(const Invocation& call,
                                                                const EnvironmentLookup& env);

/// Collective. `job` may be the error of a job that could not begin; then, and when the job is this
/// process alone, `second` is used if there is one.
[[nodiscard]] Diagnosis examine_job(const Invocation& call, const Options& options,
                                    Result<Job>& job, SecondProcess* second);

}  // namespace fvprefetch::cli
