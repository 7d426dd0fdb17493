// Bytes that stand in for a checkpoint: the same for the same identity on every machine, of a form
// that a reader of that file type accepts as far as its header goes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace fvprefetch::testhub {

enum class StandInForm { kByName, kArchive };

/// Writes `file` unless it has the right size already (that of the stand-in, or `known_size` when
/// not 0: then it may be the real thing). By temporary file and rename. `bytes` is the size of
/// binary files; JSON and text have sizes of their own. kArchive makes a zip, tar or tar.gz, by
/// name, with one top folder. Returns the size on disk; throws std::runtime_error.
std::uint64_t write_stand_in(const std::filesystem::path& file, const std::string& identity,
                             std::uint64_t bytes, std::uint64_t known_size, StandInForm form);

}  // namespace fvprefetch::testhub
