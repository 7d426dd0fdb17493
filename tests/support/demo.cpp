#include "demo.h"

#include "digest.h"
#include "stand_in.h"
#include "url.h"

#include <nlohmann/json.hpp>

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <stdexcept>
#include <vector>

namespace fvprefetch::testhub {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

struct Demo {
  const DemoOptions& options;
  std::set<fs::path> sources;
  // Mirrors wait until every source is known, as one may be another entry's source.
  std::vector<std::pair<fs::path, fs::path>> mirrors;  // from, to
};

bool is_url(const std::string& text) {
  return text.starts_with("http://") || text.starts_with("https://");
}

// <host>/<path> without user, query and fragment; decoded, as the server decodes what it is asked.
std::string place_of(const std::string& url) {
  std::string rest = url.substr(url.find("://") + 3);
  rest = rest.substr(0, rest.find_first_of("?#"));
  const auto slash = rest.find('/');
  if (slash == std::string::npos) throw std::runtime_error(url + " names no file");
  const auto user = rest.rfind('@', slash);
  if (user != std::string::npos) rest.erase(0, user + 1);
  std::string place = percent_decode(rest);
  if (!is_safe_relative(place)) throw std::runtime_error(url + " has no usable path");
  return place;
}

std::string address_of(const std::string& url, const std::string& hub_url) {
  const auto query = url.find('?');
  const std::string rest = query == std::string::npos ? "" : url.substr(query);
  return hub_url + "/plain/" + percent_encode(place_of(url), "/:") + rest;
}

bool is_repo_id(const std::string& source, const Json& entry) {
  const std::vector<std::string> parts = split(source, '/');
  if (parts.size() > 2 || (parts.size() == 1 && !entry.contains("repo_type"))) return false;
  return std::all_of(parts.begin(), parts.end(), [](const std::string& part) {
    return !part.empty() && part.front() != '.' && part.front() != '~' &&
           percent_encode(part, "") == part;
  });
}

std::vector<std::string> patterns_of(const Json& entry, const char* key) {
  if (!entry.contains(key)) return {};
  std::vector<std::string> patterns;
  if (entry[key].is_string()) {
    patterns.push_back(entry[key].get<std::string>());
  } else {
    patterns = entry[key].get<std::vector<std::string>>();
  }
  for (std::string& pattern : patterns) {
    if (pattern.ends_with('/')) pattern += '*';
  }
  return patterns;
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& path) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), path.c_str(), FNM_NOESCAPE) == 0;
  });
}

// A path that the pattern matches: "*.bin" -> "model.bin", "[ab]?" -> "ax".
std::string example_of(const std::string& pattern) {
  std::string path;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const auto close = pattern.find(']', i + 2);
    if (pattern[i] == '*') {
      if (i == 0 || pattern[i - 1] != '*') path += "model";
    } else if (pattern[i] == '?') {
      path += 'x';
    } else if (pattern[i] == '[' && close != std::string::npos) {
      path += pattern[i + 1] == '!' ? '_' : pattern[i + 1];
      i = close;
    } else {
      path += pattern[i];
    }
  }
  return path;
}

std::vector<std::string> snapshot_files(const Json& entry) {
  std::vector<std::string> files = {"README.md", "config.json", "model.safetensors",
                                    "tokenizer.json"};
  const auto excluded = patterns_of(entry, "exclude");
  for (const std::string& pattern : patterns_of(entry, "include")) {
    const auto usable = [&](const std::string& path) {
      return matches_any({pattern}, path) && !matches_any(excluded, path);
    };
    if (std::any_of(files.begin(), files.end(), usable)) continue;
    const std::string example = example_of(pattern);
    if (usable(example) && is_safe_relative(example)) files.push_back(example);
  }
  return files;
}

// A revision other than main exists on the hub when the repository's settings name it.
void add_branch(const fs::path& repo, const std::string& revision) {
  const fs::path file = repo / ".testhub.json";
  Json settings = Json::object();
  if (std::ifstream in(file); in) settings = Json::parse(in);
  Json& branches = settings["branches"];
  if (branches.is_null()) branches = {{"main", "."}};
  if (branches.contains(revision)) return;
  branches[revision] = ".";
  fs::create_directories(repo);
  std::ofstream out(file);
  out << settings.dump(2) << "\n";
  if (!out.flush()) throw std::runtime_error("cannot write " + file.string());
}

std::uint64_t size_in(const Json& entry) {
  return entry.value("size", std::uint64_t{0});
}

void pin(Json& entry, const fs::path& file) {
  entry["sha256"] = file_sha256(file);
  entry["size"] = static_cast<std::uint64_t>(fs::file_size(file));
}

void copy_when_different(const fs::path& from, const fs::path& to) {
  if (fs::exists(to) && file_sha256(from) == file_sha256(to)) return;
  fs::create_directories(to.parent_path());
  fs::copy_file(from, to, fs::copy_options::overwrite_existing);
}

void make_url_entry(Demo& demo, Json& entry) {
  const std::string source = entry["source"].get<std::string>();
  const fs::path file = demo.options.root / "plain" / place_of(source);
  const auto form = entry.value("unpack", false) ? StandInForm::kArchive : StandInForm::kByName;
  demo.sources.insert(file);
  write_stand_in(file, source, demo.options.bytes, size_in(entry), form);
  entry["source"] = address_of(source, demo.options.url);
  if (entry.contains("mirrors")) {
    for (Json& mirror : entry["mirrors"]) {
      const std::string address = mirror.get<std::string>();
      if (!is_url(address)) continue;
      demo.mirrors.emplace_back(file, demo.options.root / "plain" / place_of(address));
      mirror = address_of(address, demo.options.url);
    }
  }
  pin(entry, file);
}

void make_hub_entry(const Demo& demo, Json& entry) {
  const std::string id = entry["source"].get<std::string>();
  const std::string key = entry.value("repo_type", std::string("model")) + "s/" + id;
  const fs::path repo = demo.options.root / key;
  const auto make = [&](const std::string& path, std::uint64_t known_size) {
    if (!is_safe_relative(path)) throw std::runtime_error(id + ": bad file name \"" + path + "\"");
    write_stand_in(repo / path, key + "/" + path, demo.options.bytes, known_size,
                   StandInForm::kByName);
  };
  const std::string filename = entry.value("filename", std::string());
  if (filename.empty()) {
    for (const std::string& path : snapshot_files(entry)) make(path, 0);
  } else {
    make(filename, size_in(entry));
    pin(entry, repo / filename);
  }
  const std::string revision = entry.value("revision", std::string("main"));
  if (revision != "main") add_branch(repo, revision);
}

void make_entry(Demo& demo, Json& entry) {
  if (!entry.is_object() || !entry.contains("source")) return;
  const std::string source = entry["source"].get<std::string>();
  if (is_url(source)) {
    make_url_entry(demo, entry);
  } else if (is_repo_id(source, entry)) {
    make_hub_entry(demo, entry);
  }
}

}  // namespace

void make_demo(const DemoOptions& options) {
  Json manifest;
  try {
    std::ifstream in(options.manifest);
    if (!in) throw std::runtime_error("cannot be read");
    manifest = Json::parse(in);
    Json& entries = manifest.is_array() ? manifest : manifest.at("entries");
    Demo demo{options, {}, {}};
    for (Json& entry : entries) make_entry(demo, entry);
    for (const auto& [from, to] : demo.mirrors) {
      if (!demo.sources.contains(to)) copy_when_different(from, to);
    }
  } catch (const std::exception& error) {
    throw std::runtime_error(options.manifest.string() + ": " + error.what());
  }
  fs::path temporary = options.out;
  temporary += "." + std::to_string(::getpid()) + ".tmp";
  std::ofstream out(temporary);
  out << manifest.dump(2) << "\n";
  out.close();
  if (!out) throw std::runtime_error("cannot write " + temporary.string());
  fs::rename(temporary, options.out);
}

}  // namespace fvprefetch::testhub
