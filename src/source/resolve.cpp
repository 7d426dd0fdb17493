#include "source/resolve.h"

#include "base/digest.h"
#include "base/environment.h"
#include "base/posix.h"
#include "base/try.h"
#include "source/entry_rules.h"
#include "source/wording.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace fvprefetch {
namespace {

constexpr std::size_t kSha256Digits = 64;

std::string_view file_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

/// CLIP's addresses carry the digest of the file as a segment of their path.
std::string digest_in_address(const std::string& url) {
  const auto parsed = parse_url(url);
  if (!parsed) return {};
  std::string_view path = parsed->path;
  std::string digest;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view segment = path.substr(0, slash);
    if (segment.size() == kSha256Digits && is_hex(lower_hex(segment))) digest = lower_hex(segment);
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  }
  return digest;
}

/// torch.hub's names carry the first digits of the digest: "alexnet-owt-7be5be79.pth". Lower case
/// only, as torch has it, and with a letter: "-20230101" is a date.
std::string digest_in_name(std::string_view name) {
  constexpr std::size_t kFewestDigits = 8;
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot + 1 == name.size()) return {};
  const std::string_view stem = name.substr(0, dot);
  const std::size_t dash = stem.rfind('-');
  if (dash == std::string_view::npos) return {};
  const std::string_view digits = stem.substr(dash + 1);
  const auto is_letter = [](char c) { return c >= 'a' && c <= 'f'; };
  const bool all_hex = std::all_of(digits.begin(), digits.end(),
                                   [&](char c) { return (c >= '0' && c <= '9') || is_letter(c); });
  if (digits.size() < kFewestDigits || digits.size() > kSha256Digits || !all_hex ||
      !std::any_of(digits.begin(), digits.end(), is_letter)) {
    return {};
  }
  return std::string(digits);
}

UrlSource resolve_url_entry(const Entry& entry, const EnvironmentLookup& env,
                            const std::string& eval_cache) {
  constexpr std::string_view kTorch = "torch/";
  const std::string dest = entry.dest.empty() ? "models/" + entry.name : entry.dest;

  UrlSource source;
  source.root = eval_cache;
  source.relative = dest;
  if (dest.starts_with(kTorch)) {
    // One destination has one lock and one receipt, whatever the variable calls its folder.
    const auto torch_home = environment::torch_home(env);
    if (torch_home && posix::real_path(*torch_home) != posix::real_path(eval_cache + "/torch")) {
      source.root = *torch_home;
      source.relative = dest.substr(kTorch.size());
    }
  }
  source.file.path = std::string(file_name(dest));
  source.file.urls = {entry.source};
  source.file.urls.insert(source.file.urls.end(), entry.mirrors.begin(), entry.mirrors.end());
  source.file.size = entry.size;
  source.name_is_guessed = entry.name_is_guessed && entry.dest.empty();
  if (entry.unpack) source.strip_components = entry.strip_components;

  // The manifest's digest wins; the conventions are judged by the place the file is meant for,
  // wherever TORCH_HOME puts it.
  std::string digest = lower_hex(entry.sha256);
  source.digest_rule = "manifest";
  if (digest.empty() && dest.starts_with("clip/")) {
    digest = digest_in_address(entry.source);
    source.digest_rule = "clip address";
  } else if (digest.empty() && !entry.unpack && dest.starts_with("torch/hub/checkpoints/")) {
    digest = digest_in_name(file_name(dest));
    source.digest_rule = "name suffix";
  }
  if (digest.empty()) {
    source.digest_rule = "none";
  } else {
    source.file.digest = Digest{Digest::Kind::kSha256, std::move(digest)};
  }
  return source;
}

/// A pinned file as the Hub would list it, as far as its blob and size go.
RepoFile listed(const PinnedFile& pinned) {
  RepoFile file;
  file.path = pinned.path;
  file.size = pinned.size;
  file.git_oid = lower_hex(pinned.git_sha1);
  file.lfs_sha256 = lower_hex(pinned.sha256);
  if (!file.lfs_sha256.empty()) file.lfs_size = pinned.size;
  return file;
}

Result<HubSource> resolve_hub_entry(const Entry& entry) {
  if (!hub::valid_repo_id(entry.source)) {
    return fail(
        ErrorCode::kUsage,
        "`" + printable(entry.source) + "` is not there as a path, and not a valid Hub repo id",
        "a repo id is `organisation/name`: letters, digits, \"-\", \"_\" and \".\", a "
        "letter or digit at the ends of both, no \"--\" or \"..\", at most 96 "
        "characters in the name, not ending in \".git\"");
  }
  HubSource source;
  FVP_TRY(source.repo.type, hub::parse_repo_type(entry.repo_type));
  source.repo.id = entry.source;
  source.revision = entry.revision.empty() ? "main" : entry.revision;
  source.filename = entry.filename;
  source.include = entry.include;
  source.exclude = entry.exclude;
  source.sha256 = lower_hex(entry.sha256);
  source.size = entry.size;
  for (const PinnedFile& file : entry.files) source.files.push_back(listed(file));
  std::sort(source.files.begin(), source.files.end(),
            [](const RepoFile& a, const RepoFile& b) { return a.path < b.path; });
  if (source.filename.empty() && (!source.sha256.empty() || source.size)) {
    return fail(ErrorCode::kUsage,
                "`" + entry.source + "` is a whole Hub snapshot, which has no sha256 or size",
                "name one file with `filename`, or pin the snapshot with a commit as `revision`");
  }
  return source;
}

/// A source that says itself that it is a path.
bool means_path(std::string_view source) {
  return source.starts_with('/') || source.starts_with("./") || source.starts_with("../") ||
         source.starts_with('~');
}

Error no_such_path(const std::string& source) {
  Error error;
  error.code = ErrorCode::kNotFound;
  error.subject = source;
  error.message = "the path `" + printable(source) + "` does not exist";
  error.hint = source.starts_with('~')
                   ? "\"~\" is not expanded here; write the whole path"
                   : "check the path, and that this host has its file system mounted";
  return error;
}

/// "Not there" and "not for you" want different remedies.
Status may_look_at(const std::string& source) {
  Result<std::optional<posix::FileInfo>> info = posix::stat(source);
  if (info) return {};
  if (info.error().code == ErrorCode::kPermission) {
    info.error().hint = "get the right to read it and to search the folders above it";
  }
  return fail(std::move(info.error()));
}

/// A repository as people write its address.
struct RepositoryName {
  std::string id;
  std::string type;      ///< "dataset", "space"; "" for a model
  std::string revision;  ///< may be empty
  std::string path;      ///< of a file in it; may be empty
};

/// Of "[datasets/|spaces/]org/name[@revision][/path]"; nullopt: it is no such text.
std::optional<RepositoryName> repository_name(std::string_view text) {
  RepositoryName name;
  constexpr std::string_view kDatasets = "datasets/";
  constexpr std::string_view kSpaces = "spaces/";
  if (text.starts_with(kDatasets)) {
    name.type = "dataset";
    text.remove_prefix(kDatasets.size());
  } else if (text.starts_with(kSpaces)) {
    name.type = "space";
    text.remove_prefix(kSpaces.size());
  }
  while (text.ends_with('/')) text.remove_suffix(1);
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::size_t end = text.find('/', slash + 1);
  if (end != std::string_view::npos) name.path = text.substr(end + 1);
  std::string_view id = text.substr(0, end);
  if (const std::size_t at = id.find('@'); at != std::string_view::npos) {
    name.revision = id.substr(at + 1);
    id = id.substr(0, at);
  }
  name.id = id;
  if (!hub::valid_repo_id(id)) return std::nullopt;
  return name;
}

/// The repository whose page is `url`, on one of these sites; nullopt: it is none.
std::optional<RepositoryName> repository_of(std::string_view url,
                                            std::initializer_list<std::string_view> sites) {
  url = url.substr(0, url.find_first_of("?#"));
  for (const std::string_view site : sites) {
    if (!url.starts_with(site) || !url.substr(site.size()).starts_with('/')) continue;
    auto name = repository_name(url.substr(site.size() + 1));
    const bool front = name && (name->path.empty() || name->path.starts_with("tree/"));
    // "/api/models", "/docs/hub" and the like: pages, and no repositories.
    if (!front || !name->revision.empty()) return std::nullopt;
    if (name->path.starts_with("tree/")) name->revision = name->path.substr(5);
    name->path.clear();
    return name;
  }
  return std::nullopt;
}

/// Of a file's name: a dot, and a letter behind the last one.
bool has_suffix(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot + 1 == name.size()) return false;
  const char first = name[dot + 1];
  return (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z');
}

/// How a manifest or `ensure` takes it.
std::string name_it(const RepositoryName& name) {
  std::string hint = "name it `" + name.id + "`";
  if (!name.path.empty()) hint += ", with `filename` \"" + printable(name.path) + "\"";
  if (!name.revision.empty()) hint += ", with `revision` \"" + printable(name.revision) + "\"";
  if (!name.type.empty()) hint += ", in a manifest with `repo_type` \"" + name.type + "\"";
  return hint;
}

Error neither(const std::string& source) {
  // May be a URL of another scheme, with a secret in it.
  const std::size_t scheme = source.find("://");
  Error error;
  error.code = ErrorCode::kNotFound;
  if (scheme != std::string::npos) {
    error.subject = printable(source.substr(0, scheme)) + "://...";
    error.hint = "only http:// and https://, in lower case, can be fetched";
    if (source.starts_with("hf://")) {
      const auto name = repository_name(std::string_view(source).substr(scheme + 3));
      error.hint = name ? name_it(*name) : "name a repository `organisation/name`";
    }
  } else {
    error.subject = printable(source);
    error.hint = source.find('/') == std::string::npos
                     ? "for a Hub repo without an organisation use a manifest entry with "
                       "\"repo_type\": \"model\""
                     : "a path must exist; a repo id is `organisation/name`";
  }
  error.message = "cannot resolve checkpoint `" + error.subject +
                  "`: it is neither a path that exists, nor an http(s) URL, nor a Hub repo id";
  return error;
}

/// How an entry is called in a message about several.
std::string named(const Entry& entry) {
  return "`" + printable(entry.name.empty() ? redact(entry.source) : entry.name) + "`";
}

/// `lists` with a trailing "/" meaning all below it, and "/" for "\", as huggingface_hub has them.
std::vector<std::string> normalised(const std::vector<std::string>& patterns) {
  std::vector<std::string> out = patterns;
  for (std::string& pattern : out) {
    if (pattern.ends_with('/')) pattern += '*';
    std::replace(pattern.begin(), pattern.end(), '\\', '/');
  }
  return out;
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& path) {
  std::string text = path;
  std::replace(text.begin(), text.end(), '\\', '/');
  return std::any_of(patterns.begin(), patterns.end(),
                     [&text](const std::string& pattern) { return fnmatch(pattern, text); });
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words)
    out += (out.empty() ? "\"" : ", \"") + printable(word) + "\"";
  return out;
}

Result<std::vector<RepoFile>> select_file(const HubSource& source,
                                          const std::vector<RepoFile>& tree) {
  const auto found = std::find_if(tree.begin(), tree.end(), [&source](const RepoFile& file) {
    return file.path == source.filename;
  });
  if (found == tree.end()) {
    std::vector<std::string_view> paths;
    paths.reserve(tree.size());
    for (const RepoFile& file : tree) paths.emplace_back(file.path);
    std::string hint;
    if (const std::string_view meant = nearest(source.filename, paths); !meant.empty()) {
      hint = "did you mean `" + printable(meant) + "`?";
    }
    return fail(ErrorCode::kNotFound,
                "`" + source.repo.id + "` has no file `" + printable(source.filename) +
                    "` at revision `" + printable(source.revision) + "`",
                std::move(hint));
  }
  // Known before a byte is sent. A file that is not LFS has no sha256 here; the transfer checks it.
  if (!source.sha256.empty() && !found->lfs_sha256.empty() && source.sha256 != found->lfs_sha256) {
    return fail(ErrorCode::kIntegrity, "`" + printable(source.filename) + "` of `" +
                                           source.repo.id + "`: expected sha256 " + source.sha256 +
                                           ", the Hub has " + found->lfs_sha256);
  }
  if (source.size && *source.size != found->size) {
    return fail(ErrorCode::kIntegrity, "`" + printable(source.filename) + "` of `" +
                                           source.repo.id + "`: expected " +
                                           std::to_string(*source.size) + " bytes, the Hub has " +
                                           std::to_string(found->size));
  }
  return std::vector<RepoFile>{*found};
}

}  // namespace

// The order of ensure_checkpoint (eval-contract section 1): path, URL, Hub, error.
Result<Source> resolve(const Entry& entry, const EnvironmentLookup& env,
                       const std::string& eval_cache) {
  FVP_CHECK_OK(validate(entry));
  const std::string& source = entry.source;
  if (posix::exists(source)) return PathSource{source, lower_hex(entry.sha256), entry.size};
  if (is_url(source)) {
    if (const auto id = repository_of(source, {"https://huggingface.co", "https://hf.co"})) {
      return fail(ErrorCode::kUsage,
                  redact(source) + " is the page of a repository and no file of it", name_it(*id));
    }
    return resolve_url_entry(entry, environment::or_process(env), eval_cache);
  }
  if (means_path(source)) {
    FVP_CHECK_OK(may_look_at(source));
    return fail(no_such_path(source));
  }
  const auto slashes = std::count(source.begin(), source.end(), '/');
  if (slashes == 1 || !entry.repo_type.empty()) {
    FVP_TRY(HubSource hub_source, resolve_hub_entry(entry));
    return hub_source;
  }
  return fail(neither(source));
}

std::string page_hint(const std::string& url, const EnvironmentLookup& env) {
  const std::string address = redact(url);
  const std::string endpoint = environment::hub_endpoint(environment::or_process(env));
  // A mirror may serve files, too: "models/w.pth".
  if (const auto id = repository_of(address, {endpoint}); id && !has_suffix(id->id)) {
    return "this is the page of a repository: " + name_it(*id);
  }
  constexpr std::string_view kPage = "/blob/";
  const std::size_t at = address.find(kPage);
  if (at == std::string::npos) return {};
  const bool gitlab = std::string_view(address).substr(0, at).ends_with("/-");
  const bool github = address.starts_with("https://github.com/");
  const std::string_view file = gitlab || github ? "/raw/" : "/resolve/";
  std::string right = address;
  right.replace(at, kPage.size(), file);
  return "this is the address of the page about the file; the file itself is at " + right +
         (gitlab || github ? "" : " on the Hub, at /raw/ on GitHub and its like");
}

std::string without_secrets(const std::string& source) {
  return source.find("://") == std::string::npos ? source : redact(source);
}

std::optional<std::string> fastvideo_key(const Source& source) {
  if (const auto* file = std::get_if<UrlSource>(&source)) {
    if (file->is_archive()) return std::nullopt;  // ensure_checkpoint unpacks nothing
    // Other places are filled by the libraries that own them, which take no lock.
    if (!file->relative.starts_with("models/")) return std::nullopt;
    const auto url = parse_url(file->file.urls.front());
    // The name of that lock is public. What is left of an address that had more is another key.
    const std::string& key = file->file.urls.front();
    const bool whole = url && !url->has_user && key.find_first_of("?#") == std::string::npos;
    return whole ? std::optional(key) : std::nullopt;
  }
  const auto* hub = std::get_if<HubSource>(&source);
  if (hub == nullptr || hub->repo.type != hub::RepoType::kModel) return std::nullopt;
  return hub->repo.id + "/" + (hub->filename.empty() ? "*" : hub->filename);
}

EntryKind kind_of(const Source& source) {
  if (std::holds_alternative<PathSource>(source)) return EntryKind::kPath;
  if (const auto* url = std::get_if<UrlSource>(&source)) {
    return url->is_archive() ? EntryKind::kArchive : EntryKind::kUrl;
  }
  return std::get<HubSource>(source).filename.empty() ? EntryKind::kHubSnapshot
                                                      : EntryKind::kHubFile;
}

Status check_destinations(const std::vector<Entry>& entries, const std::vector<Source>& sources) {
  std::vector<std::string> problems;

  std::set<std::string_view> names;
  for (const Entry& entry : entries) {
    if (!entry.name.empty() && !names.insert(entry.name).second) {
      problems.push_back("two entries have the name " + named(entry));
    }
  }

  std::map<std::string, std::size_t> first_at;
  for (std::size_t i = 0; i < std::min(entries.size(), sources.size()); ++i) {
    const auto* url = std::get_if<UrlSource>(&sources[i]);
    if (url == nullptr) continue;
    std::error_code error;  // without a working directory the text as it is has to do
    std::filesystem::path path = std::filesystem::absolute(url->path(), error);
    if (error) path = url->path();
    const auto [at, is_new] = first_at.emplace(path.lexically_normal().string(), i);
    if (is_new) continue;
    const Entry& first = entries[at->second];
    if (first.source != entries[i].source) {
      problems.push_back("entries " + named(first) + " and " + named(entries[i]) +
                         " have different sources and one destination, `" + at->first + "`");
    } else if (lower_hex(first.sha256) != lower_hex(entries[i].sha256) ||
               first.size != entries[i].size) {
      problems.push_back("entries " + named(first) + " and " + named(entries[i]) +
                         " have one source and one destination, but not one sha256 and size");
    } else if (first.unpack != entries[i].unpack ||
               first.strip_components != entries[i].strip_components) {
      problems.push_back("entries " + named(first) + " and " + named(entries[i]) +
                         " have one destination, but not one `unpack` and `strip_components`");
    }
  }
  for (const auto& [path, index] : first_at) {
    for (std::size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0;
         slash = path.rfind('/', slash - 1)) {
      const auto folder = first_at.find(path.substr(0, slash));
      if (folder == first_at.end()) continue;
      problems.push_back("the destination of entry " + named(entries[index]) +
                         " lies below that of entry " + named(entries[folder->second]) + ", `" +
                         folder->first + "`, which is " +
                         (entries[folder->second].unpack ? "unpacked as a whole" : "a file"));
    }
  }

  if (problems.empty()) return {};
  std::string message;
  for (const std::string& problem : problems) message += (message.empty() ? "" : "\n") + problem;
  return fail(ErrorCode::kUsage, std::move(message), "give each its own `name`, or its own `dest`");
}

Result<std::vector<RepoFile>> select(const HubSource& source, const std::vector<RepoFile>& tree) {
  if (!source.filename.empty()) return select_file(source, tree);
  const std::vector<std::string> include = normalised(source.include);
  const std::vector<std::string> exclude = normalised(source.exclude);
  std::vector<RepoFile> files;
  std::copy_if(tree.begin(), tree.end(), std::back_inserter(files), [&](const RepoFile& file) {
    return (include.empty() || matches_any(include, file.path)) && !matches_any(exclude, file.path);
  });
  if (!files.empty()) return files;
  if (tree.empty()) return fail(ErrorCode::kNotFound, "`" + source.repo.id + "` has no files");
  std::string message = "no file of `" + source.repo.id + "` matches";
  if (!include.empty()) message += " include [" + joined(source.include) + "]";
  if (!exclude.empty()) message += " without exclude [" + joined(source.exclude) + "]";
  return fail(ErrorCode::kNotFound, std::move(message),
              "`*` matches \"/\" too; the patterns are huggingface_hub's");
}

}  // namespace fvprefetch
