// The text of a manifest from a file, a pipe or standard input, where the other end may take its
// time, or never close it.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "fvprefetch/error.h"
#include "fvprefetch/manifest.h"

namespace fvprefetch {

inline constexpr std::size_t kLargestManifest = std::size_t{64} << 20U;  // bytes

struct InputWait {
  /// Why the wait has to end (a signal, the deadline); asked ten times a second. May be empty.
  std::function<std::optional<Error>()> must_stop;
  /// Nothing has come for `waited`: after 2 s, then every 30 s. May be empty.
  std::function<void(const std::string& what, std::chrono::milliseconds waited)> on_wait;
};

/// "-": standard input, up to the end of the JSON document: launchers do not always pass the end of
/// the file on (Open MPI 5.0 to rank 0, MPICH's hydra to the others). Errors as load_manifest(),
/// and those of must_stop(). Blocks on the other end.
[[nodiscard]] Result<std::string> read_manifest_text(const std::string& path,
                                                     const InputWait& wait = {});
/// How messages name `path`: "<stdin>" for "-".
[[nodiscard]] std::string manifest_origin(const std::string& path);

/// Finds the end of a JSON document in text that comes in pieces.
class JsonEnd {
 public:
  /// True: the object or array that the text began with is closed.
  [[nodiscard]] bool closed_after(std::string_view piece);

 private:
  enum class State { kBefore, kInside, kOther, kClosed };
  State state_ = State::kBefore;  ///< kOther: it begins with neither, and has no end of its own
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

}  // namespace fvprefetch
