#include "prefetch/cargo.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/posix.h"
#include "base/try.h"
#include "cache/hf_store.h"
#include "cache/url_store.h"
#include "prefetch/archive.h"
#include "prefetch/extra.h"
#include "prefetch/lookup.h"
#include "prefetch/session.h"
#include "source/resolve.h"

namespace fvprefetch {
namespace {

using nlohmann::json;

Result<CargoEntry> load_hub(const HubSource& source, const Session& session,
                            const EntryReport& report) {
  // The commit that the report names, wherever its branch has gone meanwhile. Whether its files are
  // there was looked at for the report; who reads them finds what has gone since.
  Told told;
  told.commit = report.commit;
  FVP_TRY(Survey survey, list_hub(source, session, told));
  if (survey.unlisted()) {  // a cache that somebody else made: its blobs' names tell enough
    FVP_TRY(survey.files, files_in_snapshot(source, session, report.commit));
    survey.commit = report.commit;
    const bool told_all =
        std::all_of(survey.files.begin(), survey.files.end(),
                    [](const FileSpec& file) { return file.size && file.digest; });
    if (!told_all) return fail(ErrorCode::kNotFound, "the cache does not tell its digests");
  }
  const HubStore store = session.store(source.repo);
  CargoEntry entry;
  entry.commit = survey.commit;
  entry.resolved_at = report.resolved_at;
  for (FileSpec& file : survey.files) {
    FVP_CHECK_OK(HubStore::accepts(file));
    std::string from = store.paths().pointer(survey.commit, file.path);
    entry.files.push_back({std::move(file), std::move(from), false});
  }
  entry.tree = store.read_tree(survey.commit);
  return entry;
}

Result<CargoEntry> load_archive(const UrlSource& source, const Session& session) {
  FVP_TRY(const Survey survey, look(source, session, Hashing::kForbidden));
  const auto receipt = archive_receipt(UrlStore(source.root, source.relative));
  if (survey.need != Survey::Need::kNothing || survey.verified_by != "receipt" || !receipt) {
    return fail(ErrorCode::kNotFound, "nothing tells what it was unpacked from");
  }
  CargoEntry entry;
  entry.archive = receipt->archive;
  for (const ReceiptFile& file : receipt->files) {
    if (!file.link.empty()) {
      entry.links.emplace_back(file.path, file.link);
      continue;
    }
    CargoFile carried;
    carried.spec.path = file.path;
    carried.spec.size = file.size;
    carried.spec.digest = Digest{Digest::Kind::kSha256, file.sha256};
    carried.from = source.path() + "/" + file.path;
    FVP_TRY(const auto info, posix::stat(carried.from));
    carried.executable = info && info->executable;
    entry.files.push_back(std::move(carried));
  }
  return entry;
}

Result<CargoEntry> load_url(const UrlSource& source, const Session& session) {
  if (source.is_archive()) return load_archive(source, session);
  const UrlStore store(source.root, source.relative);
  FVP_TRY(const auto info, store.lookup());
  if (!info) return fail(ErrorCode::kNotFound, "it is not there any more");
  CargoFile file{source.file, source.path(), false};
  file.spec.urls.clear();
  file.spec.size = info->size;
  if (const auto receipt = url_receipt(store, *info);
      receipt && !receipt->files.front().sha256.empty()) {
    file.spec.digest = Digest{Digest::Kind::kSha256, receipt->files.front().sha256};
  }
  CargoEntry entry;
  entry.files.push_back(std::move(file));
  return entry;
}

json to_json(const FileSpec& file) {
  json out{{"path", file.path}, {"blob", file.blob}};
  if (file.size) out["size"] = *file.size;
  if (file.digest) {
    out["hex"] = file.digest->hex;
    out["git"] = file.digest->kind == Digest::Kind::kGitSha1;
  }
  return out;
}

FileSpec file_from(const json& in) {
  FileSpec file;
  file.path = in.at("path").get<std::string>();
  file.blob = in.at("blob").get<std::string>();
  if (in.contains("size")) file.size = in["size"].get<std::uint64_t>();
  if (in.contains("hex")) {
    file.digest = Digest{in.at("git").get<bool>() ? Digest::Kind::kGitSha1 : Digest::Kind::kSha256,
                         in["hex"].get<std::string>()};
  }
  return file;
}

json to_json(const RepoFile& file) {
  return json::array(
      {file.path, file.size, file.git_oid, file.lfs_sha256, file.lfs_size, file.xet_hash});
}

RepoFile repo_file_from(const json& in) {
  return {in.at(0).get<std::string>(), in.at(1).get<std::uint64_t>(), in.at(2).get<std::string>(),
          in.at(3).get<std::string>(), in.at(4).get<std::uint64_t>(), in.at(5).get<std::string>()};
}

}  // namespace

Place place_in(const std::string& directory) {
  return {directory + "/hub", directory + "/eval", {}};
}

Result<Cargo> load_cargo(const Manifest& manifest, const Options& options, const Report& report,
                         Place place, const std::vector<std::size_t>& only) {
  const Session session(options, {});
  const ExtraCaches extras(options);
  Cargo cargo;
  cargo.place = std::move(place);
  cargo.space_check = options.space_check;
  cargo.manifest = manifest;
  const std::set<std::size_t> chosen(only.begin(), only.end());
  for (std::size_t i = 0; i < report.entries.size() && i < manifest.entries.size(); ++i) {
    const EntryReport& told = report.entries[i];
    if (!succeeded(told.state) || told.kind == EntryKind::kPath) continue;
    if (!only.empty() && !chosen.contains(i)) continue;
    const auto entry = [&]() -> Result<CargoEntry> {
      const auto extra = extras.find(manifest.entries[i], Hashing::kForbidden, session.offline());
      if (extra && extra->survey.path == told.path) {
        if (const auto* url = std::get_if<UrlSource>(&extra->source))
          return load_url(*url, *extra->session);
        return load_hub(std::get<HubSource>(extra->source), *extra->session, told);
      }
      FVP_TRY(const Source source,
              resolve(manifest.entries[i], session.env(), session.eval_cache()));
      if (const auto* url = std::get_if<UrlSource>(&source)) return load_url(*url, session);
      if (const auto* hub = std::get_if<HubSource>(&source)) return load_hub(*hub, session, told);
      return fail(ErrorCode::kNotFound, "it is an existing path now");
    }();
    if (entry) {
      cargo.entries.push_back(*entry);
      cargo.entries.back().index = i;
    } else {
      cargo.left_behind.emplace_back(i, describe(entry.error()));
    }
  }
  return cargo;
}

std::string cargo_to_text(const Cargo& cargo) {
  json out{{"hub_cache", cargo.place.hub_cache},        {"eval_cache", cargo.place.eval_cache},
           {"torch_home", cargo.place.torch_home},      {"space_check", cargo.space_check},
           {"manifest", manifest_text(cargo.manifest)}, {"left_behind", cargo.left_behind}};
  out["entries"] = json::array();
  for (const CargoEntry& entry : cargo.entries) {
    json one{{"index", entry.index}, {"commit", entry.commit}, {"resolved_at", entry.resolved_at}};
    one["files"] = json::array();
    for (const CargoFile& file : entry.files) {
      one["files"].push_back(to_json(file.spec));
      if (file.executable) one["files"].back()["executable"] = true;
    }
    if (entry.archive) {
      one["archive"] = {entry.archive->sha256, entry.archive->size,
                        entry.archive->strip_components};
      one["links"] = entry.links;
    }
    if (entry.tree) {
      one["tree"] = json::array();
      for (const RepoFile& file : *entry.tree) one["tree"].push_back(to_json(file));
    }
    out["entries"].push_back(std::move(one));
  }
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<Cargo> cargo_from_text(std::string_view text) {
  const json in = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!in.is_object()) return fail(ErrorCode::kInternal, "rank 0's cargo list is not JSON");
  try {
    Cargo cargo;
    cargo.place = {in.at("hub_cache").get<std::string>(), in.at("eval_cache").get<std::string>(),
                   in.at("torch_home").get<std::string>()};
    cargo.space_check = in.at("space_check").get<bool>();
    FVP_TRY(cargo.manifest, parse_manifest(in.at("manifest").get<std::string>(), "rank 0"));
    in.at("left_behind").get_to(cargo.left_behind);
    for (const json& one : in.at("entries")) {
      CargoEntry entry;
      entry.index = one.at("index").get<std::size_t>();
      if (entry.index >= cargo.manifest.entries.size()) {
        return fail(ErrorCode::kInternal, "rank 0's cargo list names an entry that there is not");
      }
      entry.commit = one.at("commit").get<std::string>();
      entry.resolved_at = one.at("resolved_at").get<std::string>();
      for (const json& file : one.at("files")) {
        entry.files.push_back({file_from(file), {}, file.contains("executable")});
      }
      if (one.contains("archive")) {
        const json& archive = one["archive"];
        entry.archive =
            ReceiptArchive{archive.at(0).get<std::string>(), archive.at(1).get<std::uint64_t>(),
                           archive.at(2).get<std::uint64_t>()};
        one.at("links").get_to(entry.links);
      }
      if (one.contains("tree")) {
        entry.tree.emplace();
        for (const json& file : one["tree"]) entry.tree->push_back(repo_file_from(file));
      }
      cargo.entries.push_back(std::move(entry));
    }
    return cargo;
  } catch (const json::exception& e) {  // a field of the wrong type
    return fail(ErrorCode::kInternal, std::string("rank 0's cargo list: ") + e.what());
  }
}

}  // namespace fvprefetch
