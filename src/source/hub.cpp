#include "source/hub.h"

#include "base/digest.h"
#include "base/relative_path.h"
#include "base/try.h"
#include "source/entry_rules.h"
#include "source/wording.h"
#include "transfer/retry.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace fvprefetch::hub {
namespace {

using nlohmann::json;

constexpr std::size_t kCommitDigits = 40;
constexpr std::size_t kSha256Digits = 64;
constexpr std::size_t kMostPages = 10'000;  // a server that sends more is broken
constexpr std::size_t kMostFiles = 2'000'000;
constexpr std::size_t kMostBytes = 512U << 20U;

bool is_word(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/// One part of a repo id: word characters, "-" and ".", a word character at either end.
bool valid_part(std::string_view part) {
  return !part.empty() && is_word(part.front()) && is_word(part.back()) &&
         std::all_of(part.begin(), part.end(),
                     [](char c) { return is_word(c) || c == '-' || c == '.'; });
}

std::string_view plural(RepoType type) {
  switch (type) {
    case RepoType::kModel:
      return "models";
    case RepoType::kDataset:
      return "datasets";
    case RepoType::kSpace:
      return "spaces";
  }
  return "models";
}

/// Where a repo's pages are: "" for models, "datasets/" and so on.
std::string page_prefix(RepoType type) {
  return type == RepoType::kModel ? std::string() : std::string(plural(type)) + "/";
}

std::string header(const ResponseHead& head, std::string_view name) {
  for (const auto& [key, value] : head.headers) {
    if (key == name) return value;
  }
  return {};
}

bool is_hex_of(std::string_view text, std::size_t digits) {
  return text.size() == digits && is_hex(text);
}

/// The target of `<...>; rel="next"` in the Link headers (RFC 8288); "" when there is none.
std::string next_link(const ResponseHead& head) {
  for (const auto& [key, value] : head.headers) {
    if (key != "link") continue;
    std::string_view rest = value;
    // A comma may be part of a URL, so links are told apart by their brackets.
    for (std::size_t open = rest.find('<'); open != std::string_view::npos; open = rest.find('<')) {
      const std::size_t close = rest.find('>', open);
      if (close == std::string_view::npos) break;
      const std::string_view target = rest.substr(open + 1, close - open - 1);
      rest.remove_prefix(close + 1);
      const std::string_view parameters = rest.substr(0, rest.find('<'));
      if (parameters.find("rel=\"next\"") != std::string_view::npos ||
          parameters.find("rel=next") != std::string_view::npos) {
        return std::string(target);
      }
    }
  }
  return {};
}

/// `endpoint` as people write it, without the "/" that a parsed URL ends in.
std::string site(const std::string& endpoint) {
  std::string text = redact(endpoint);
  while (text.ends_with('/')) text.pop_back();
  return text;
}

/// What people take for a path: an id that ends like a file of weights.
bool looks_like_file(std::string_view id) {
  for (const std::string_view suffix : {".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".onnx"}) {
    if (id.ends_with(suffix)) return true;
  }
  return false;
}

constexpr auto kMostFileBytes =
    static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());  // off_t

/// What is wrong with the `size` of an object; "" when it is one that a file can have.
std::string size_fault(const json& object) {
  const auto found = object.find("size");
  if (found == object.end() || found->is_null()) return "has no size";
  if (found->is_number_unsigned() && found->get<std::uint64_t>() <= kMostFileBytes) return {};
  return "has a size that no file can have (" + printable(found->dump(-1, ' ', true)) + ")";
}

std::string text_field(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return {};
  return found->get<std::string>();
}

/// One entry of the tree that is a file; or what is wrong with it.
Result<RepoFile> read_file(const json& item) {
  RepoFile file;
  file.path = text_field(item, "path");
  if (const auto fault = relative_path_fault(file.path); !fault.empty()) {
    return fail(ErrorCode::kIntegrity,
                "the path \"" + printable(file.path) + "\" " + std::string(fault));
  }
  const std::string named = "`" + printable(file.path) + "`";
  if (const std::string fault = size_fault(item); !fault.empty()) {
    return fail(ErrorCode::kIntegrity, named + " " + fault);
  }
  file.size = item.at("size").get<std::uint64_t>();
  file.git_oid = lower_hex(text_field(item, "oid"));
  if (!is_hex_of(file.git_oid, kCommitDigits)) {
    return fail(ErrorCode::kIntegrity, named + " has no git object id of 40 hex digits");
  }
  if (const auto lfs = item.find("lfs"); lfs != item.end() && lfs->is_object()) {
    file.lfs_sha256 = lower_hex(text_field(*lfs, "oid"));
    if (!is_hex_of(file.lfs_sha256, kSha256Digits)) {
      return fail(ErrorCode::kIntegrity, named + " has no LFS object id of 64 hex digits");
    }
    if (const std::string fault = size_fault(*lfs); lfs->contains("size") && !fault.empty()) {
      return fail(ErrorCode::kIntegrity, named + " " + fault + " as an LFS object");
    }
    file.lfs_size = lfs->contains("size") ? lfs->at("size").get<std::uint64_t>() : file.size;
    file.size = file.lfs_size;
  }
  // Gated repos mask it with asterisks for who has no access; it is a convenience only.
  if (std::string xet = lower_hex(text_field(item, "xetHash")); is_hex_of(xet, kSha256Digits)) {
    file.xet_hash = std::move(xet);
  }
  return file;
}

}  // namespace

bool valid_repo_id(std::string_view id) {
  constexpr std::size_t kLongestName = 96;
  constexpr std::size_t kLongestId = 240;  // ours: the cache's folder name must fit a file system
  if (id.size() > kLongestId || id.find("--") != std::string_view::npos ||
      id.find("..") != std::string_view::npos || id.ends_with(".git")) {
    return false;
  }
  const std::size_t slash = id.find('/');
  const std::string_view last = slash == std::string_view::npos ? id : id.substr(slash + 1);
  if (slash != std::string_view::npos && !valid_part(id.substr(0, slash))) return false;
  return valid_part(last) && last.size() <= kLongestName;
}

bool is_commit(std::string_view revision) {
  return revision.size() == kCommitDigits &&
         std::all_of(revision.begin(), revision.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Result<RepoType> parse_repo_type(std::string_view text) {
  if (text.empty() || text == "model") return RepoType::kModel;
  if (text == "dataset") return RepoType::kDataset;
  if (text == "space") return RepoType::kSpace;
  return fail(ErrorCode::kUsage, "unknown repository type \"" + printable(text) +
                                     "\"; expected model, dataset or space");
}

std::string list_fault(const std::vector<RepoFile>& files) {
  std::set<std::string_view> paths;
  for (const RepoFile& file : files) paths.insert(file.path);
  std::map<std::string_view, const RepoFile*> by_digest;
  std::uint64_t total = 0;
  for (const RepoFile& file : files) {
    const std::string_view path = file.path;
    for (std::size_t slash = path.find('/'); slash != std::string_view::npos;
         slash = path.find('/', slash + 1)) {
      if (paths.contains(path.substr(0, slash))) {
        return "has `" + printable(path.substr(0, slash)) + "` as a file and as the folder of `" +
               printable(path) + "`";
      }
    }
    const std::string& digest = file.lfs_sha256.empty() ? file.git_oid : file.lfs_sha256;
    const auto [first, is_new] = by_digest.emplace(digest, &file);
    if (!is_new && !digest.empty() && first->second->size != file.size) {
      return "has one digest under two sizes, of `" + printable(first->second->path) + "` (" +
             std::to_string(first->second->size) + " bytes) and of `" + printable(path) + "` (" +
             std::to_string(file.size) + " bytes)";
    }
    if (file.size > kMostFileBytes || total > kMostFileBytes - file.size) {
      return "has more bytes than any disk, with those of `" + printable(path) + "`";
    }
    total += file.size;
  }
  return {};
}

FileSpec to_file_spec(const RepoFile& entry) {
  FileSpec spec;
  spec.path = entry.path;
  spec.size = entry.size;
  if (entry.lfs_sha256.empty()) {
    spec.digest = Digest{Digest::Kind::kGitSha1, entry.git_oid};
    spec.blob = entry.git_oid;
  } else {
    spec.digest = Digest{Digest::Kind::kSha256, entry.lfs_sha256};
    spec.blob = entry.lfs_sha256;
    if (entry.lfs_size != 0) spec.size = entry.lfs_size;
  }
  return spec;
}

Client::Client(Fetcher& fetcher, std::string endpoint, Secret token)
    : fetcher_(fetcher), endpoint_(std::move(endpoint)), token_(std::move(token)) {}

Credential Client::credential() const {
  Credential credential;
  const auto endpoint = parse_url(endpoint_);
  if (token_.empty() || !endpoint) return credential;
  credential.token = token_;
  // huggingface_hub's HF_URL_HOSTS, and httpx's exception for a host that moves up to https.
  credential.origins = {endpoint->origin(), "https://huggingface.co:443", "https://hf.co:443",
                        "https://hub-ci.huggingface.co:443"};
  if (endpoint->has_user) {  // it says itself who asks, as httpx has it
    credential.origins.erase(credential.origins.begin());
    return credential;
  }
  if (endpoint->scheme == "http" && endpoint->port == 80) {
    credential.origins.push_back("https://" + endpoint->host + ":443");
  }
  return credential;
}

std::string Client::resolve_url(const Repo& repo, const std::string& commit,
                                const std::string& path) const {
  return endpoint_ + "/" + page_prefix(repo.type) + repo.id + "/resolve/" + quote(commit, "") +
         "/" + quote(path);
}

namespace {

/// An answer that no Hub gives.
Error not_a_hub(const std::string& url, const std::string& endpoint, const std::string& found) {
  Error error;
  error.code = ErrorCode::kIntegrity;
  error.subject = redact(url);
  error.message = "unexpected answer from " + error.subject + ": " + found;
  error.hint = "is " + site(endpoint) +
               " (HF_ENDPOINT) a Hugging Face Hub or a mirror of one, and does no proxy or login "
               "page answer in its place?";
  return error;
}

/// A document of a size and shape that a Hub could send; discarded, as one with a mistake in it,
/// when it is deeper or has more values: built up it would take many times the memory of its text.
json parse_bounded(const std::string& text) {
  constexpr int kDeepest = 32;
  constexpr std::size_t kMostValues = 4'000'000;  // 300,000 files
  struct TooMuch : std::exception {};
  std::size_t values = 0;
  const auto count = [&values](int depth, json::parse_event_t, json&) {
    if (depth > kDeepest || ++values > kMostValues) throw TooMuch();
    return true;
  };
  try {
    return json::parse(text, count, /*allow_exceptions=*/false);
  } catch (const TooMuch&) {
    return json(json::value_t::discarded);
  }
}

/// The JSON of a 2xx answer.
Result<json> parse_answer(const Response& response, const std::string& url,
                          const std::string& endpoint) {
  json document = parse_bounded(response.body);
  if (!document.is_discarded()) return document;
  const std::size_t start = response.body.find_first_not_of(" \t\r\n");
  const bool page = start != std::string::npos && response.body[start] == '<';
  return fail(not_a_hub(url, endpoint,
                        page ? "expected JSON, got a web page" : "expected JSON, got other text"));
}

}  // namespace

Result<std::string> Client::resolve_revision(const Repo& repo, const std::string& revision) {
  if (is_commit(revision)) return revision;  // a commit is what it is: nothing to ask
  Request request;
  request.url = endpoint_ + "/api/" + std::string(plural(repo.type)) + "/" + repo.id +
                "/revision/" + quote(revision, "");
  request.credential = credential();
  FVP_TRY(const Response response, fetcher_.fetch(request));
  if (response.head.status / 100 != 2) {
    return fail(explain(repo, "revision `" + printable(revision) + "`", response));
  }
  FVP_TRY(const json document, parse_answer(response, request.url, endpoint_));
  std::string commit = document.is_object() ? text_field(document, "sha") : std::string();
  if (!is_commit(commit)) {
    return fail(not_a_hub(
        request.url, endpoint_,
        "expected a commit of 40 hex digits in `sha`, got \"" + printable(commit) + "\""));
  }
  return commit;
}

Result<std::vector<RepoFile>> Client::list_tree(const Repo& repo, const std::string& commit) {
  Request request;
  request.url = endpoint_ + "/api/" + std::string(plural(repo.type)) + "/" + repo.id + "/tree/" +
                quote(commit, "") + "?recursive=true&expand=false";
  request.credential = credential();
  const bool secure = request.url.starts_with("https://");

  std::vector<RepoFile> files;
  std::set<std::string> asked;  // digests: addresses may be long
  std::size_t bytes = 0;
  while (true) {
    if (!asked.insert(sha256_hex(request.url)).second || asked.size() > kMostPages) {
      return fail(not_a_hub(request.url, endpoint_, "its pages of files do not end"));
    }
    FVP_TRY(const Response response, fetcher_.fetch(request));
    if (response.head.status / 100 != 2) {
      return fail(explain(repo, "the list of files", response));
    }
    FVP_TRY(const json page, parse_answer(response, request.url, endpoint_));
    if (!page.is_array()) {
      return fail(not_a_hub(request.url, endpoint_, "expected an array of files"));
    }
    for (const json& item : page) {
      if (!item.is_object()) {
        return fail(not_a_hub(request.url, endpoint_, "expected an array of files"));
      }
      if (text_field(item, "type") != "file") continue;
      auto file = read_file(item);
      if (!file) return fail(not_a_hub(request.url, endpoint_, file.error().message));
      files.push_back(std::move(*file));
    }

    bytes += response.body.size();
    if (files.size() > kMostFiles || bytes > kMostBytes) {
      return fail(not_a_hub(request.url, endpoint_, "its list of files does not end"));
    }
    const std::string next = next_link(response.head);
    if (next.empty()) break;
    const std::string& base = response.head.url.empty() ? request.url : response.head.url;
    const auto resolved = resolve_reference(base, next);
    // The token is bound to the endpoint's origin, so a page elsewhere is asked for without it.
    if (!resolved || !parse_url(*resolved) || (secure && !resolved->starts_with("https://"))) {
      return fail(not_a_hub(request.url, endpoint_,
                            "its next page is at \"" + printable(redact(next)) + "\""));
    }
    request.url = *resolved;
  }

  // Pages of a fixed commit do not change, but a mirror may repeat an entry at a page's edge.
  std::sort(files.begin(), files.end(),
            [](const RepoFile& a, const RepoFile& b) { return a.path < b.path; });
  files.erase(std::unique(files.begin(), files.end()), files.end());
  const auto twice =
      std::adjacent_find(files.begin(), files.end(),
                         [](const RepoFile& a, const RepoFile& b) { return a.path == b.path; });
  if (twice != files.end()) {
    return fail(not_a_hub(request.url, endpoint_,
                          "`" + printable(twice->path) + "` is listed twice, with two contents"));
  }
  if (const std::string fault = list_fault(files); !fault.empty()) {
    return fail(not_a_hub(request.url, endpoint_, "its list of files " + fault));
  }
  return files;
}

Result<std::string> Client::open_file(Fetcher& hops, const Repo& repo, const std::string& commit,
                                      const std::string& path) const {
  constexpr int kMostHops = 10;
  Request request;
  request.url = resolve_url(repo, commit, path);
  request.credential = credential();
  request.head_only = true;
  for (int hop = 0; hop < kMostHops; ++hop) {
    FVP_TRY(const Response response, hops.fetch(request));
    const std::string location = header(response.head, "location");
    if (response.head.status / 100 == 2) return request.url;
    if (response.head.status / 100 != 3 || location.empty()) {
      return fail(explain(repo, "`" + printable(path) + "`", response));
    }
    FVP_TRY(std::string target, redirect_target(request.url, location));
    FVP_TRY(const Url to, parse_url(target));
    FVP_TRY(const Url from, parse_url(request.url));
    // A renamed repository; anything else is where the bytes are.
    const auto& known = request.credential.origins;
    const bool ours = to.origin() == from.origin() ||
                      std::find(known.begin(), known.end(), to.origin()) != known.end();
    if (!ours || to.path.find("/resolve/") == std::string::npos) return target;
    request.url = std::move(target);
  }
  return fail(ErrorCode::kNetwork,
              "more than " + std::to_string(kMostHops) + " redirects from " + redact(request.url));
}

Error Client::explain(const Repo& repo, const std::string& what, const Response& response) const {
  const ResponseHead& head = response.head;
  const std::string error_code = header(head, "x-error-code");
  const std::string error_message = header(head, "x-error-message");
  const std::string id = "`" + repo.id + "`";
  const std::string page = site(endpoint_) + "/" + page_prefix(repo.type) + repo.id;
  const bool sent_token = !token_.empty();
  const std::string set_token = "log in with `hf auth login`, or set HF_TOKEN";

  Error error;
  error.subject = head.url.empty() ? page : redact(head.url);
  error.reason = std::string(kHttpStatus) + std::to_string(head.status);
  for (const char* known : {"RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo"}) {
    if (error_code == known) error.reason = error_code;
  }
  const auto say = [&](ErrorCode code, const std::string& reason, std::string hint) {
    error.code = code;
    error.message = "cannot get " + what + " of " + id + ": " + reason;
    error.hint = std::move(hint);
    return error;
  };

  // huggingface_hub's order (utils/_http.py, hf_raise_for_status), but a refused token is told
  // first: whatever else the answer says, it was given to nobody.
  if (head.status == 401 && sent_token && error_message.starts_with("Invalid credentials")) {
    return say(ErrorCode::kAccess, "the Hub refused the token",
               "make a new token at " + site(endpoint_) +
                   "/settings/tokens and set HF_TOKEN; HF_HUB_DISABLE_IMPLICIT_TOKEN=1 sends none");
  }
  if (error_code == "RevisionNotFound") {
    return say(ErrorCode::kNotFound, "the repository has no such branch, tag or commit",
               "see " + page + "/tree/main for what it has");
  }
  if (error_code == "EntryNotFound") {
    return say(ErrorCode::kNotFound, "the repository has no such file at this revision",
               "see " + page + "/tree/main for what it has");
  }
  if (error_code == "GatedRepo") {
    if (!sent_token) {
      return say(ErrorCode::kAccess, "the repository is gated and no token was sent",
                 "accept the licence at " + page + ", then " + set_token);
    }
    return say(ErrorCode::kAccess,
               "the repository is gated and its licence was not accepted with this token's account",
               "accept the licence at " + page +
                   "; a fine-grained token also needs the right to read gated repositories");
  }
  if (error_message == "Access to this resource is disabled.") {
    return say(ErrorCode::kAccess, "the Hub has disabled access to the repository", "see " + page);
  }

  std::string meant_path;
  if (looks_like_file(repo.id)) meant_path = "; if " + id + " is meant as a path, it is not there";
  std::string meant_type;
  if (repo.type == RepoType::kModel) {
    meant_type =
        "; a data set or a space is asked for by `repo_type` in a manifest (\"dataset\", "
        "\"space\")";
  } else {
    meant_type = std::string("; it was asked for as one of the ") + std::string(plural(repo.type)) +
                 " (`repo_type`)";
  }
  if (error_code == "RepoNotFound") {
    if (!sent_token) {
      return say(ErrorCode::kNotFound, "the repository does not exist, or it is private",
                 "check the name at " + page + "; for a private one " + set_token + meant_type +
                     meant_path);
    }
    return say(ErrorCode::kNotFound,
               "the repository does not exist, or it is private and this token may not see it",
               "check the name at " + page + meant_type + meant_path);
  }
  if (head.status == 401) {
    if (!sent_token) {
      return say(ErrorCode::kAccess,
                 "no token was sent; the repository does not exist, or it is private or gated",
                 "check the name at " + page + "; for a private or gated one " + set_token +
                     meant_type + meant_path);
    }
    return say(
        ErrorCode::kAccess, "the repository does not exist, or this token may not see it (401)",
        "check the name at " + page + " and the rights of the token" + meant_type + meant_path);
  }

  std::string status = std::to_string(head.status);
  if (!error_message.empty()) status += ": " + printable(error_message);
  if (retry::is_rate_limit(head)) {
    return say(ErrorCode::kRateLimited, "the Hub asks to come back later (" + status + ")",
               sent_token ? "" : "requests with a token have a higher limit: " + set_token);
  }
  switch (head.status) {
    case 403:
      return say(
          ErrorCode::kAccess, "access was refused (" + status + ")",
          sent_token ? "a fine-grained token needs the right to read this repository" : set_token);
    case 404:
    case 410:
      return say(ErrorCode::kNotFound, "the Hub does not have it (" + status + ")",
                 "check the name at " + page + meant_type);
    default:
      return say(ErrorCode::kNetwork, "the Hub answered " + status, "");
  }
}

}  // namespace fvprefetch::hub
