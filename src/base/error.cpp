#include "fvprefetch/error.h"

#include <algorithm>
#include <array>
#include <csignal>

namespace fvprefetch {
namespace {

struct Row {
  ErrorCode code;
  std::string_view name;
  bool retryable;
  std::string_view hint;
};

// The public table of exit codes. Numbers and names never change; rows are only added.
constexpr std::array kTable = {
    Row{ErrorCode::kOk, "ok", false, ""},
    Row{ErrorCode::kInternal, "internal", false,
        "if it happens again, report it with the command and its output"},
    Row{ErrorCode::kUsage, "usage", false, "see `fvprefetch --help` and `fvprefetch schema`"},
    Row{ErrorCode::kPartial, "partial", true,
        "everything required is there; the report names the optional entries that failed"},
    Row{ErrorCode::kAccess, "access", false,
        "set HF_TOKEN to a token that may read it; a gated repository also wants its licence "
        "accepted on its page"},
    Row{ErrorCode::kNotFound, "not_found", false,
        "check the spelling of source, filename and revision"},
    Row{ErrorCode::kNetwork, "network", true,
        "run the same command again; on a node without a route set https_proxy, or fetch on a "
        "login node first"},
    Row{ErrorCode::kRateLimited, "rate_limited", true,
        "run the same command again later; a token in HF_TOKEN has a higher limit"},
    Row{ErrorCode::kIntegrity, "integrity", false,
        "the source does not serve the bytes that are expected: check its address, and `sha256` "
        "and `size` of the manifest"},
    Row{ErrorCode::kNoSpace, "no_space", false,
        "free space or quota, or choose another place with --cache-dir or --hf-cache-dir"},
    Row{ErrorCode::kPermission, "permission", false,
        "get the right to write there, or choose another place with --cache-dir or "
        "--hf-cache-dir"},
    Row{ErrorCode::kLockTimeout, "lock_timeout", true,
        "run the same command again when the holder is done, or raise --lock-timeout"},
    Row{ErrorCode::kOfflineMissing, "offline_missing", false,
        "run it once with a network (on a login node) and the same cache directories"},
    Row{ErrorCode::kLauncher, "launcher", false,
        "check the launcher's MPI (`srun --mpi=list`), or do not require MPI"},
    Row{ErrorCode::kNotVisible, "not_visible", true,
        "raise --visible-timeout, and check that the node mounts the cache's file system"},
};
constexpr Row kSignalRow = {ErrorCode::kSignalBase, "signal", true, "run the same command again"};

const Row& row(ErrorCode code) {
  if (exit_code(code) >= exit_code(ErrorCode::kSignalBase)) return kSignalRow;
  const auto* found =
      std::find_if(kTable.begin(), kTable.end(), [code](const Row& r) { return r.code == code; });
  return found == kTable.end() ? kTable[1] : *found;  // a foreign number is a bug: internal
}

// glibc's sigabbrev_np is too new for the enterprise distributions of clusters.
std::string_view signal_name(int number) {
  switch (number) {
    case SIGHUP:
      return "SIGHUP";
    case SIGINT:
      return "SIGINT";
    case SIGQUIT:
      return "SIGQUIT";
    case SIGALRM:
      return "SIGALRM";
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGUSR2:
      return "SIGUSR2";
    case SIGXCPU:
      return "SIGXCPU";
    default:
      return "";
  }
}

}  // namespace

Error with_context(Error error, std::string context) {
  error.context.push_back(std::move(context));
  return error;
}

Error interrupted(int number) {
  Error error;
  error.code = static_cast<ErrorCode>(exit_code(ErrorCode::kSignalBase) + number);
  const std::string plain = "signal " + std::to_string(number);
  const std::string_view known = signal_name(number);
  error.message = "stopped by " +
                  (known.empty() ? plain : std::string(known) + " (" + plain + ")") +
                  "; run it again: it goes on with what it can use";
  return error;
}

std::string_view name(ErrorCode code) {
  return row(code).name;
}

bool retryable(ErrorCode code) {
  return row(code).retryable;
}

std::string_view hint(const Error& error) {
  return error.hint.empty() ? row(error.code).hint : std::string_view(error.hint);
}

std::string describe(const Error& error) {
  std::string text;
  for (auto context = error.context.rbegin(); context != error.context.rend(); ++context) {
    text += *context;
    text += ": ";
  }
  return text + error.message;
}

}  // namespace fvprefetch
