// What of a run a node needs in order to have its entries on a disk of its own: which files, where
// they are read, and which caches on the node they go to. Made where the run was, sent to every
// node, unloaded there by a Depot.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/receipt.h"
#include "fvprefetch/error.h"
#include "fvprefetch/manifest.h"
#include "fvprefetch/plan.h"
#include "fvprefetch/prefetch.h"
#include "fvprefetch/report.h"

namespace fvprefetch {

/// The caches of a node; the same paths on every node.
struct Place {
  std::string hub_cache;
  std::string eval_cache;
  std::string torch_home;  ///< empty: torch's files lie in the eval cache, too

  bool operator==(const Place&) const = default;
};

/// A stage directory holds both caches: DIR/hub and DIR/eval.
[[nodiscard]] Place place_in(const std::string& directory);

struct CargoFile {
  FileSpec spec;            ///< without addresses; of a URL file the sha256 that its receipt tells
  std::string from;         ///< where the sender reads it; nobody else knows it
  bool executable = false;  ///< unpacked only
};

struct CargoEntry {
  std::size_t index = 0;  ///< in the manifest
  std::string commit;     ///< Hub
  std::string resolved_at;
  std::vector<CargoFile> files;
  std::optional<std::vector<RepoFile>> tree;  ///< Hub, where the sender's cache has it
  /// Of an entry that is unpacked: from what. `files` are what came out of it, by their paths in
  /// the directory, and these are its symbolic links with their texts.
  std::optional<ReceiptArchive> archive;
  std::vector<std::pair<std::string, std::string>> links;
};

struct Cargo {
  Place place;
  bool space_check = true;
  Manifest manifest;
  std::vector<CargoEntry> entries;
  /// What is not carried although it is there, and why, by index. (Existing paths are the user's
  /// own and stay where they are; they are not named here.)
  std::vector<std::pair<std::size_t, std::string>> left_behind;
};

/// The entries of `report` that are there, as the caches of `options` have them. No request, no
/// lock, no write. `only`: these indices; empty: all.
[[nodiscard]] Result<Cargo> load_cargo(const Manifest& manifest, const Options& options,
                                       const Report& report, Place place,
                                       const std::vector<std::size_t>& only = {});

/// For the wire, without CargoFile::from. Holds the manifest, and so what secrets its addresses
/// have: not to be written anywhere.
[[nodiscard]] std::string cargo_to_text(const Cargo& cargo);
[[nodiscard]] Result<Cargo> cargo_from_text(std::string_view text);

}  // namespace fvprefetch
