#include "cache/receipt.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "base/digest.h"
#include "base/posix.h"
#include "base/try.h"
#include "cache/layout.h"

namespace fvprefetch {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;

bool is_sha256(std::string_view text) {
  return text.size() == 64 && is_hex(text);
}

// Fields of a JSON object; `ok` turns false when one has another type. An absent one is empty.
struct Reader {
  const json& object;
  bool ok = true;

  std::string text(const char* key) {
    const auto found = object.find(key);
    if (found == object.end()) return {};
    if (!found->is_string()) return ok = false, std::string();
    return found->get<std::string>();
  }
  template <typename T>
  T number(const char* key) {
    const auto found = object.find(key);
    if (found == object.end()) return 0;
    const bool fits =
        std::is_signed_v<T> ? found->is_number_integer() : found->is_number_unsigned();
    if (!fits) return ok = false, T{0};
    return found->get<T>();
  }
};

std::optional<ReceiptFile> file_from(const json& object) {
  if (!object.is_object()) return std::nullopt;
  Reader in{object};
  ReceiptFile file;
  file.path = in.text("path");
  file.size = in.number<std::uint64_t>("size");
  file.blob = in.text("blob");
  file.sha256 = in.text("sha256");
  file.mtime_ns = in.number<std::int64_t>("mtime_ns");
  file.link = in.text("link");
  if (!in.ok || !object.contains("size")) return std::nullopt;
  if (!file.sha256.empty() && !is_sha256(file.sha256)) return std::nullopt;
  // Names that become paths: whoever may write in a shared cache must not lead us out of it.
  if (!layout::safe_relative_path(file.path)) return std::nullopt;
  if (!file.blob.empty() && !layout::safe_blob_name(file.blob)) return std::nullopt;
  return file;
}

json to_json(const ReceiptFile& file) {
  json object = {{"path", file.path}, {"size", file.size}};
  if (!file.blob.empty()) object["blob"] = file.blob;
  if (!file.sha256.empty()) object["sha256"] = file.sha256;
  if (file.mtime_ns != 0) object["mtime_ns"] = file.mtime_ns;
  if (!file.link.empty()) object["link"] = file.link;
  return object;
}

std::optional<ReceiptArchive> archive_from(const json& object) {
  if (!object.is_object()) return std::nullopt;
  Reader in{object};
  ReceiptArchive archive;
  archive.sha256 = in.text("sha256");
  archive.size = in.number<std::uint64_t>("size");
  archive.strip_components = in.number<std::uint64_t>("strip_components");
  return in.ok && is_sha256(archive.sha256) ? std::optional(archive) : std::nullopt;
}

json to_json(const ReceiptArchive& archive) {
  return {{"sha256", archive.sha256},
          {"size", archive.size},
          {"strip_components", archive.strip_components}};
}

}  // namespace

std::optional<Receipt> read_receipt(const std::string& path) {
  const auto text = posix::read_small(path);  // through a link: see HubStore::read_ref()
  if (!text || !*text) return std::nullopt;
  const json object = json::parse(**text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  const auto version = object.find("version");
  if (version == object.end() || *version != kVersion) return std::nullopt;

  Reader in{object};
  Receipt receipt;
  receipt.id = in.text("id");
  receipt.source = in.text("source");
  receipt.source_key = in.text("source_key");
  receipt.revision = in.text("revision");
  receipt.commit = in.text("commit");
  receipt.resolved_at = in.text("resolved_at");
  receipt.written_at = in.text("written_at");
  const auto hashed = object.find("hashed");
  receipt.hashed = hashed != object.end() && *hashed == true;
  const auto files = object.find("files");
  if (!in.ok || receipt.id.empty() || files == object.end() || !files->is_array()) {
    return std::nullopt;
  }
  if (const auto archive = object.find("archive"); archive != object.end()) {
    receipt.archive = archive_from(*archive);
    if (!receipt.archive) return std::nullopt;
  }
  for (const json& item : *files) {
    auto file = file_from(item);
    if (!file) return std::nullopt;
    receipt.files.push_back(*std::move(file));
  }
  return receipt;
}

Status write_receipt(const std::string& temp, const std::string& path, Receipt receipt) {
  receipt.id = posix::random_hex(32);
  receipt.written_at = rfc3339_now();
  json object = {{"version", kVersion},
                 {"id", receipt.id},
                 {"source", receipt.source},
                 {"source_key", receipt.source_key},
                 {"written_at", receipt.written_at}};
  if (!receipt.revision.empty()) object["revision"] = receipt.revision;
  if (!receipt.commit.empty()) object["commit"] = receipt.commit;
  if (!receipt.resolved_at.empty()) object["resolved_at"] = receipt.resolved_at;
  if (receipt.hashed) object["hashed"] = true;
  if (receipt.archive) object["archive"] = to_json(*receipt.archive);
  json& files = object["files"] = json::array();
  for (const ReceiptFile& file : receipt.files) files.push_back(to_json(file));

  // A name that is not UTF-8 is written with replacement characters: it then agrees with no file,
  // which is what a receipt in doubt should do.
  const std::string text = object.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
  // Not synced, which would take as long as for the file that it tells of: what a power failure
  // leaves of it is the whole or reads as none, and then the file is looked at again.
  Status written = posix::replace_text(temp, path, text);
  if (written || written.error().code != ErrorCode::kNotFound) return written;
  FVP_CHECK_OK(posix::make_directories(posix::parent(path)));
  FVP_CHECK_OK(posix::make_directories(posix::parent(temp)));
  return posix::replace_text(temp, path, text);
}

}  // namespace fvprefetch
