#include "base/environment.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <vector>

#include "base/posix.h"
#include "base/try.h"

namespace fvprefetch::environment {
namespace {

constexpr auto kVariables = std::to_array<Variable>({
    {"FASTVIDEO_EVAL_CACHE", "the eval cache"},
    {"FASTVIDEO_CACHE_ROOT", "the eval cache is its subfolder eval; ~ is expanded"},
    {"XDG_CACHE_HOME", "where caches lie by default; else ~/.cache"},
    {"TORCH_HOME", "where torch/... of the eval cache goes when set"},
    {"HOME", "what ~ stands for"},
    {"HF_HUB_CACHE", "the Hub cache"},
    {"HUGGINGFACE_HUB_CACHE", "the Hub cache, older name"},
    {"HF_HOME", "holds the Hub cache (hub) and the token file (token)"},
    {"HF_ENDPOINT", "address of the Hub or of a mirror; https://huggingface.co"},
    {"HF_TOKEN", "token for the Hub"},
    {"HUGGING_FACE_HUB_TOKEN", "token for the Hub, older name"},
    {"HF_TOKEN_PATH", "file with the token; <HF_HOME>/token"},
    {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "1, ON, YES or TRUE: send no token"},
    {"HF_HUB_ETAG_TIMEOUT", "seconds until an answer of the Hub counts as stalled"},
    {"HF_HUB_DOWNLOAD_TIMEOUT",
     "seconds without a byte until a body counts as stalled; the option "
     "--stall-timeout wins"},
    {"HF_HUB_DISABLE_SYMLINKS", "1, ON, YES or TRUE: a Hub cache of files alone"},
    {"HF_HUB_DISABLE_PROGRESS_BARS", "1, ON, YES or TRUE: lines in place of a bar"},
    {"HUGGINGFACE_CO_STAGING",
     "1, ON, YES or TRUE: the Hub's own test site, whatever HF_ENDPOINT says"},
    {"HF_OIDC_RESOURCE", "not supported: set HF_TOKEN instead"},
    {"HF_HUB_OFFLINE", "1, ON, YES or TRUE: send no request"},
    {"TRANSFORMERS_OFFLINE", "as HF_HUB_OFFLINE, when that is not set or empty"},
    {"SSL_CERT_FILE", "certificates to trust"},
    {"CURL_CA_BUNDLE", "certificates to trust, when SSL_CERT_FILE is not set"},
    {"REQUESTS_CA_BUNDLE", "certificates to trust, when the two above are not set"},
    {"SSL_CERT_DIR", "directory of certificates to trust"},
    {"http_proxy", "the proxy; also https_proxy, all_proxy, no_proxy, each in capitals too"},
    {"SLURM_STEP_ID",
     "what the launcher told; also SLURM_STEP_NUM_TASKS, SLURM_PROCID, SLURM_NODEID, "
     "SLURM_LOCALID, SLURM_RESTART_COUNT, SLURM_CLUSTER_NAME, SLURM_JOB_START_TIME, "
     "SLURM_STEP_LAUNCHER_PORT, SLURM_MPI_TYPE, OMPI_COMM_WORLD_*, PMI_*, PMIX_*, PALS_*, FLUX_*, "
     "MPI_LOCALNRANKS, "
     "MPI_LOCALRANKID, HYDI_CONTROL_FD (see cluster/launcher)"},
    {"TMPDIR", "where FastVideo's own locks lie; also TEMP, TMP; else /tmp"},
    {"USER", "who holds a lock, for those who wait; else LOGNAME"},
    {"SLURM_JOB_ID", "the batch job; also PBS_JOBID, LSB_JOBID, FLUX_JOB_ID, COBALT_JOBID, JOB_ID"},
});

// Where distributions keep their bundle: Debian, Alpine and Arch; Red Hat; SUSE; older Red Hat;
// OpenSSL's own default.
constexpr std::array<const char*, 5> kBundles = {
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"};

std::optional<std::string> not_empty(const EnvironmentLookup& env, std::string_view name) {
  auto value = env(name);
  return value && value->empty() ? std::nullopt : value;
}

// huggingface_hub's _is_true: no strip, and "y" or "enable" are false.
bool is_true(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return text == "1" || text == "ON" || text == "YES" || text == "TRUE";
}

bool is_true(const EnvironmentLookup& env, std::string_view name) {
  return is_true(env(name).value_or(""));
}

// Python's os.path.join of two parts.
std::string join(std::string left, std::string_view right) {
  if (right.starts_with('/')) return std::string(right);
  if (!left.empty() && !left.ends_with('/')) left += '/';
  return left.append(right);
}

std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// Python's os.path.expandvars: $name and ${name} of set variables, once; the rest stays as it is.
std::string expand_variables(const EnvironmentLookup& env, const std::string& path) {
  const auto is_word = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  };
  std::string expanded;
  std::size_t at = 0;
  while (at < path.size()) {
    std::size_t end = at + 1;
    std::optional<std::string> value;
    if (path[at] == '$' && end < path.size() && path[end] == '{') {
      const std::size_t brace = path.find('}', end);
      if (brace != std::string::npos) {
        value = env(path.substr(end + 1, brace - end - 1));
        end = brace + 1;
      }
    } else if (path[at] == '$') {
      while (end < path.size() && is_word(path[end])) ++end;
      if (end > at + 1) value = env(path.substr(at + 1, end - at - 1));
    }
    expanded += value ? *value : path.substr(at, end - at);
    at = end;
  }
  return expanded;
}

std::string expand(const EnvironmentLookup& env, std::string path) {
  return expand_variables(env, expand_user(env, std::move(path)));
}

// The home directory that the user database has for `user`, or for this process when empty.
std::optional<std::string> home_of(const std::string& user) {
  std::vector<char> buffer(16U << 10U);
  passwd entry{};
  passwd* found = nullptr;
  const int error = user.empty()
                        ? ::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found)
                        : ::getpwnam_r(user.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (error != 0 || found == nullptr || found->pw_dir == nullptr) return std::nullopt;
  return std::string(found->pw_dir);
}

// An empty HF_HOME or XDG_CACHE_HOME counts as set, as os.getenv has it: a relative path.
std::string hf_home(const EnvironmentLookup& env) {
  if (auto home = env("HF_HOME")) return expand(env, *std::move(home));
  auto caches = env("XDG_CACHE_HOME");
  if (!caches) caches = join(expand_user(env, "~"), ".cache");
  return expand(env, join(*std::move(caches), "huggingface"));
}

// Whole seconds as Python's int() reads them, as far as people write them.
Result<std::optional<std::chrono::seconds>> seconds_of(const EnvironmentLookup& env,
                                                       const char* name) {
  const auto text = env(name);
  if (!text) return std::nullopt;
  int value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value < 0) {
    return fail(ErrorCode::kUsage, std::string(name) + " is no whole number of seconds",
                "write it as 10, or unset it");
  }
  return std::chrono::seconds(value);
}

std::string clean_token(std::string text) {
  std::erase_if(text, [](char c) { return c == '\r' || c == '\n'; });
  constexpr std::string_view kSpace = " \t\v\f\x1c\x1d\x1e\x1f";  // what str.strip() takes off
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

std::span<const Variable> variables() {
  return kVariables;
}

EnvironmentLookup with(EnvironmentLookup env, std::string name, std::optional<std::string> value) {
  return [env = std::move(env), name = std::move(name), value = std::move(value)](
             std::string_view asked) { return asked == name ? value : env(asked); };
}

EnvironmentLookup or_process(EnvironmentLookup lookup) {
  if (lookup) return lookup;
  return [](std::string_view name) -> std::optional<std::string> {
    const char* value = std::getenv(std::string(name).c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
}

std::string eval_cache(const EnvironmentLookup& env, const std::string& override_dir) {
  if (!override_dir.empty()) return without_trailing_slashes(expand_user(env, override_dir));
  if (auto cache = not_empty(env, "FASTVIDEO_EVAL_CACHE")) {  // as it is: so FastVideo takes it
    return without_trailing_slashes(*std::move(cache));
  }
  auto root = not_empty(env, "FASTVIDEO_CACHE_ROOT");
  if (!root) root = join(not_empty(env, "XDG_CACHE_HOME").value_or("~/.cache"), "fastvideo");
  return join(expand_user(env, *std::move(root)), "eval");
}

std::optional<std::string> torch_home(const EnvironmentLookup& env) {
  auto home = not_empty(env, "TORCH_HOME");
  if (home) home = without_trailing_slashes(expand_user(env, *std::move(home)));
  return home;
}

std::string hub_cache(const EnvironmentLookup& env, const std::string& override_dir) {
  std::optional<std::string> cache;
  if (!override_dir.empty()) {
    cache = expand_user(env, override_dir);
  } else {
    cache = env("HF_HUB_CACHE");
    if (!cache) cache = env("HUGGINGFACE_HUB_CACHE");
    if (!cache) cache = join(hf_home(env), "hub");
    cache = expand(env, *std::move(cache));
  }
  return posix::real_path(*cache);
}

std::string hub_endpoint(const EnvironmentLookup& env) {
  // Empty counts as not set: Python's client would send every request to "/api/...".
  std::string endpoint = not_empty(env, "HF_ENDPOINT").value_or("https://huggingface.co");
  if (is_true(env, "HUGGINGFACE_CO_STAGING")) endpoint = "https://hub-ci.huggingface.co";
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return endpoint;
}

namespace {

struct Token {
  Secret secret;
  std::string place;  // see hub_token_place()
};

Result<Token> find_token(const EnvironmentLookup& env) {
  if (is_true(env, "HF_HUB_DISABLE_IMPLICIT_TOKEN")) return Token();
  std::string place = "HF_TOKEN";
  auto told = not_empty(env, place);
  if (!told) {
    place = "HUGGING_FACE_HUB_TOKEN";
    told = not_empty(env, place);
  }
  if (!told && not_empty(env, "HF_OIDC_RESOURCE")) {
    return fail(ErrorCode::kUsage,
                "HF_OIDC_RESOURCE asks for a token by OpenID Connect, which is not supported",
                "set HF_TOKEN, or unset HF_OIDC_RESOURCE");
  }
  if (told) {
    // A blank HF_TOKEN does not fall to the older name but to the file.
    if (std::string token = clean_token(*std::move(told)); !token.empty()) {
      return Token{Secret(std::move(token)), std::move(place)};
    }
  }
  auto path = env("HF_TOKEN_PATH");
  if (!path) path = join(hf_home(env), "token");
  constexpr std::uint64_t kLargestToken = 64U << 10U;
  const std::string file = expand(env, *std::move(path));
  const auto there = posix::stat(file);
  if (there && !*there) return Token();
  auto text = posix::read_stream(file, kLargestToken);  // "<(pass show ...)" is a pipe
  if (!text) {
    Error error = with_context(std::move(text).error(), "while reading the token for the Hub");
    error.code = ErrorCode::kPermission;
    error.hint = "make the file readable, set HF_TOKEN, or set HF_HUB_DISABLE_IMPLICIT_TOKEN=1";
    return fail(std::move(error));
  }
  std::string token = clean_token(*std::move(text));
  if (token.empty()) return Token();
  return Token{Secret(std::move(token)), file};
}

}  // namespace

Result<Secret> hub_token(const EnvironmentLookup& env) {
  FVP_TRY(Token token, find_token(env));
  return std::move(token.secret);
}

Result<std::string> hub_token_place(const EnvironmentLookup& env) {
  FVP_TRY(Token token, find_token(env));
  return std::move(token.place);
}

bool hub_without_links(const EnvironmentLookup& env) {
  return is_true(env, "HF_HUB_DISABLE_SYMLINKS");
}

bool without_progress_bars(const EnvironmentLookup& env) {
  return is_true(env, "HF_HUB_DISABLE_PROGRESS_BARS");
}

Result<HubTimeouts> hub_timeouts(const EnvironmentLookup& env) {
  HubTimeouts timeouts;
  FVP_TRY(timeouts.answer, seconds_of(env, "HF_HUB_ETAG_TIMEOUT"));
  FVP_TRY(timeouts.body, seconds_of(env, "HF_HUB_DOWNLOAD_TIMEOUT"));
  for (auto* timeout : {&timeouts.answer, &timeouts.body}) {
    if (*timeout == std::chrono::seconds(0)) timeout->reset();
  }
  return timeouts;
}

bool hub_offline(const EnvironmentLookup& env) {
  auto told = not_empty(env, "HF_HUB_OFFLINE");
  if (!told) told = env("TRANSFORMERS_OFFLINE");
  return is_true(told.value_or(""));
}

TrustStore trust_store(const EnvironmentLookup& env) {
  TrustStore store;
  store.directory = env("SSL_CERT_DIR").value_or("");
  for (const char* name : {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"}) {
    if (auto told = not_empty(env, name)) {
      // requests takes a directory as well.
      const auto info = posix::stat(*told);
      const bool directory = info && *info && (*info)->directory;
      (directory ? store.directory : store.file) = *std::move(told);
      return store;
    }
  }
  const auto* found = std::find_if(kBundles.begin(), kBundles.end(),
                                   [](const char* bundle) { return posix::exists(bundle); });
  if (found != kBundles.end()) store.file = *found;
  return store;
}

std::string http_proxy_in_capitals(const EnvironmentLookup& env) {
  if (env("http_proxy")) return {};
  return env("HTTP_PROXY").value_or("");
}

namespace {

constexpr std::array kProxies = {"http_proxy", "https_proxy", "all_proxy",
                                 "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"};

}  // namespace

bool has_proxy(const EnvironmentLookup& env) {
  return std::any_of(kProxies.begin(), kProxies.end(),
                     [&env](const char* name) { return not_empty(env, name).has_value(); });
}

std::vector<Setting> proxies(const EnvironmentLookup& env) {
  std::vector<Setting> set;
  for (const char* name : kProxies) {
    if (auto value = not_empty(env, name)) set.push_back({name, *std::move(value)});
  }
  return set;
}

std::string no_proxy(const EnvironmentLookup& env) {
  auto told = not_empty(env, "no_proxy");
  if (!told) told = not_empty(env, "NO_PROXY");
  return told.value_or("");
}

std::string job_id(const EnvironmentLookup& env) {
  for (const char* name :
       {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "COBALT_JOBID", "JOB_ID"}) {
    if (auto job = not_empty(env, name)) return *std::move(job);
  }
  return {};
}

std::string job_step(const EnvironmentLookup& env) {
  return not_empty(env, "SLURM_STEP_ID").value_or("");
}

std::string user(const EnvironmentLookup& env) {
  for (const char* name : {"USER", "LOGNAME"}) {
    if (auto told = not_empty(env, name)) return *std::move(told);
  }
  return std::to_string(::geteuid());
}

std::vector<std::string> temporary_directories(const EnvironmentLookup& env) {
  std::vector<std::string> places;
  for (const char* name : {"TMPDIR", "TEMP", "TMP"}) {
    if (auto place = not_empty(env, name)) places.push_back(*std::move(place));
  }
  for (const char* place : {"/tmp", "/var/tmp", "/usr/tmp", "."}) places.emplace_back(place);
  return places;
}

std::string expand_user(const EnvironmentLookup& env, std::string path) {
  if (!path.starts_with('~')) return path;
  const std::size_t slash = std::min(path.find('/'), path.size());
  const std::string user = path.substr(1, slash - 1);
  std::optional<std::string> home;
  if (user.empty()) home = env("HOME");
  if (!home) home = home_of(user);
  if (!home) return path;
  while (home->ends_with('/')) home->pop_back();
  std::string expanded = *home + path.substr(slash);
  return expanded.empty() ? "/" : expanded;
}

}  // namespace fvprefetch::environment
