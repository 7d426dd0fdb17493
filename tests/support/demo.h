// A manifest of real checkpoints made playable without the network: stand-in bytes for all of them
// below the hub's folder, and a copy of the manifest that points at the hub.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace fvprefetch::testhub {

struct DemoOptions {
  std::filesystem::path manifest;
  std::filesystem::path root;  // of the hub
  std::string url;             // of the hub
  std::filesystem::path out;
  std::uint64_t bytes = 65536;
};

/// Reads a version-1 manifest (or a bare array of entries). URL sources and mirrors become
/// <url>/plain/<host>/<path>; sha256 and size are those of the stand-ins for URL entries and for
/// single Hub files. Paths stay as they are. Throws std::runtime_error.
void make_demo(const DemoOptions& options);

}  // namespace fvprefetch::testhub
