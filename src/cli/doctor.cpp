#include "cli/doctor.h"

#include <utility>

#include "base/posix.h"

#ifndef FVPREFETCH_HAS_MPI
#define FVPREFETCH_HAS_MPI 0
#endif

namespace fvprefetch::cli {
namespace {

DiagnoseOptions options_of(const Invocation& call, const std::stop_token& stop) {
  DiagnoseOptions how;
  how.self_test.visible_timeout = call.options.visible_timeout;
  how.self_test.stop = stop;
  return how;
}

Finding about_launcher(Severity severity, Error error) {
  return {severity, "launcher", std::move(error)};
}

}  // namespace

std::unique_ptr<SecondProcess> second_process_for(const Invocation& call,
                                                  const EnvironmentLookup& env) {
  const Launch launch = launch_of_this_process(env, call.mpi, FVPREFETCH_HAS_MPI != 0);
  if (launch.mode == Launch::Mode::kMpi || launch.rank.value_or(0) != 0) return nullptr;
  Options options = call.options;
  options.environment = env;
  auto second = SecondProcess::start(posix::host_name(), [&](Collective& ranks) {
    (void)diagnose(ranks, options, options_of(call, {}));
  });
  return second ? *std::move(second) : nullptr;  // the table says that two are needed
}

Diagnosis examine_job(const Invocation& call, const Options& options, Result<Job>& job,
                      SecondProcess* second) {
  DiagnoseOptions how = options_of(call, options.stop);
  if (!job) {
    how.findings.push_back(about_launcher(Severity::kFailure, job.error()));
  } else {
    for (const std::string& notice : job->notices()) {
      Error error;
      error.code = ErrorCode::kOk;
      error.message = notice;
      how.findings.push_back(about_launcher(Severity::kWarning, std::move(error)));
    }
    // Without MPI each process looks at its own node; the locks are tried by the first alone.
    if (job->works_for_itself() && !job->is_first()) how.locks = DiagnoseOptions::Locks::kLeave;
  }
  const bool alone = !job || job->ranks().size() == 1;
  if (!alone) return diagnose(job->ranks(), options, how);

  const auto self = make_self_collective(posix::host_name());
  Diagnosis diagnosis = diagnose(second != nullptr ? second->ranks() : *self, options, how);
  diagnosis.ranks = 1;  // the second process is none of the job's
  return diagnosis;
}

}  // namespace fvprefetch::cli
