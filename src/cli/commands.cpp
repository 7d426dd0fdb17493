#include "cli/commands.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "base/clock.h"
#include "base/environment.h"
#include "base/posix.h"
#include "base/printable.h"
#include "base/try.h"
#include "cli/console.h"
#include "cli/diagnosis_json.h"
#include "cli/diagnosis_text.h"
#include "cli/doctor.h"
#include "cli/init_watch.h"
#include "cli/job.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/plan_json.h"
#include "cli/pruning_json.h"
#include "cli/signals.h"
#include "cli/staged.h"
#include "cli/text.h"
#include "cli/verification_json.h"
#include "cli/version.h"
#include "cluster/attended.h"
#include "cluster/distribute.h"
#include "cluster/file_barrier.h"
#include "cluster/scope.h"
#include "cluster/stage.h"
#include "prefetch/session.h"
#include "source/manifest_input.h"

namespace fvprefetch::cli {
namespace {

// What a process tells people on stderr.
enum class Speaker {
  kForTheJob,
  kForItself,  ///< its own errors, and what it waits for
  kSilent
};

/// Where results go: a descriptor of their own (take_standard_output()).
int results_fd = STDOUT_FILENO;
/// Ends a wait for the reader of the results, in a command that has Signals.
StopCheck stop_of_commands;

Manner manner_of(const Invocation& call, const Terminal& terminal, Speaker speaker,
                 const EnvironmentLookup& env) {
  Manner manner;
  manner.verbose = call.verbose;
  // A process that does not speak for the job says what it does only when asked to.
  manner.quiet = call.quiet || (speaker != Speaker::kForTheJob && !call.verbose);
  manner.waits = !call.quiet && speaker == Speaker::kForItself;
  switch (call.progress) {
    case ProgressWish::kAuto:
      manner.progress = terminal.interactive && !environment::without_progress_bars(env)
                            ? ProgressStyle::kBar
                            : ProgressStyle::kLog;
      break;
    case ProgressWish::kBar:
      manner.progress = ProgressStyle::kBar;
      break;
    case ProgressWish::kLog:
      manner.progress = ProgressStyle::kLog;
      break;
    case ProgressWish::kNone:
      manner.progress = ProgressStyle::kNone;
      break;
  }
  if (manner.quiet) manner.progress = ProgressStyle::kNone;
  return manner;
}

// Prints `text` and says so when that fails; the exit code is `code`, or the failure's when `code`
// is success.
int print(std::string_view text, int code, Console& console, const StopCheck& must_stop = {}) {
  console.clear_bar();
  const Status printed = write_results(results_fd, text, must_stop ? must_stop : stop_of_commands);
  if (printed) return code;
  console.error(printed.error());
  return code == 0 ? exit_code(printed.error().code) : code;
}

// Documents in JSON: what a terminal would not show is escaped, which changes nothing of them.
int print_json(std::string_view document, int code, Console& console,
               const StopCheck& must_stop = {}) {
  return print(escaped_json(document) + "\n", code, console, must_stop);
}

// Paths and settings, which scripts take as they are; a terminal gets what it can show.
int print_exact(std::string_view lines, int code, Console& console,
                const StopCheck& must_stop = {}) {
  if (::isatty(results_fd) == 0) return print(lines, code, console, must_stop);
  return print(escaped_lines(lines), code, console, must_stop);
}

// What people read.
int print_text(std::string_view text, int code, Console& console) {
  return print(escaped_lines(text), code, console);
}

bool is_first_rank(const Launch& launch) {
  return launch.rank.value_or(0) == 0;
}

// The end of a command that could not begin. Every process of the job comes here with the same
// error; those that print results say it.
int refuse(const Error& error, bool json, const EnvironmentLookup& env,
           PrintMode mode = PrintMode::kAuto) {
  const int code = exit_code(error.code);
  const Launch launch = launch_without_mpi(env);
  const bool first = is_first_rank(launch);
  if (!first && launch.by_launcher() && mode != PrintMode::kAll) return code;
  Console console(STDERR_FILENO, probe_terminal(STDERR_FILENO, env), {}, real_clock());
  if (json && prints_results(mode, launch, first)) {
    (void)write_results(results_fd, escaped_json(to_json(failed_report(error))) + "\n");
  }
  console.error(error);
  return code;
}

// Standard input and pipes are waited for as `options` say.
InputWait input_wait(const Options& options, Clock::TimePoint begin) {
  InputWait wait;
  wait.must_stop = [&options, begin] { return why_stop(options, begin, real_clock().now()); };
  wait.on_wait = [&options](const std::string& what, std::chrono::milliseconds waited) {
    if (options.observer != nullptr) options.observer->on_event(Waiting{what, waited});
  };
  return wait;
}

using ReadText = std::function<Result<std::string>()>;

Result<Manifest> manifest_of(const Invocation& call, const ReadText& read) {
  if (call.command == Command::kEnsure) {
    Entry entry;
    entry.name = call.name;
    entry.name_is_guessed = call.name_is_guessed;
    entry.source = call.target;
    entry.filename = call.filename;
    entry.revision = call.revision;
    FVP_CHECK_OK(validate(entry));
    return Manifest{"<command line>", {std::move(entry)}};
  }
  auto manifest = [&]() -> Result<Manifest> {
    FVP_TRY(const std::string text, read());
    return parse_manifest(text, manifest_origin(call.target));
  }();
  if (!manifest && manifest.error().code == ErrorCode::kNotFound && call.command_implied) {
    if (auto mistyped = mistyped_command(call.target)) return fail(*std::move(mistyped));
  }
  return manifest;
}

Result<Manifest> manifest_of(const Invocation& call, const InputWait& wait = {}) {
  return manifest_of(call, [&] { return read_manifest_text(call.target, wait); });
}

// What the library needs of the process that it works in; all three must outlive it.
Options options_of(const Invocation& call, Observer* observer, const EnvironmentLookup& env,
                   const Signals& signals) {
  Options options = call.options;
  options.observer = observer;
  options.environment = env;
  options.stop = signals.token();
  options.stop_signal = [&signals] { return signals.number(); };
  return options;
}

// `plan`, `status`, `verify`, `lock` and `prune` are the work of one process. Another rank that the
// launcher has started would only send the same requests again; it looks whether the manifest can
// be read, so as to end as rank 0 does then. nullopt: this process is the one.
std::optional<int> end_of_silent_rank(const Invocation& call, const EnvironmentLookup& env) {
  const Launch launch = launch_without_mpi(env);
  if (is_first_rank(launch) || !launch.by_launcher()) return std::nullopt;
  if (call.target == "-" || call.target.empty()) return 0;
  const auto manifest = manifest_of(call);
  return manifest ? 0 : exit_code(manifest.error().code);
}

int print_report(const Report& report, const Invocation& call, int code, Console& console,
                 const StopCheck& must_stop) {
  if (call.json) return print_json(to_json(report), code, console, must_stop);
  return print_exact(call.command == Command::kEnsure ? path_text(report) : results_text(report),
                     code, console, must_stop);
}

// What a process tells people: the first one for the job; one that works for itself its own errors,
// and on whom it waits.
Speaker speaker_of(const Job& job) {
  if (job.is_first()) return Speaker::kForTheJob;
  return job.works_for_itself() ? Speaker::kForItself : Speaker::kSilent;
}

// All that a run uses. It is left behind with a thread that does not end (run_attended()): then the
// process ends at once, and nothing of this is destroyed.
struct FetchRun {
  FetchRun(const Invocation& invocation, const EnvironmentLookup& environment)
      : call(invocation), env(environment) {}

  const Invocation& call;
  const EnvironmentLookup& env;
  const Clock::TimePoint begin = real_clock().now();
  Signals signals;  // before any other thread, MPI's included
  std::optional<Console> console;
  Options options;
  Manifest manifest;  // of the rank that works
  std::atomic<bool> of_another =
      false;  // without MPI: the report is another rank's, which speaks of it itself
  std::atomic<bool> took_over = false;  // without MPI: it did what rank 0 was expected to do

  // On the second thread of the rank that works.
  Report work(const Launch& launch) {
    InputWait wait = input_wait(options, begin);
    const bool of_launcher = call.target == "-" && has_standard_input_of_task(launch.starter);
    if (of_launcher && launch.rank.value_or(0) > 0) {
      // Its launcher may never end it (hydra), and rank 0 has no way to pass its own on.
      wait.must_stop = [this, within_time = wait.must_stop]() -> std::optional<Error> {
        if (auto stop = within_time()) return stop;
        if (real_clock().now() - begin < options.rank_timeout) return std::nullopt;
        return fail(ErrorCode::kNetwork, "this rank's standard input has no end",
                    "give the manifest's path, or pipe it into each process")
            .value();
      };
    }
    const auto read = [&] { return read_manifest_text(call.target, wait); };
    const bool shares_input = of_launcher && has_file_barrier(launch);
    auto loaded = manifest_of(call, [&]() -> Result<std::string> {
      return shares_input ? manifest_in_step(launch, options, read) : read();
    });
    if (!loaded) {
      fail_together(launch, options);
      return failed_report(loaded.error());
    }
    manifest = *std::move(loaded);
    if (!has_file_barrier(launch)) return prefetch(manifest, options);
    FileBarrierOptions how;
    how.visible_timeout = options.visible_timeout;
    how.on_take_over = [this, rank = launch.rank.value_or(0)] {
      took_over = true;
      console->speak_up();
      console->note("rank 0 did not come, or has ended: rank " + std::to_string(rank) +
                    " goes on by itself");
    };
    StepResult result = prefetch_in_step(manifest, options, launch, how);
    of_another = result.shared;
    return std::move(result.report);
  }
};

// A thread that was left behind uses what `owned` holds, and what static destructors destroy.
template <typename Owned>
int end_of(std::unique_ptr<Owned> owned, int code) {
  if (left_behind() == 0) return code;
  (void)owned.release();
  ::_exit(code);
}

// `fetch` and `ensure`.
int fetch(const Invocation& call, const EnvironmentLookup& env) {
  if (call.command == Command::kEnsure) {  // pure: the same on every rank, so no MPI is needed
    if (const auto entry = manifest_of(call); !entry) {
      return refuse(entry.error(), call.json, env, call.print);
    }
  }
  auto run = std::make_unique<FetchRun>(call, env);
  Signals& signals = run->signals;
  Options& options = run->options;
  const Terminal terminal = probe_terminal(STDERR_FILENO, env);
  options = options_of(call, nullptr, env, signals);
  auto job = Job::open(call, options, signals);
  if (!job) return refuse(job.error(), call.json, env, call.print);

  const Speaker speaker = speaker_of(*job);
  run->console.emplace(STDERR_FILENO, terminal, manner_of(call, terminal, speaker, env),
                       real_clock());
  Console& console = *run->console;
  if (speaker == Speaker::kForTheJob) {
    for (const std::string& notice : job->notices()) console.note(notice);
  }
  options.observer = &console;

  DistributeOptions distribution = distribute_options(options, run->begin);
  distribution.launcher = job->launch().launcher;
  distribution.attendance.vigil.on_signal = [&](int number) { signals.raise(number); };
  const StageOptions staging = stage_options(options, distribution.attendance);
  distribution.fill = [&](Report found) {
    return fill_own_caches(
        job->ranks(), std::move(found),
        [raw = run.get()]() -> const Manifest& { return raw->manifest; }, options, staging);
  };
  const Report shared = distribute(
      job->ranks(), [raw = run.get(), launch = job->launch()] { return raw->work(launch); },
      distribution);
  Report report = shared;
  if (!options.stage.empty()) {
    report = stage(
        job->ranks(), shared,
        [raw = run.get(), shared] { return stage_order(raw->manifest, raw->options, shared); },
        staging);
  }

  int code = exit_code(report.code());
  if (report.error && report.error->reason == kPeerLost) {
    console.error_line(*report.error, "rank " + std::to_string(job->ranks().rank()) + " on " +
                                          job->ranks().node());
    job->abort(code);
  }
  if (prints_results(call.print, job->launch(), job->is_first())) {
    // The others wait for this rank, whose reader may take its time.
    code = print_report(report, call, code, console, [&] {
      look_after(job->ranks(), distribution.attendance.vigil);
      return distribution.attendance.must_stop();
    });
  }
  if (speaker == Speaker::kForTheJob || run->took_over) {
    for (const std::string& line : failure_lines(report)) console.failure(line);
    if (!report.entries.empty()) console.note(summary_text(shared));
    for (const std::string& line : stage_lines(report)) console.note(line);
    if (report.error) console.error(*report.error);
  } else if (job->works_for_itself() && report.error &&
             (!run->of_another || !job->launch().by_launcher())) {
    // Told in full by the rank that speaks; a script has but what its own process says.
    console.error_line(*report.error, "rank " + std::to_string(job->launch().rank.value_or(0)) +
                                          " on " + posix::host_name());
  }
  auto ending = std::make_unique<Job>(*std::move(job));
  // A stdout that failed on one rank is everybody's failure.
  if (const Status met = ending->ranks().await_work(distribution.attendance.vigil); met) {
    const WaitLimit limit(ending->ranks(), options.rank_timeout);
    code = ending->ranks().max(code).value_or(code);
  } else if (met.error().reason == kPeerLost) {
    code = exit_code(met.error().code);
    console.error_line(met.error(), "rank " + std::to_string(ending->ranks().rank()) + " on " +
                                        ending->ranks().node());
    ending->abort(code);
  }
  if (ending->ranks().size() > 1) {
    const Launch launch = ending->launch();
    const InitWatch watch(launch, options, signals, call.quiet, InitWatch::Call::kFinalize);
    ending.reset();
  }
  return end_of(std::move(run), code);
}

// How `plan`, `status` and `verify` end: the exit code.
int tell_plan(const Plan& found, const Invocation& call, Console& console) {
  const bool planning = call.command == Command::kPlan;
  const int failed = found.error ? exit_code(found.error->code) : 0;
  const int code =
      call.json ? print_json(plan_to_json(found, planning ? "plan" : "status"), failed, console)
                : print_text(planning ? plan_text(found, call.verbose) : status_text(found), failed,
                             console);
  if (found.error) console.error(*found.error);
  return code;
}

int tell_verification(const Verification& found, const Invocation& call, Console& console) {
  const int failed = exit_code(found.code());
  const int code = call.json ? print_json(verification_to_json(found), failed, console)
                             : print_text(verification_text(found, call.verbose), failed, console);
  if (!found.entries.empty()) console.note(verification_summary(found));
  for (const std::string& line : failure_lines(found)) console.failure(line);
  if (found.repair && !found.repair->entries.empty()) {
    console.note("repair: " + summary_text(*found.repair));
  }
  if (found.error) console.error(*found.error);
  return code;
}

// What a command has that one rank does for all.
struct Alone {
  Alone(const Invocation& call, const EnvironmentLookup& env)
      : terminal(probe_terminal(STDERR_FILENO, env)),
        console(STDERR_FILENO, terminal, manner_of(call, terminal, Speaker::kForTheJob, env),
                real_clock()),
        options(options_of(call, &console, env, signals)) {
    stop_of_commands = [this] { return why_stop(options, begin, real_clock().now()); };
  }
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;
  ~Alone() { stop_of_commands = nullptr; }

  [[nodiscard]] Result<Manifest> manifest(const Invocation& call) const {
    return manifest_of(call, input_wait(options, begin));
  }
  /// `work` on a second thread, so that a signal ends it whatever it is doing.
  template <typename Work>
  [[nodiscard]] auto run(Work work) const {
    Attendance attendance;
    attendance.must_stop = [this] { return why_stop(options, begin, real_clock().now()); };
    const auto self = make_self_collective({});
    return attended(*self, attendance, std::move(work));
  }

  const Clock::TimePoint begin = real_clock().now();
  const Signals signals;
  const Terminal terminal;
  Console console;
  const Options options;  // last: refers to the others
};

// `plan`, `status` and `verify`.
int inspect(const Invocation& call, Alone& alone) {
  Console& console = alone.console;
  const Options& options = alone.options;

  const auto manifest = alone.manifest(call);
  if (call.command == Command::kVerify) {
    Verification found;
    if (manifest) {
      auto done = alone.run([manifest = *manifest, &options]() -> Result<Verification> {
        return verify(manifest, options);
      });
      if (done) {
        found = *std::move(done);
      } else {
        found.error = done.error();
      }
    } else {
      found.error = manifest.error();
    }
    return tell_verification(found, call, console);
  }
  if (!manifest) return tell_plan(Plan{{}, manifest.error()}, call, console);
  const bool planning = call.command == Command::kPlan;
  const auto done = alone.run([manifest = *manifest, &options, planning]() -> Result<Plan> {
    return planning ? plan(manifest, options) : status(manifest, options);
  });
  return tell_plan(done ? *done : Plan{{}, done.error()}, call, console);
}

// A reader finds the old file or the new one, whole; an old one hands its mode on.
Status replace_whole(const std::string& path, std::string_view text,
                     const std::optional<posix::FileInfo>& before) {
  const std::string name = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
  const std::string temp =
      posix::parent(path) + "/." + name + "." + posix::random_tag() + ".fvprefetch-part";
  const auto write = [&]() -> Status {
    FVP_TRY(posix::Fd fd, posix::create_private(temp));
    if (before) (void)::fchmod(fd.get(), before->mode);  // best effort: else it has a new file's
    FVP_CHECK_OK(posix::write_at(fd, 0, std::as_bytes(std::span(text)), temp));
    FVP_CHECK_OK(posix::publish(std::move(fd), temp, path));
    return {};
  };
  Status written = write();
  if (written) return written;
  (void)posix::remove_file(temp);  // best effort: the error that matters is the first one
  std::string& hint = written.error().hint;
  if (hint.empty()) hint = "say where to write with --output FILE";
  return written;
}

// A device, or a FIFO, whose reader may still come.
Status write_through(const std::string& path, std::string_view text) {
  constexpr auto kPause = std::chrono::milliseconds(100);
  for (;;) {
    const posix::Fd fd(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (fd) return write_results(fd.get(), text, stop_of_commands);
    const int number = errno;
    std::error_code ignored;
    if (number == ENXIO && !std::filesystem::is_fifo(path, ignored)) {
      return fail(ErrorCode::kUsage, "`" + path + "` is a socket, expected a file to write",
                  "say which with --output FILE");
    }
    if (number != ENXIO) {
      return fail(posix::errno_error(number, "write to", path));
    }
    if (stop_of_commands) {
      if (auto stop = stop_of_commands()) return fail(*std::move(stop));
    }
    real_clock().sleep_until(real_clock().now() + kPause, {});
  }
}

// The descriptor of ours that `path` is a name of (/dev/stdout), maybe by links.
std::optional<int> descriptor_named(std::string path) {
  constexpr int kMostLinks = 40;
  for (int i = 0; i < kMostLinks; ++i) {
    if (path == "/dev/stdout") return STDOUT_FILENO;
    if (path == "/dev/stderr") return STDERR_FILENO;
    for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
      int number = -1;
      const char* const end = path.data() + path.size();
      if (path.starts_with(folder) &&
          std::from_chars(path.data() + folder.size(), end, number).ptr == end) {
        return number;
      }
    }
    const auto target = posix::read_link(path);
    if (!target) break;
    path = target->starts_with('/') ? *target : posix::parent(path) + "/" + *target;
  }
  return std::nullopt;
}

Status write_whole(const std::string& path, std::string_view text) {
  if (const auto number = descriptor_named(path)) {
    return write_results(*number, text, stop_of_commands);
  }
  FVP_TRY(const auto there, posix::stat(path));
  if (there && there->directory) {
    return fail(ErrorCode::kUsage, "`" + path + "` is a directory, expected a file to write",
                "say which with --output FILE");
  }
  if (there && !there->regular) return write_through(path, text);
  // A link stays, and what it leads to is replaced.
  const std::string real = posix::is_link(path) ? posix::real_path(path) : path;
  if (!posix::exists(posix::parent(real))) {  // a name that was mistyped is no wish for a folder
    return fail(ErrorCode::kNotFound, "there is no folder " + posix::parent(real),
                "say where to write with --output FILE");
  }
  return replace_whole(real, text, there);
}

// Where `lock` writes; "-" is stdout.
std::string output_of(const Invocation& call) {
  if (call.output.empty()) return lock_path(call.target);
  return descriptor_named(call.output) == STDOUT_FILENO ? "-" : call.output;
}

// `lock`.
int lock_manifest(const Invocation& call, Alone& alone) {
  Console& console = alone.console;
  const Options& options = alone.options;

  const std::string path = output_of(call);
  const auto locked = [&]() -> Result<Manifest> {
    FVP_TRY(const Manifest manifest, alone.manifest(call));
    FVP_TRY(Manifest pinned, alone.run([manifest, &options] { return lock(manifest, options); }));
    if (path != "-") FVP_CHECK_OK(write_whole(path, manifest_text(pinned)));
    return pinned;
  }();
  if (!locked) {
    if (call.json) (void)print_json(to_json(failed_report(locked.error())), 0, console);
    console.error(locked.error());
    return exit_code(locked.error().code);
  }
  if (path == "-") return print(manifest_text(*locked), 0, console);
  const nlohmann::ordered_json out{
      {"schema", 1}, {"command", "lock"}, {"path", path}, {"entries", locked->entries.size()}};
  const int code =
      call.json
          ? print_json(out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace), 0,
                       console)
          : print_exact(path + "\n", 0, console);
  console.note(lock_summary(*locked, path));
  return code;
}

// `prune`.
int clean_up(const Invocation& call, Alone& alone) {
  Console& console = alone.console;
  const Options& options = alone.options;

  auto pruned = alone.run([&]() -> Result<Pruning> {
    if (call.target.empty()) return prune(options);
    FVP_TRY(const Manifest manifest, alone.manifest(call));
    return prune(manifest, options);
  });
  Pruning done;
  if (pruned) {
    done = *std::move(pruned);
  } else {
    done.dry_run = options.dry_run;
    done.error = pruned.error();
  }
  const int failed = exit_code(done.code());
  const int code = call.json ? print_json(pruning_to_json(done), failed, console)
                             : print_exact(pruning_text(done), failed, console);
  if (!done.error || !done.files.empty()) console.note(pruning_summary(done));
  for (const std::string& line : failure_lines(done)) console.failure(line);
  if (done.error) console.error(*done.error);
  return code;
}

// The commands that one rank does for all.
int run_alone(const Invocation& call, const EnvironmentLookup& env) {
  if (const auto code = end_of_silent_rank(call, env)) return *code;
  auto alone = std::make_unique<Alone>(call, env);
  int code = 0;
  if (call.command == Command::kLock) {
    code = lock_manifest(call, *alone);
  } else if (call.command == Command::kPrune) {
    code = clean_up(call, *alone);
  } else {
    code = inspect(call, *alone);
  }
  return end_of(std::move(alone), code);
}

// Read once: it may be a pipe. nullopt: none is given.
Result<std::optional<Manifest>> manifest_of_exports(const Invocation& call) {
  if (call.target.empty()) return std::nullopt;
  FVP_TRY(Manifest manifest, manifest_of(call));
  return manifest;
}

// What `env` prints and `exec` sets. A mistake in the manifest had better show here than in the
// job.
Result<StagedVariables> exports_of(const std::optional<Manifest>& manifest, const Invocation& call,
                                   const EnvironmentLookup& env) {
  const Options& given = call.options;
  if (const Status here = posix::check_working_directory(); !here) {
    for (const std::string& path : {environment::eval_cache(env, given.cache_dir),
                                    environment::hub_cache(env, given.hf_cache_dir),
                                    environment::torch_home(env).value_or("/")}) {
      if (!path.starts_with('/')) return fail(here.error());
    }
  }
  if (!manifest || given.stage.empty()) return StagedVariables{job_variables(env, given), {}};
  Options options = given;
  options.environment = env;
  return staged_variables(*manifest, env, options);
}

void tell_notices(const StagedVariables& exports, const Invocation& call, Console& console) {
  if (call.quiet) return;
  for (const std::string& notice : exports.notices) console.note(notice);
}

// `env`: as everywhere, of the ranks that the launcher has started only the first prints.
int exports(const Invocation& call, const EnvironmentLookup& env) {
  Console console(STDERR_FILENO, probe_terminal(STDERR_FILENO, env), {}, real_clock());
  const auto manifest = manifest_of_exports(call);
  if (!manifest) return refuse(manifest.error(), call.json, env, call.print);
  const auto found = exports_of(*manifest, call, env);
  if (!found) return refuse(found.error(), call.json, env, call.print);
  const Launch launch = launch_without_mpi(env);
  if (!prints_results(call.print, launch, is_first_rank(launch))) return 0;
  tell_notices(*found, call, console);
  const Variables& variables = found->variables;
  if (!call.json) return print_exact(exports_text(variables), 0, console);
  nlohmann::ordered_json out{{"schema", 1}, {"variables", nlohmann::ordered_json::object()}};
  for (const auto& [name, value] : variables) out["variables"][name] = value;
  return print_json(out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace), 0,
                    console);
}

// What the program will find in the shared caches and may not open. What is missing there it may
// not even want.
Status may_open_all(const std::optional<Manifest>& manifest, const Invocation& call,
                    const EnvironmentLookup& env) {
  if (!manifest || !call.options.stage.empty()) return {};
  Options options = call.options;
  options.environment = env;
  options.offline = true;
  const Plan there = status(*manifest, options);
  if (there.error && there.error->code == ErrorCode::kPermission) return fail(*there.error);
  return {};
}

// `exec`: returns only when the program cannot be run, with env(1)'s codes.
int execute(const Invocation& call, const EnvironmentLookup& env) {
  constexpr int kCannotRun = 126;
  constexpr int kNotFound = 127;
  const auto manifest = manifest_of_exports(call);
  if (!manifest) return refuse(manifest.error(), /*json=*/false, env);
  const auto found = exports_of(*manifest, call, env);
  if (!found) return refuse(found.error(), /*json=*/false, env);
  {
    Console console(STDERR_FILENO, probe_terminal(STDERR_FILENO, env), {}, real_clock());
    const Launch launch = decide_launch(env, MpiWish::kOff, false);
    // Nodes may differ in what they have; the processes of one node do not.
    if (launch.local_rank.value_or(launch.rank.value_or(0)) == 0) {
      tell_notices(*found, call, console);
      const Status open = may_open_all(*manifest, call, env);
      if (!open) return refuse(open.error(), /*json=*/false, env);
    }
  }
  for (const auto& [name, value] : found->variables) {
    (void)::setenv(name.c_str(), value.c_str(), /*overwrite=*/1);
  }
  std::vector<std::string> words = call.program;
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  (void)::execvp(arguments.front(), arguments.data());

  const int failed = errno;
  Console console(STDERR_FILENO, probe_terminal(STDERR_FILENO, env), {}, real_clock());
  Error error;
  error.code = ErrorCode::kUsage;
  error.message =
      "cannot run `" + call.program.front() + "`: " + std::generic_category().message(failed);
  error.hint = "check the name and PATH of what stands after --";
  console.error(error);
  return failed == ENOENT ? kNotFound : kCannotRun;
}

// `doctor`.
int diagnose_job(const Invocation& call, const EnvironmentLookup& env) {
  const auto second = second_process_for(call, env);  // before the first thread
  const Signals signals;
  Options options = options_of(call, nullptr, env, signals);
  auto job = Job::open(call, options, signals);
  const Launch launch = job ? job->launch() : launch_without_mpi(env);
  const bool first = job ? job->is_first() : is_first_rank(launch);
  const bool speaks = first || !launch.by_launcher();
  const Terminal terminal = probe_terminal(STDERR_FILENO, env);
  Console console(STDERR_FILENO, terminal,
                  manner_of(call, terminal, speaks ? Speaker::kForTheJob : Speaker::kSilent, env),
                  real_clock());
  options.observer = &console;
  if (job && job->ranks().nodes() > 1) {
    console.note("trying locks between the nodes; over NFS that takes a minute");
  }
  Diagnosis found = examine_job(call, options, job, second.get());
  if (signals.token().stop_requested()) found.error = interrupted(signals.number());
  int code = exit_code(found.code());
  if (speaks) {
    const Start start{launch, job ? job->mpi_library() : ""};
    if (prints_results(call.print, launch, first)) {
      code = call.json ? print_json(diagnosis_to_json(found, start), code, console)
                       : print_text(diagnosis_text(found, start), code, console);
    }
    if (found.error) console.error(*found.error);
  } else if (job && job->works_for_itself() && found.error) {
    console.error_line(*found.error, "rank " + std::to_string(job->launch().rank.value_or(0)) +
                                         " on " + posix::host_name());
  }
  return job ? job->ranks().max(code).value_or(code) : code;
}

// Texts that depend on nothing; from the launcher's own processes once is enough.
int say(std::string_view text, const EnvironmentLookup& env) {
  const Launch launch = launch_without_mpi(env);
  if (!prints_results(PrintMode::kAuto, launch, is_first_rank(launch))) return 0;
  Console console(STDERR_FILENO, probe_terminal(STDERR_FILENO, env), {}, real_clock());
  const bool ends = text.empty() || text.back() == '\n';
  return print(std::string(text) + (ends ? "" : "\n"), 0, console);
}

}  // namespace

int run(const std::vector<std::string>& arguments) {
  ensure_standard_descriptors();
  const EnvironmentLookup env = environment::or_process({});
  const auto call = parse_arguments(arguments, env);
  if (!call) {
    Error error = call.error();
    error.message = escaped(error.message);  // what somebody has typed or set; one line
    const auto ours = std::find(arguments.begin(), arguments.end(), "--");  // not `exec`'s CMD
    const bool json = std::find(arguments.begin(), ours, "--json") != ours;
    return refuse(error, json, env);
  }
  posix::Fd results;
  if (call->command != Command::kExec) {  // CMD inherits descriptor 1
    // Then a write beyond `ulimit -f` fails, and the error says so.
    (void)std::signal(SIGXFSZ, SIG_IGN);
    results = take_standard_output();
    if (results) results_fd = results.get();
  }
  switch (call->command) {
    case Command::kFetch:
    case Command::kEnsure:
      return fetch(*call, env);
    case Command::kPlan:
    case Command::kStatus:
    case Command::kVerify:
    case Command::kLock:
    case Command::kPrune:
      return run_alone(*call, env);
    case Command::kEnv:
      return exports(*call, env);
    case Command::kExec:
      return execute(*call, env);
    case Command::kDoctor:
      return diagnose_job(*call, env);
    case Command::kSchema:
      return say(manifest_schema(), env);
    case Command::kHelp:
      return say(call->help, env);
    case Command::kVersion:
      return say(std::string("fvprefetch ") + program_version(), env);
  }
  return exit_code(ErrorCode::kInternal);
}

}  // namespace fvprefetch::cli
