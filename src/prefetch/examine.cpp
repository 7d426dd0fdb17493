#include "prefetch/examine.h"

#include <sys/resource.h>

#include <array>
#include <utility>

#include "base/clock.h"
#include "base/posix.h"
#include "base/try.h"
#include "base/url.h"
#include "base/within.h"
#include "cache/layout.h"

namespace fvprefetch {
namespace {

constexpr std::uint64_t kLittleSpace = 1'000'000'000;  // less than any checkpoint worth prefetching
constexpr std::uint64_t kNoSpace = 1U << 20U;
constexpr std::uint64_t kFewFiles = 1'000;

void add(std::vector<Finding>& findings, Severity severity, std::string about, ErrorCode code,
         std::string message, std::string hint) {
  Error error;
  error.code = code;
  error.message = std::move(message);
  error.hint = std::move(hint);
  findings.push_back({severity, std::move(about), std::move(error)});
}

// --- Directories --------------------------------------------------------------------------------

enum class Store { kFiles, kHub };

struct Looked {
  ExaminedDirectory directory;
  std::vector<Finding> findings;
};

// The variable or option that says where it is.
std::string setting_of(const std::string& role) {
  if (role == "eval cache") return "FASTVIDEO_EVAL_CACHE or --cache-dir";
  if (role == "Hub cache") return "HF_HUB_CACHE or --hf-cache-dir";
  return role;
}

std::string words_for(const posix::Rights& rights) {
  return rights.mode + " of user " + std::to_string(rights.owner) + ", group " +
         std::to_string(rights.group);
}

// Where locks lie, when that is not simply inside the cache: people link a cache's lock directory
// to a file system that locks better.
void look_at_locks(Looked& looked, Store store, NodeTask task) {
  ExaminedDirectory& directory = looked.directory;
  const std::string state = store == Store::kHub ? layout::hub_locks(directory.path)
                                                 : layout::UrlFile(directory.path, "").state();
  const std::string locks =
      store == Store::kHub ? state : layout::UrlFile(directory.path, "").locks();
  directory.probe_base = state;
  for (const std::string& path : {state, locks}) {
    // Made by a user whose umask kept it to himself, perhaps.
    if (const auto rights = posix::rights_in(path);
        rights && !rights->write && task == NodeTask::kFetch) {
      add(looked.findings, Severity::kFailure, directory.role, ErrorCode::kPermission,
          "`" + path + "` cannot be written: " + words_for(*rights),
          "have its owner share it (`chmod g+rwXs`), or name another directory with " +
              setting_of(directory.role));
    }
    if (!posix::is_link(path)) continue;
    const auto info = posix::stat(path);
    const std::string target = posix::real_path(path);
    if (!info || !*info || !(*info)->directory) {
      add(looked.findings, Severity::kFailure, directory.role, ErrorCode::kPermission,
          "`" + path + "` is a symbolic link to `" + target + "`, which is no directory",
          "make that directory, or remove the link");
      directory.probe_base.clear();
      return;
    }
    directory.probe_base = path;
    directory.lock_device = (*info)->device;
    directory.local = posix::is_local(target);
    if ((*info)->device != directory.device) {
      add(looked.findings, Severity::kWarning, directory.role, ErrorCode::kOk,
          "its locks lie on another file system: `" + path + "` leads to `" + target + "`",
          "nodes that share the cache must share that one too, or each node fetches for itself");
    }
    return;
  }
}

void judge_rights(Looked& looked, NodeTask task) {
  const ExaminedDirectory& directory = looked.directory;
  const posix::Rights& rights = *directory.rights;
  const std::string who = words_for(rights);
  const auto fails = [&](std::string message, std::string hint) {
    add(looked.findings, Severity::kFailure, directory.role, ErrorCode::kPermission,
        std::move(message), std::move(hint));
  };
  if (directory.exists && !rights.read) {
    fails("`" + directory.path + "` cannot be read: " + who,
          "ask its owner, or name another directory with " + setting_of(directory.role));
  } else if (!rights.write && task == NodeTask::kFetch) {
    const bool read_only = directory.space && directory.space->read_only;
    const std::string why = read_only ? "it is mounted read-only" : who;
    if (directory.exists) {
      fails("`" + directory.path + "` cannot be written: " + why,
            "what is complete in it can be used; to fetch, name another directory with " +
                setting_of(directory.role));
    } else {
      fails("`" + directory.path + "` does not exist and cannot be made in `" + directory.examined +
                "`: " + why,
            "make it, or name another directory with " + setting_of(directory.role));
    }
  }
}

void judge_space(Looked& looked, NodeTask task) {
  const ExaminedDirectory& directory = looked.directory;
  const posix::Space& space = *directory.space;
  // Some file systems in user space tell no size at all.
  if (task != NodeTask::kFetch || space.bytes_total == 0) return;
  const std::string where = "`" + directory.examined + "` has ";
  if (space.bytes_free < kNoSpace) {
    add(looked.findings, Severity::kFailure, directory.role, ErrorCode::kNoSpace,
        where + "no free space",
        "free some, or name another directory with " + setting_of(directory.role));
  } else if (space.files_total > 0 && space.files_free == 0) {
    // No failure yet: rclone says so of every mount. The self test finds out by making some.
    add(looked.findings, Severity::kWarning, directory.role, ErrorCode::kNoSpace,
        where + "no free inodes, as the file system tells",
        "remove files, or name another directory with " + setting_of(directory.role));
  } else if (space.bytes_free < kLittleSpace) {
    add(looked.findings, Severity::kWarning, directory.role, ErrorCode::kNoSpace,
        where + "less than 1 GB of free space", "`fvprefetch plan` says how much a manifest needs");
  } else if (space.files_total > 0 && space.files_free < kFewFiles) {
    add(looked.findings, Severity::kWarning, directory.role, ErrorCode::kNoSpace,
        where + "fewer than 1,000 free inodes", "remove files that nobody needs");
  }
}

Looked look(std::string role, std::string path, Store store, NodeTask task) {
  Looked looked;
  ExaminedDirectory& directory = looked.directory;
  directory.role = std::move(role);
  directory.path = std::move(path);
  directory.real_path = posix::real_path(directory.path);

  std::string at = directory.real_path;
  Result<std::optional<posix::FileInfo>> info = posix::stat(at);
  directory.exists = info && info->has_value();
  while (info && !*info && at != "/" && at != ".") {
    at = posix::parent(at);
    info = posix::stat(at);
  }
  if (!info) {
    looked.findings.push_back({Severity::kFailure, directory.role, info.error()});
    return looked;
  }
  if (!*info || !(*info)->directory) {
    add(looked.findings, Severity::kFailure, directory.role, ErrorCode::kUsage,
        "`" + at + "` is " + (*info ? "no directory" : "not there"),
        "name a directory with " + setting_of(directory.role));
    return looked;
  }
  directory.examined = at;
  directory.device = (*info)->device;
  directory.lock_device = directory.device;
  directory.local = posix::is_local(at);
  directory.mount = posix::mount_of(at);
  if (auto space = posix::space_of(at)) directory.space = *space;
  if (directory.exists) {
    look_at_locks(looked, store, task);
  } else {
    directory.probe_base = at;
  }
  if (auto rights = posix::rights_in(at)) {
    directory.rights = *std::move(rights);
    judge_rights(looked, task);
  } else {
    looked.findings.push_back({Severity::kFailure, directory.role, rights.error()});
  }
  if (directory.space) judge_space(looked, task);
  return looked;
}

// `path` may ask the file system, too.
template <typename Path>
void examine_directory(ExaminedNode& node, const ExamineOptions& how, const std::string& role,
                       Store store, const Path& path) {
  const auto begin = real_clock().now();
  auto looked =
      within(how.patience, [=, task = how.task] { return look(role, path(), store, task); });
  if (!looked) {
    looked.emplace();
    looked->directory.role = role;
    if (real_clock().now() - begin >= how.patience) {
      add(looked->findings, Severity::kFailure, role, ErrorCode::kNotVisible,
          "its file system does not answer for " + std::to_string(how.patience.count()) + " ms",
          "see whether `ls` of it hangs, too; if so its server is gone");
    } else {
      add(looked->findings, Severity::kFailure, role, ErrorCode::kNoSpace,
          "the system gives this process no further thread, or no memory",
          "raise the limits of processes and memory (`ulimit -u`, `ulimit -v`, or what the job's "
          "cgroup may have)");
    }
  }
  node.directories.push_back(std::move(looked->directory));
  for (Finding& finding : looked->findings) node.findings.push_back(std::move(finding));
}

// --- The rest -----------------------------------------------------------------------------------

void examine_token(ExaminedNode& node, const EnvironmentLookup& env, const ExamineOptions& how) {
  const auto place = within(how.patience, [env] { return environment::hub_token_place(env); });
  if (!place) {
    add(node.findings, Severity::kFailure, "token", ErrorCode::kPermission,
        "the token's file cannot be read within " + std::to_string(how.patience.count()) + " ms",
        "set HF_TOKEN, or set HF_HUB_DISABLE_IMPLICIT_TOKEN=1");
  } else if (!*place) {
    node.findings.push_back({Severity::kFailure, "token", place->error()});
  } else {
    node.token_from = **place;
  }
}

void examine_limits(ExaminedNode& node, const ExamineOptions& how) {
  struct ::rlimit limit {};
  if (how.task != NodeTask::kFetch || ::getrlimit(RLIMIT_FSIZE, &limit) != 0) return;
  if (limit.rlim_cur == RLIM_INFINITY) return;
  add(node.findings, limit.rlim_cur < kNoSpace ? Severity::kFailure : Severity::kWarning, "limits",
      ErrorCode::kNoSpace,
      "this process may make no file larger than " + std::to_string(limit.rlim_cur) + " bytes",
      "raise the limit of file sizes (`ulimit -f unlimited`)");
}

void examine_network(ExaminedNode& node, const EnvironmentLookup& env, const ExamineOptions& how) {
  const std::string endpoint = environment::hub_endpoint(env);
  node.endpoint = redact(endpoint);
  if (node.endpoint.ends_with('/')) node.endpoint.pop_back();
  if (const auto url = parse_url(endpoint); !url) {
    add(node.findings, Severity::kFailure, "endpoint", ErrorCode::kUsage, url.error().message,
        "HF_ENDPOINT looks like https://huggingface.co");
  }
  for (environment::Setting& proxy : environment::proxies(env)) {
    // Without a scheme it is http to libcurl; the parser wants it said.
    const bool has_scheme = proxy.value.find("://") != std::string::npos;
    std::string shown = redact((has_scheme ? "" : "http://") + proxy.value);
    if (shown.ends_with('/')) shown.pop_back();
    node.proxies.push_back({std::move(proxy.name), std::move(shown)});
  }
  node.no_proxy = environment::no_proxy(env);

  struct Trust {
    environment::TrustStore store;
    std::string missing;  // told, and not there
  };
  const auto trust = within(how.patience, [env] {
    Trust found{environment::trust_store(env), {}};
    const std::string& file = found.store.file;
    const std::string& directory = found.store.directory;
    if (!file.empty() && !posix::open_read(file)) found.missing = file;
    if (!directory.empty() && !posix::exists(directory)) found.missing = directory;
    return found;
  });
  if (!trust || !trust->missing.empty()) {
    add(node.findings, Severity::kFailure, "certificates", ErrorCode::kNetwork,
        trust ? "`" + trust->missing + "` cannot be read"
              : "the certificates' file system does not answer",
        "set SSL_CERT_FILE to a bundle, or unset it (and CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE)");
  } else if (trust->store.file.empty() && trust->store.directory.empty()) {
    add(node.findings, Severity::kWarning, "certificates", ErrorCode::kNetwork,
        "no certificate bundle in any of the usual places",
        "install ca-certificates, or set SSL_CERT_FILE");
  }
  if (trust) {
    node.certificate_file = trust->store.file;
    node.certificate_directory = trust->store.directory;
  }
}

}  // namespace

std::string_view name(Severity severity) {
  return severity == Severity::kFailure ? "failure" : "warning";
}

ExaminedNode examine(const Options& options, const std::string& node_name,
                     const ExamineOptions& how) {
  const EnvironmentLookup env = environment::or_process(options.environment);
  ExaminedNode node;
  const auto looked = guard([&]() -> Status {
    node.node = node_name;
    node.offline = options.offline || environment::hub_offline(env);
    examine_limits(node, how);
    examine_directory(node, how, "eval cache", Store::kFiles,
                      [env, dir = options.cache_dir] { return environment::eval_cache(env, dir); });
    examine_directory(node, how, "Hub cache", Store::kHub, [env, dir = options.hf_cache_dir] {
      return environment::hub_cache(env, dir);
    });
    if (const auto torch = environment::torch_home(env)) {
      examine_directory(node, how, "TORCH_HOME", Store::kFiles, [torch] { return *torch; });
    }
    examine_token(node, env, how);
    examine_network(node, env, how);
    return {};
  });
  if (!looked) node.findings.push_back({Severity::kFailure, "examination", looked.error()});
  return node;
}

}  // namespace fvprefetch
