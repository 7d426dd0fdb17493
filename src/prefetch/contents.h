// Can a file be the checkpoint that is asked for? Judged by what comes cheap: its size, its first
// KiB, and, of formats that say how long they are, their header and their end. A file that passes
// may still be wrong: a digest tells, this does not. Pure: bytes in, verdict out; a header may say
// anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "fvprefetch/error.h"
#include "source/resolve.h"
#include "transfer/sniff.h"

namespace fvprefetch {

struct Contents {
  std::uint64_t size = 0;  ///< bytes
  /// The bytes at `offset`, at most `length` of them; fewer only at the end of the file.
  std::function<Result<std::string>(std::uint64_t offset, std::size_t length)> read;
};

/// What the file is asked for as.
struct Asked {
  Wanted wanted = Wanted::kAnything;
  std::string suffix;        ///< as telling_suffix()
  bool may_be_empty = true;  ///< never so for weights
};
/// By its path in a repository, or its name in the cache and the address that it came from.
[[nodiscard]] Asked asked_as(std::string_view path, std::string_view address = {});
/// As a checkpoint that an entry names: it has at least a byte, whatever its suffix; one of a URL
/// may have none where it is asked for as text or as empty.
[[nodiscard]] Asked asked_of(const UrlSource& source);
[[nodiscard]] Asked asked_of(const PathSource& source);

/// What is wrong with it, as what is said of the file: "is empty", "is an HTML page, which begins
/// `<html>`", "is cut short: ..."; empty when nothing shows. At most six reads of up to 64 KiB, one
/// of a header of up to 16 MiB, and of a tar one block for each of the first hundred members; an
/// error is one of `read`.
[[nodiscard]] Result<std::string> fault_of(const Contents& contents, const Asked& asked);

}  // namespace fvprefetch
