// {"node", "directories": [{"role", "path", "real_path", "examined", "exists", "mode", "owner",
// "group", "readable", "writable", "bytes_total", "bytes_free", "files_total", "files_free",
// "read_only", "file_system", "source", "mount_point", "options", "device", "local",
// "probe_base"}], "token_from", "endpoint", "offline", "proxies": [{"variable", "value"}],
// "no_proxy", "certificate_file", "certificate_directory", "findings": [{"severity", "about",
// "error"}]}; what is not known is null. Ranks of one job run one program: there is no version.
#include <nlohmann/json.hpp>

#include "base/try.h"
#include "prefetch/error_json.h"
#include "prefetch/examine.h"

namespace fvprefetch {
namespace {

using nlohmann::ordered_json;

template <typename T>
void take(const ordered_json& json, const char* field, T& target) {
  const auto found = json.find(field);
  if (found == json.end() || found->is_null()) return;
  found->get_to(target);
}

ordered_json directory_to_json(const ExaminedDirectory& directory) {
  ordered_json out{{"role", directory.role},
                   {"path", text_or_null(directory.path)},
                   {"real_path", text_or_null(directory.real_path)},
                   {"examined", text_or_null(directory.examined)},
                   {"exists", directory.exists}};
  out["mode"] = directory.rights ? ordered_json(directory.rights->mode) : nullptr;
  out["owner"] = directory.rights ? ordered_json(directory.rights->owner) : nullptr;
  out["group"] = directory.rights ? ordered_json(directory.rights->group) : nullptr;
  out["readable"] = directory.rights ? ordered_json(directory.rights->read) : nullptr;
  out["writable"] = directory.rights ? ordered_json(directory.rights->write) : nullptr;
  out["bytes_total"] = directory.space ? ordered_json(directory.space->bytes_total) : nullptr;
  out["bytes_free"] = directory.space ? ordered_json(directory.space->bytes_free) : nullptr;
  out["files_total"] = directory.space ? ordered_json(directory.space->files_total) : nullptr;
  out["files_free"] = directory.space ? ordered_json(directory.space->files_free) : nullptr;
  out["read_only"] = directory.space ? ordered_json(directory.space->read_only) : nullptr;
  out["file_system"] = directory.mount ? ordered_json(directory.mount->type) : nullptr;
  out["source"] = directory.mount ? ordered_json(directory.mount->source) : nullptr;
  out["mount_point"] = directory.mount ? ordered_json(directory.mount->point) : nullptr;
  out["options"] = directory.mount ? ordered_json(directory.mount->options) : nullptr;
  out["device"] = directory.device;
  out["local"] = directory.local;
  out["probe_base"] = text_or_null(directory.probe_base);
  return out;
}

ExaminedDirectory directory_from_json(const ordered_json& json) {
  ExaminedDirectory directory;
  take(json, "role", directory.role);
  take(json, "path", directory.path);
  take(json, "real_path", directory.real_path);
  take(json, "examined", directory.examined);
  take(json, "exists", directory.exists);
  if (!json.at("mode").is_null()) {
    posix::Rights& rights = directory.rights.emplace();
    take(json, "mode", rights.mode);
    take(json, "owner", rights.owner);
    take(json, "group", rights.group);
    take(json, "readable", rights.read);
    take(json, "writable", rights.write);
  }
  if (!json.at("bytes_total").is_null()) {
    posix::Space& space = directory.space.emplace();
    take(json, "bytes_total", space.bytes_total);
    take(json, "bytes_free", space.bytes_free);
    take(json, "files_total", space.files_total);
    take(json, "files_free", space.files_free);
    take(json, "read_only", space.read_only);
  }
  if (!json.at("file_system").is_null()) {
    posix::Mount& mount = directory.mount.emplace();
    take(json, "file_system", mount.type);
    take(json, "source", mount.source);
    take(json, "mount_point", mount.point);
    take(json, "options", mount.options);
  }
  take(json, "device", directory.device);
  take(json, "local", directory.local);
  take(json, "probe_base", directory.probe_base);
  return directory;
}

}  // namespace

std::string to_json_line(const ExaminedNode& node) {
  ordered_json directories = ordered_json::array();
  for (const ExaminedDirectory& directory : node.directories) {
    directories.push_back(directory_to_json(directory));
  }
  ordered_json proxies = ordered_json::array();
  for (const environment::Setting& proxy : node.proxies) {
    proxies.push_back({{"variable", proxy.name}, {"value", proxy.value}});
  }
  ordered_json findings = ordered_json::array();
  for (const Finding& finding : node.findings) {
    findings.push_back({{"severity", name(finding.severity)},
                        {"about", finding.about},
                        {"error", error_to_json(finding.error)}});
  }
  const ordered_json out{{"node", node.node},
                         {"directories", std::move(directories)},
                         {"token_from", text_or_null(node.token_from)},
                         {"endpoint", node.endpoint},
                         {"offline", node.offline},
                         {"proxies", std::move(proxies)},
                         {"no_proxy", text_or_null(node.no_proxy)},
                         {"certificate_file", text_or_null(node.certificate_file)},
                         {"certificate_directory", text_or_null(node.certificate_directory)},
                         {"findings", std::move(findings)}};
  // A path need not be UTF-8; the document must be.
  return out.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

Result<ExaminedNode> examined_from_json(std::string_view text) {
  // Our own words: an exception for what has another shape says enough.
  return guard([&]() -> Result<ExaminedNode> {
    const ordered_json json = ordered_json::parse(text);
    ExaminedNode node;
    take(json, "node", node.node);
    for (const ordered_json& directory : json.at("directories")) {
      node.directories.push_back(directory_from_json(directory));
    }
    take(json, "token_from", node.token_from);
    take(json, "endpoint", node.endpoint);
    take(json, "offline", node.offline);
    for (const ordered_json& proxy : json.at("proxies")) {
      environment::Setting& setting = node.proxies.emplace_back();
      take(proxy, "variable", setting.name);
      take(proxy, "value", setting.value);
    }
    take(json, "no_proxy", node.no_proxy);
    take(json, "certificate_file", node.certificate_file);
    take(json, "certificate_directory", node.certificate_directory);
    for (const ordered_json& told : json.at("findings")) {
      Finding& finding = node.findings.emplace_back();
      finding.severity =
          told.at("severity") == name(Severity::kFailure) ? Severity::kFailure : Severity::kWarning;
      take(told, "about", finding.about);
      finding.error = error_from_json(told.at("error"));
    }
    return node;
  });
}

}  // namespace fvprefetch
