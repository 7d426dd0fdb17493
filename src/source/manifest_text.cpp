// Manifest -> JSON, for files that we write ourselves. The inverse of manifest.cpp; a test holds
// the two together.
//
// Rule: the same entries give the same bytes, so that a lock file under version control changes
// only when what it pins does. Hence a fixed order of fields, no time and no version of the
// program.
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "fvprefetch/manifest.h"

namespace fvprefetch {
namespace {

using Json = nlohmann::ordered_json;

void put(Json& object, const char* field, const std::string& text) {
  if (!text.empty()) object[field] = text;
}

void put(Json& object, const char* field, const std::vector<std::string>& texts) {
  if (!texts.empty()) object[field] = texts;
}

Json to_json(const PinnedFile& file) {
  Json object{{"path", file.path}, {"size", file.size}};
  put(object, "sha256", file.sha256);
  put(object, "git_sha1", file.git_sha1);
  return object;
}

Json to_json(const Entry& entry) {
  Json object{{"name", entry.name}, {"source", entry.source}};
  put(object, "filename", entry.filename);
  put(object, "revision", entry.revision);
  put(object, "locked_from", entry.locked_from);
  put(object, "repo_type", entry.repo_type);
  put(object, "include", entry.include);
  put(object, "exclude", entry.exclude);
  put(object, "sha256", entry.sha256);
  if (entry.size) object["size"] = *entry.size;
  put(object, "mirrors", entry.mirrors);
  put(object, "dest", entry.dest);
  if (entry.unpack) object["unpack"] = true;
  if (entry.strip_components > 0) object["strip_components"] = entry.strip_components;
  if (entry.optional) object["optional"] = true;
  for (const PinnedFile& file : entry.files) object["files"].push_back(to_json(file));
  return object;
}

}  // namespace

std::string manifest_text(const Manifest& manifest) {
  Json document{{"version", 1}, {"entries", Json::array()}};
  for (const Entry& entry : manifest.entries) document["entries"].push_back(to_json(entry));
  return escaped_json(document.dump(2, ' ', false, Json::error_handler_t::replace)) + "\n";
}

}  // namespace fvprefetch
