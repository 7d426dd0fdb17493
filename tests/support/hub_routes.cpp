#include "hub_routes.h"

#include "digest.h"
#include "url.h"

#include <openssl/evp.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <ctime>
#include <map>
#include <vector>

namespace fvprefetch::testhub {

using Json = nlohmann::ordered_json;

namespace {

constexpr std::size_t kExpandedPage = 50;
constexpr std::string_view kBearer = "Bearer ";
constexpr std::string_view kUnknownToken = "hf_invalid";

enum class Style { kApi, kFile };

Reply json_reply(const Json& value) {
  Reply reply;
  reply.content_type = "application/json; charset=utf-8";
  reply.body = Body::of_text(value.dump(-1, ' ', false, Json::error_handler_t::replace));
  return reply;
}

Reply error_reply(Style style, int status, const std::string& code, const std::string& message) {
  Reply reply = style == Style::kApi ? json_reply({{"error", message}}) : Reply{};
  if (style == Style::kFile) reply.body = Body::of_text(message);
  reply.status = status;
  if (!code.empty()) reply.add("X-Error-Code", code);
  reply.add("X-Error-Message", message);
  return reply;
}

std::string base_of(const Request& request) {
  return "http://" + (request.host.empty() ? "localhost" : request.host);
}

std::string quoted(const std::string& text) {
  return '"' + text + '"';
}

std::string base64(const std::string& text) {
  std::string out((text.size() + 2) / 3 * 4 + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  out.resize(static_cast<std::size_t>(size));
  return out;
}

std::optional<std::string> from_base64(const std::string& text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  std::string out(text.size() / 4 * 3, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  if (size < 0) return std::nullopt;
  const auto padding = static_cast<std::size_t>(std::count(text.end() - 2, text.end(), '='));
  out.resize(static_cast<std::size_t>(size) - padding);
  return out;
}

bool is_true(const std::string& text) {
  return text == "true" || text == "True" || text == "1";
}

std::size_t number_or(const std::string& text, std::size_t fallback) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && value > 0 ? value : fallback;
}

std::string iso_date(std::int64_t modified_ns) {
  const std::time_t seconds = modified_ns / 1'000'000'000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.000Z", &parts)};
}

std::string file_name_of(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

std::string disposition_of(const std::string& path) {
  const std::string name = file_name_of(path);
  return "inline; filename*=UTF-8''" + percent_encode(name, "") + "; filename=\"" +
         percent_encode(name, " ") + "\";";
}

std::optional<RepoType> type_named(const std::string& plural) {
  for (const RepoType type : {RepoType::kModel, RepoType::kDataset, RepoType::kSpace}) {
    if (plural == plural_of(type)) return type;
  }
  return std::nullopt;
}

bool is_commit_id(const std::string& text) {
  return text.size() == 40 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::string token_of(const Request& request) {
  const std::string value = request.authorization.value_or("");
  return value.starts_with(kBearer) ? value.substr(kBearer.size()) : "";
}

bool may_read(const Request& request, const Repo& repo) {
  return !repo.settings.token.empty() && token_of(request) == repo.settings.token;
}

Reply missing_repo(const Request& request, Style style) {
  if (token_of(request).empty()) {
    // Without X-Error-Code: the Hub does not tell strangers what exists.
    return error_reply(style, 401, "", "Invalid username or password.");
  }
  return error_reply(style, 404, "RepoNotFound", "Repository not found");
}

Reply missing_revision(Style style, const std::string& revision) {
  return error_reply(style, 404, "RevisionNotFound", "Invalid rev id: " + revision);
}

Reply missing_entry(Style style, const std::string& commit) {
  Reply reply = error_reply(style, 404, "EntryNotFound", "Entry not found");
  reply.add("X-Repo-Commit", commit);
  return reply;
}

// What the CDN checks: the query must arrive as it was sent.
std::string signature_of(const std::string& path, const std::string& expires) {
  return sha256_hex("testhub signs " + path + " until " + expires);
}

std::string signed_query(const std::string& cdn_path, const std::string& file_path) {
  constexpr std::int64_t kLifetimeSeconds = 3600;
  const std::string expires = std::to_string(std::time(nullptr) + kLifetimeSeconds);
  const std::string policy = base64(R"({"Statement":[{"Resource":")" + cdn_path + R"("}]})");
  return "?response-content-disposition=" + percent_encode(disposition_of(file_path), "") +
         "&response-content-type=application%2Foctet-stream&Expires=" + expires +
         "&Policy=" + percent_encode(policy, "") + "&Signature=" + signature_of(cdn_path, expires) +
         "&Key-Pair-Id=TESTHUB";
}

std::string masked(const std::string& hash, const Repo& repo) {
  return repo.settings.gated ? std::string(hash.size(), '*') : hash;
}

struct TreeEntry {
  const RepoFile* file = nullptr;  // null: a directory
  std::string oid;
};

// Files and directories below `folder` ("" = top), by path.
std::map<std::string, TreeEntry> tree_entries(const Snapshot& snapshot, const std::string& folder,
                                              bool recursive) {
  std::map<std::string, TreeEntry> entries;
  std::map<std::string, std::string> folder_contents;
  const std::string prefix = folder.empty() ? "" : folder + "/";
  for (const auto& [path, file] : snapshot.files) {
    if (!path.starts_with(prefix)) continue;
    bool hidden = false;
    for (auto slash = path.find('/', prefix.size()); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
      if (!hidden) folder_contents[path.substr(0, slash)] += path + '\0' + file.git_oid + '\n';
      hidden = !recursive;
    }
    if (!hidden) entries[path] = {&file, file.git_oid};
  }
  for (const auto& [path, contents] : folder_contents) {
    entries[path] = {nullptr, sha1_hex("tree " + contents)};
  }
  return entries;
}

Json tree_json(const std::string& path, const TreeEntry& entry, const Repo& repo) {
  if (entry.file == nullptr) {
    return {{"type", "directory"}, {"oid", entry.oid}, {"size", 0}, {"path", path}};
  }
  const RepoFile& file = *entry.file;
  Json out = {{"type", "file"}, {"oid", file.git_oid}, {"size", file.size()}};
  if (file.is_lfs) {
    out["lfs"] = {{"oid", file.sha256}, {"size", file.size()}, {"pointerSize", file.pointer_size}};
    if (repo.settings.xet) out["xetHash"] = masked(file.xet_hash, repo);
  }
  out["path"] = path;
  return out;
}

// One commit is all the history that a repository has here.
Json last_commit(const Snapshot& snapshot) {
  return {
      {"id", snapshot.commit}, {"title", "Add files"}, {"date", iso_date(snapshot.modified_ns)}};
}

}  // namespace

struct HubRoutes::Address {
  enum class Kind { kInfo, kTree, kPathsInfo, kRefs, kResolve, kResolveCache };
  Kind kind = Kind::kInfo;
  RepoType type = RepoType::kModel;
  std::size_t id_at = 0;  // first segment of the repository id ...
  std::size_t id_length = 0;
  std::string id;
  std::string revision = "main";
  std::string path;

  Style style() const {
    return kind == Kind::kResolve || kind == Kind::kResolveCache ? Style::kFile : Style::kApi;
  }
};

// An id has one segment or two, so the word after it (or the commit, or the end) decides.
std::optional<HubRoutes::Address> HubRoutes::parse(const Request& request) const {
  const std::vector<std::string>& parts = request.segments;
  Address address;
  const bool api = parts.size() > 1 && parts[0] == "api";
  const bool cache = api && parts[1] == "resolve-cache";
  std::size_t at = cache ? 2 : (api ? 1 : 0);
  if (at < parts.size() && (api || parts[at] != "models")) {
    const auto type = type_named(parts[at]);
    if (api && !type) return std::nullopt;
    if (type) {
      address.type = *type;
      ++at;
    }
  }
  address.id_at = at;

  using Kind = Address::Kind;
  const auto kind_of = [&](const std::string& word) -> std::optional<Kind> {
    if (cache) return is_commit_id(word) ? std::optional(Kind::kResolveCache) : std::nullopt;
    if (!api) return word == "resolve" ? std::optional(Kind::kResolve) : std::nullopt;
    if (word == "revision") return Kind::kInfo;
    if (word == "tree") return Kind::kTree;
    if (word == "paths-info") return Kind::kPathsInfo;
    if (word == "refs") return Kind::kRefs;
    return std::nullopt;
  };
  for (const std::size_t length : {std::size_t{2}, std::size_t{1}}) {
    std::size_t next = at + length;
    const bool ends = api && !cache && next == parts.size();
    if (!ends && (next >= parts.size() || !kind_of(parts[next]))) continue;
    address.id_length = length;
    address.id = length == 2 ? parts[at] + "/" + parts[at + 1] : parts[at];
    if (ends) return address;
    address.kind = *kind_of(parts[next]);
    if (!cache) ++next;
    if (address.kind == Kind::kRefs) return address;
    // "refs/pr/1" also comes with its slashes unencoded.
    if (next + 2 < parts.size() && parts[next] == "refs") {
      address.revision = parts[next] + "/" + parts[next + 1] + "/" + parts[next + 2];
      next += 3;
    } else if (next < parts.size()) {
      address.revision = parts[next++];
    }
    if (next < parts.size()) address.path = join(parts, next, '/');
    return address;
  }
  return std::nullopt;
}

Reply HubRoutes::handle(const Request& request, Ranges ranges) {
  const auto address = parse(request);
  if (!address) return error_reply(Style::kFile, 404, "", "Not Found");
  const Style style = address->style();
  if (token_of(request).starts_with(kUnknownToken)) {
    return error_reply(style, 401, "", "Invalid credentials in Authorization header");
  }
  const auto repo = store_.find(address->type, address->id);
  if (!repo) return missing_repo(request, style);
  if (!repo->settings.renamed_to.empty()) {
    std::string location;
    for (std::size_t i = 0; i < request.raw_segments.size(); ++i) {
      if (i > address->id_at && i < address->id_at + address->id_length) continue;
      location += "/" + (i == address->id_at ? repo->settings.renamed_to : request.raw_segments[i]);
    }
    if (!request.query.empty()) location += "?" + request.query;
    Reply reply;
    reply.status = 307;
    reply.add("Location", location);
    reply.body = Body::of_text("Temporary Redirect. Redirecting to " + location);
    return reply;
  }
  if (repo->settings.is_private && !may_read(request, *repo)) return missing_repo(request, style);
  if (repo->settings.disabled) {
    return error_reply(style, 403, "", "Access to this resource is disabled.");
  }
  if (repo->settings.gated && style == Style::kFile && !may_read(request, *repo)) {
    const std::string subject = "Access to " + repo->id + " is restricted";
    if (token_of(request).empty()) {
      return error_reply(style, 401, "GatedRepo",
                         subject +
                             ". You must have access to it and be authenticated to access "
                             "it. Please log in.");
    }
    return error_reply(style, 403, "GatedRepo",
                       subject + " and you are not in the authorized list. Visit " +
                           base_of(request) + "/" + repo->id + " to ask for access.");
  }
  switch (address->kind) {
    case Address::Kind::kInfo:
      return info(request, *repo, address->revision);
    case Address::Kind::kTree:
      return tree(request, *repo, *address);
    case Address::Kind::kPathsInfo:
      return paths_info(request, *repo, address->revision);
    case Address::Kind::kRefs:
      return refs(*repo);
    case Address::Kind::kResolve:
      return resolve(request, *repo, *address);
    case Address::Kind::kResolveCache:
      return resolve_cache(request, *repo, *address, ranges);
  }
  return {};
}

Reply HubRoutes::info(const Request& request, const Repo& repo, const std::string& revision) {
  const auto snapshot = store_.snapshot(repo, revision);
  if (!snapshot) return missing_revision(Style::kApi, revision);
  const bool blobs = is_true(query_value(request.query, "blobs"));
  Json siblings = Json::array();
  std::uint64_t used = 0;
  for (const auto& [path, file] : snapshot->files) {
    Json sibling = {{"rfilename", path}};
    if (blobs) {
      sibling["size"] = file.size();
      sibling["blobId"] = file.git_oid;
      if (file.is_lfs) {
        sibling["lfs"] = {
            {"sha256", file.sha256}, {"size", file.size()}, {"pointerSize", file.pointer_size}};
      }
    }
    siblings.push_back(std::move(sibling));
    used += file.size();
  }
  Json out = {{"_id", sha1_hex(repo.key()).substr(0, 24)}, {"id", repo.id}};
  if (repo.type == RepoType::kModel) out["modelId"] = repo.id;
  const auto slash = repo.id.find('/');
  if (slash != std::string::npos) out["author"] = repo.id.substr(0, slash);
  out["sha"] = snapshot->commit;
  out["lastModified"] = iso_date(snapshot->modified_ns);
  out["createdAt"] = iso_date(snapshot->modified_ns);
  out["private"] = repo.settings.is_private;
  out["gated"] = repo.settings.gated ? Json("manual") : Json(false);
  out["disabled"] = repo.settings.disabled;
  out["downloads"] = 0;
  out["likes"] = 0;
  out["tags"] = Json::array();
  out["siblings"] = std::move(siblings);
  out["usedStorage"] = used;
  return json_reply(out);
}

Reply HubRoutes::tree(const Request& request, const Repo& repo, const Address& address) {
  const auto snapshot = store_.snapshot(repo, address.revision);
  if (!snapshot) return missing_revision(Style::kApi, address.revision);
  const auto entries =
      tree_entries(*snapshot, address.path, is_true(query_value(request.query, "recursive")));
  if (entries.empty() && !address.path.empty()) return missing_entry(Style::kApi, snapshot->commit);

  const bool expand = is_true(query_value(request.query, "expand"));
  const std::size_t most = expand ? std::min(page_size_, kExpandedPage) : page_size_;
  const std::size_t limit = std::min(most, number_or(query_value(request.query, "limit"), most));
  auto entry = entries.begin();
  if (const std::string cursor = query_value(request.query, "cursor"); !cursor.empty()) {
    const auto last = from_base64(cursor);
    if (!last) return error_reply(Style::kApi, 400, "", "Invalid cursor");
    entry = entries.upper_bound(*last);
  }

  Json page = Json::array();
  std::string last_path;
  for (; entry != entries.end() && page.size() < limit; ++entry) {
    page.push_back(tree_json(entry->first, entry->second, repo));
    if (expand) page.back()["lastCommit"] = last_commit(*snapshot);
    last_path = entry->first;
  }
  Reply reply = json_reply(page);
  reply.add("X-Repo-Commit", snapshot->commit);
  if (entry != entries.end()) {
    std::string next = base_of(request) + request.path + "?";
    for (const std::string& field : split(request.query, '&')) {
      if (field.empty() || field.starts_with("cursor=") || field.starts_with("limit=")) continue;
      next += field + "&";
    }
    next += "limit=" + std::to_string(limit) + "&cursor=" + percent_encode(base64(last_path), "");
    reply.add("Link", "<" + next + ">; rel=\"next\"");
  }
  return reply;
}

// {"paths": [...], "expand": bool}; a path that is not there has no entry in the answer.
Reply HubRoutes::paths_info(const Request& request, const Repo& repo, const std::string& revision) {
  const auto snapshot = store_.snapshot(repo, revision);
  if (!snapshot) return missing_revision(Style::kApi, revision);
  const Json asked = Json::parse(request.content, nullptr, false);
  if (!asked.is_object() || !asked.contains("paths")) {
    return error_reply(Style::kApi, 400, "", "Invalid body");
  }
  const bool expand = asked.value("expand", false);
  const auto entries = tree_entries(*snapshot, "", true);
  Json out = Json::array();
  for (const auto& path : asked["paths"]) {
    const auto entry = entries.find(path.get<std::string>());
    if (entry == entries.end()) continue;
    out.push_back(tree_json(entry->first, entry->second, repo));
    if (expand) out.back()["lastCommit"] = last_commit(*snapshot);
  }
  return json_reply(out);
}

Reply HubRoutes::refs(const Repo& repo) {
  Json branches = Json::array();
  for (const auto& [name, folder] : repo.settings.branches) {
    const auto snapshot = store_.snapshot(repo, name);
    if (!snapshot || is_commit_id(name)) continue;
    branches.push_back(
        {{"name", name}, {"ref", "refs/heads/" + name}, {"targetCommit", snapshot->commit}});
  }
  return json_reply({{"tags", Json::array()}, {"branches", branches}, {"converts", Json::array()}});
}

Reply HubRoutes::resolve(const Request& request, const Repo& repo, const Address& address) {
  const auto snapshot = store_.snapshot(repo, address.revision);
  if (!snapshot) return missing_revision(Style::kFile, address.revision);
  const auto found = snapshot->files.find(address.path);
  if (found == snapshot->files.end() || !RepoStore::is_current(found->second)) {
    return missing_entry(Style::kFile, snapshot->commit);
  }
  const RepoFile& file = found->second;
  Reply reply;
  reply.real_file = file.disk;
  reply.add("X-Repo-Commit", snapshot->commit);
  reply.add("X-Linked-Etag", quoted(file.etag()));
  reply.add("Accept-Ranges", "bytes");
  std::string location;
  if (file.is_lfs) {
    const std::string cdn_path = "/lfs/" + repo.key() + "/" + file.sha256;
    location = cdn_base_(request) + cdn_path + signed_query(cdn_path, file.path);
    reply.status = 302;
    reply.add("X-Linked-Size", std::to_string(file.size()));
    if (repo.settings.xet) {
      const std::string base = base_of(request);
      reply.add("X-Xet-Hash", file.xet_hash);
      reply.add("Link", "<" + base + "/api/" + repo.key() + "/xet-read-token/" + snapshot->commit +
                            ">; rel=\"xet-auth\", <" + base + "/v1/reconstructions/" +
                            file.xet_hash + ">; rel=\"xet-reconstruction-info\"");
    }
    reply.body = Body::of_text("Found. Redirecting to " + location);
  } else {
    location = "/api/resolve-cache/" + repo.key() + "/" + snapshot->commit + "/" +
               percent_encode(file.path, "/") + "?" + percent_encode(request.path, "") +
               "=&etag=" + percent_encode(quoted(file.git_oid), "");
    reply.status = 307;
    reply.body = Body::of_text("Temporary Redirect. Redirecting to " + location);
  }
  reply.add("Location", location);
  return reply;
}

Reply HubRoutes::resolve_cache(const Request& request, const Repo& repo, const Address& address,
                               Ranges ranges) {
  const auto snapshot = store_.snapshot(repo, address.revision);
  if (!snapshot) return missing_revision(Style::kFile, address.revision);
  const auto found = snapshot->files.find(address.path);
  auto disk = found == snapshot->files.end() || !RepoStore::is_current(found->second)
                  ? nullptr
                  : OpenFile::open(found->second.disk);
  if (!disk) return missing_entry(Style::kFile, snapshot->commit);
  const RepoFile& file = found->second;
  Reply reply = file_reply(request, std::move(disk), quoted(file.etag()), ranges);
  if (reply.is_file_body) reply.content_type = "text/plain; charset=utf-8";
  reply.real_file = file.disk;
  reply.add("X-Repo-Commit", snapshot->commit);
  reply.add("Content-Disposition", disposition_of(file.path));
  return reply;
}

Reply CdnRoutes::handle(const Request& request, Ranges ranges) {
  if (request.authorization) {
    stats_.saw_cdn_authorization();
    return error_reply(Style::kFile, 400, "",
                       "Only one auth mechanism allowed: a signed address came with an "
                       "Authorization header");
  }
  const std::vector<std::string>& parts = request.segments;
  const auto type = parts.size() > 3 && parts[0] == "lfs" ? type_named(parts[1]) : std::nullopt;
  if (!type || parts.size() > 5) return error_reply(Style::kFile, 404, "", "NoSuchKey");
  if (query_value(request.query, "Signature") !=
      signature_of(request.path, query_value(request.query, "Expires"))) {
    return error_reply(Style::kFile, 403, "", "AccessDenied: the signature does not match");
  }
  const std::string id = parts.size() == 5 ? parts[2] + "/" + parts[3] : parts[2];
  const auto repo = store_.find(*type, id);
  const auto file = repo ? store_.find_lfs(*repo, parts.back()) : std::nullopt;
  auto disk = file ? OpenFile::open(file->disk) : nullptr;
  if (!disk) return error_reply(Style::kFile, 404, "", "NoSuchKey");
  // An etag that is neither the sha256 nor the size: nobody may take it for one.
  const std::string etag =
      repo->settings.xet ? file->xet_hash : file->xet_hash.substr(0, 32) + "-3";
  Reply reply = file_reply(request, std::move(disk), quoted(etag), ranges);
  reply.real_file = file->disk;
  reply.add("Content-Disposition", disposition_of(file->path));
  return reply;
}

}  // namespace fvprefetch::testhub
