// What a fetch will meet on this node, found out without any request and without writing: the cache
// directories and what they lie on, token, endpoint, proxy, certificates. Each thing that is not as
// it ought to be is a Finding; nothing here is an error of its own.
//
// A file system whose server is gone answers no call at all; so each look has a deadline.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/environment.h"
#include "base/mount.h"
#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch {

enum class Severity {
  kWarning,  ///< works, and not as one would wish
  kFailure   ///< a fetch is impossible, with this exit code
};

struct Finding {
  Severity severity = Severity::kWarning;
  std::string about;  ///< "eval cache", "token", "launcher"
  Error error;        ///< what is wrong, what to do; no secret
};

struct ExaminedDirectory {
  std::string role;  ///< "eval cache", "Hub cache", "TORCH_HOME"
  std::string path;
  std::string real_path;  ///< links resolved
  /// What was looked at: the directory, or the nearest one above it that exists. Empty: nothing
  /// answered, or what is there is no directory.
  std::string examined;
  bool exists = false;
  std::optional<posix::Rights> rights;
  std::optional<posix::Space> space;
  std::optional<posix::Mount> mount;
  std::uint64_t device = 0;
  std::uint64_t lock_device = 0;  ///< where its locks lie: another one when they are linked away
  /// One kernel alone writes where its locks lie, as far as its type tells: good for what is
  /// quicker, no more.
  bool local = false;
  /// Where a probe of its locks belongs: inside here, which may not exist yet.
  std::string probe_base;
};

struct ExaminedNode {
  std::string node;
  std::vector<ExaminedDirectory> directories;
  std::string token_from;  ///< the name of a variable, or a path; "" when there is no token
  std::string endpoint;    ///< redacted
  bool offline = false;
  std::vector<environment::Setting> proxies;  ///< redacted
  std::string no_proxy;
  std::string certificate_file;
  std::string certificate_directory;
  std::vector<Finding> findings;
};

/// What this node has to do with the job's files.
enum class NodeTask {
  kFetch,  ///< writes the caches
  kUse     ///< reads what another node has fetched
};

struct ExamineOptions {
  NodeTask task = NodeTask::kFetch;
  /// How long a file system may take to answer.
  std::chrono::milliseconds patience{10'000};
};

/// Looks at all of it. Never throws, takes no longer than a few times `patience`.
[[nodiscard]] ExaminedNode examine(const Options& options, const std::string& node,
                                   const ExamineOptions& how = {});

/// A node's findings and what they rest on, as one line of JSON: how they travel between nodes and
/// what `doctor --json` prints. kInternal for what is no such text.
[[nodiscard]] std::string to_json_line(const ExaminedNode& node);
[[nodiscard]] Result<ExaminedNode> examined_from_json(std::string_view text);

[[nodiscard]] std::string_view name(Severity severity);

}  // namespace fvprefetch
