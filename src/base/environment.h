// Every environment variable that fvprefetch reads, and the only getenv. The table `kVariables` in
// environment.cpp documents them all; functions here turn them into values, with the precedence
// and parsing of the program that defined them (hf-contract: huggingface_hub's constants.py;
// eval-contract: fastvideo.eval.models).
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/url.h"
#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"

namespace fvprefetch::environment {

struct Variable {
  std::string_view name;
  std::string_view meaning;
};
[[nodiscard]] std::span<const Variable> variables();

/// `lookup` when set, else the environment of this process.
[[nodiscard]] EnvironmentLookup or_process(EnvironmentLookup lookup);
/// `env`, but for the variable `name`, which has `value` there; nullopt: is not set.
[[nodiscard]] EnvironmentLookup with(EnvironmentLookup env, std::string name,
                                     std::optional<std::string> value);

/// <cache> of the eval contract; `override_dir` (--cache-dir) wins.
[[nodiscard]] std::string eval_cache(const EnvironmentLookup& env, const std::string& override_dir);
/// $TORCH_HOME when set and not empty: where `torch/...` goes instead of <cache>/torch.
[[nodiscard]] std::optional<std::string> torch_home(const EnvironmentLookup& env);
/// The Hub cache (HF_HUB_CACHE > HUGGINGFACE_HUB_CACHE > HF_HOME/hub > ...), links in it resolved.
[[nodiscard]] std::string hub_cache(const EnvironmentLookup& env, const std::string& override_dir);
/// HF_ENDPOINT without trailing slashes, or https://huggingface.co.
[[nodiscard]] std::string hub_endpoint(const EnvironmentLookup& env);
/// HF_TOKEN > HUGGING_FACE_HUB_TOKEN > token file; none under HF_HUB_DISABLE_IMPLICIT_TOKEN.
/// kPermission when the token file cannot be read; kUsage when HF_OIDC_RESOURCE asks for a token
/// that only Python's client knows how to get, and there is no other.
[[nodiscard]] Result<Secret> hub_token(const EnvironmentLookup& env);
/// Where hub_token() has it from: the name of a variable, or the path of the file; "" when there is
/// none. Fails as hub_token() does.
[[nodiscard]] Result<std::string> hub_token_place(const EnvironmentLookup& env);
/// HF_HUB_DISABLE_SYMLINKS: the cache is made of files alone.
[[nodiscard]] bool hub_without_links(const EnvironmentLookup& env);
/// HF_HUB_DISABLE_PROGRESS_BARS is 1, ON, YES or TRUE.
[[nodiscard]] bool without_progress_bars(const EnvironmentLookup& env);
/// HF_HUB_ETAG_TIMEOUT (answers of the Hub's API) and HF_HUB_DOWNLOAD_TIMEOUT (bodies), whole
/// seconds; nullopt when not set, or 0. kUsage for what is no number.
struct HubTimeouts {
  std::optional<std::chrono::seconds> answer;
  std::optional<std::chrono::seconds> body;
};
[[nodiscard]] Result<HubTimeouts> hub_timeouts(const EnvironmentLookup& env);
/// HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is 1, ON, YES or TRUE.
[[nodiscard]] bool hub_offline(const EnvironmentLookup& env);
/// Where TLS trust comes from: SSL_CERT_FILE > CURL_CA_BUNDLE > REQUESTS_CA_BUNDLE, else the first
/// of the places where distributions keep their bundle; empty values count as not set.
struct TrustStore {
  std::string file;       ///< may be empty
  std::string directory;  ///< SSL_CERT_DIR; may be empty
};
[[nodiscard]] TrustStore trust_store(const EnvironmentLookup& env);
/// HTTP_PROXY, when http_proxy is not set: libcurl reads every other proxy variable in both cases,
/// but not this one, which a web server sets from what a client sends; fvprefetch is never run by
/// one.
[[nodiscard]] std::string http_proxy_in_capitals(const EnvironmentLookup& env);
/// Any of the proxy variables is set, so that some addresses may be asked for through a proxy.
[[nodiscard]] bool has_proxy(const EnvironmentLookup& env);
/// The proxy variables that are set, with their values as libcurl reads them: they may hold a
/// password.
struct Setting {
  std::string name;
  std::string value;
};
[[nodiscard]] std::vector<Setting> proxies(const EnvironmentLookup& env);
/// no_proxy or NO_PROXY: the hosts that are asked for without a proxy; may be empty.
[[nodiscard]] std::string no_proxy(const EnvironmentLookup& env);
/// The id of the batch job that this process belongs to, "" when none is told.
[[nodiscard]] std::string job_id(const EnvironmentLookup& env);
/// The step of that job, "" when none is told.
[[nodiscard]] std::string job_step(const EnvironmentLookup& env);
/// The name of the user, for people: not asked of a directory service, which may be slow.
[[nodiscard]] std::string user(const EnvironmentLookup& env);
/// Where Python's tempfile looks for a place, in that order.
[[nodiscard]] std::vector<std::string> temporary_directories(const EnvironmentLookup& env);
/// "~", "~/x" and "~user/x" as Python's expanduser has it.
[[nodiscard]] std::string expand_user(const EnvironmentLookup& env, std::string path);

}  // namespace fvprefetch::environment
