// Errors are values. Every function of fvprefetch that can fail returns Result<T>; nothing throws.
//
// An ErrorCode is at the same time the exit code of the command, so that a script, a program that
// links the library, and the report agree on one public table. The table (name, hint, whether a
// retry helps) lives in src/base/error.cpp; its numbers never change.
//
// Threads: all types are plain values. This is the only header that names tl::expected, so that
// std::expected can replace it in one place.
#pragma once

#include <tl/expected.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fvprefetch {

enum class ErrorCode : int {
  kOk = 0,
  /// A bug of ours. Use it only where an assumption of the code was broken.
  kInternal = 1,
  /// Bad arguments or a bad manifest; not for a source that turned out not to exist (kNotFound).
  kUsage = 2,
  /// Only entries marked optional failed; everything that is required is there.
  kPartial = 3,
  /// No token, a bad token, or a licence that was not accepted: three different messages.
  kAccess = 4,
  /// A path, repository, revision, file or URL does not exist, or a source is none of these.
  kNotFound = 5,
  /// Network, TLS, proxy or a stall, after all retries. Not for an HTTP answer that is final.
  kNetwork = 6,
  /// The server asked us to come back later than the deadline allows.
  kRateLimited = 7,
  /// Size or digest do not agree, or a web page or Git LFS pointer came in place of the file.
  kIntegrity = 8,
  /// No space or no quota.
  kNoSpace = 9,
  /// No right, or read-only, and something has to be written.
  kPermission = 10,
  /// Somebody else held the lock for too long; the message names the holder.
  kLockTimeout = 11,
  /// Offline, and something is missing; the message lists it.
  kOfflineMissing = 12,
  /// MPI was required and cannot be used.
  kLauncher = 13,
  /// Published, but a node could not see it in time.
  kNotVisible = 14,
  /// 128 + n: stopped by signal n; what is on disk can be used by the next run.
  kSignalBase = 128,
};

/// Beginnings of Error::reason: "HTTP 503"; no route, no name, no trust, or silence; a proxy's no.
inline constexpr std::string_view kHttpStatus = "HTTP ";
inline constexpr std::string_view kUnreachable = "Unreachable";
inline constexpr std::string_view kProxyFailed = "Proxy";
inline constexpr std::string_view kTooManyOpenFiles = "TooManyOpenFiles";
inline constexpr std::string_view kDescriptorHint =
    "raise the limit of open files (`ulimit -n`), or lower --max-active or --connections";

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  /// What failed, on what, expected and actual. No trailing period, no secret.
  std::string message;
  /// What to do about it; empty means the hint that the table has for `code`.
  std::string hint;
  /// Added by callers going up, innermost first ("while fetching model.safetensors").
  std::vector<std::string> context;
  /// The redacted URL, path or entry that the error is about; may be empty.
  std::string subject;
  /// Finer than `code`, for programs; may be empty. The Hub's word for it ("RepoNotFound",
  /// "RevisionNotFound", "EntryNotFound", "GatedRepo"), else kHttpStatus and the number; when there
  /// was no answer kUnreachable, or kProxyFailed. Of no server: kTooManyOpenFiles.
  std::string reason;
  /// When the server said to come back.
  std::optional<std::chrono::seconds> retry_after;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

/// The one way to make an error: `return fail(ErrorCode::kUsage, "...")`.
[[nodiscard]] inline tl::unexpected<Error> fail(ErrorCode code, std::string message,
                                                std::string hint = {}) {
  Error error;
  error.code = code;
  error.message = std::move(message);
  error.hint = std::move(hint);
  return tl::unexpected<Error>(std::move(error));
}
[[nodiscard]] inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}

/// `error` with one more line of context around it.
[[nodiscard]] Error with_context(Error error, std::string context);

/// The error of a run that signal `number` stopped.
[[nodiscard]] Error interrupted(int number);

/// The process exit code for `code`.
[[nodiscard]] constexpr int exit_code(ErrorCode code) {
  return static_cast<int>(code);
}

/// Stable name of a code as the report spells it ("not_found", "signal"); never empty.
[[nodiscard]] std::string_view name(ErrorCode code);

/// Whether running the same command again may succeed.
[[nodiscard]] bool retryable(ErrorCode code);

/// The hint to print below the error: its own, else the table's; may be empty.
[[nodiscard]] std::string_view hint(const Error& error);

/// One line for people, outermost context first: "entry `raft`: while fetching x: 404 Not Found".
[[nodiscard]] std::string describe(const Error& error);

}  // namespace fvprefetch
