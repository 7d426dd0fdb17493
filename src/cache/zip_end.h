// Where a zip's directory is: told by the record at its end, wherever a zip is looked into.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "fvprefetch/error.h"

namespace fvprefetch {

struct ZipEnd {
  enum class Fault {
    kNone,
    kMissing,    ///< there is no end record: it is no zip, or is cut short
    kBehind,     ///< something lies behind the record and its comment
    kUnreadable  ///< the record leads out of the file
  };
  Fault fault = Fault::kNone;
  std::uint64_t begin = 0;     ///< of the directory
  std::uint64_t end = 0;       ///< of the directory
  std::uint64_t in_front = 0;  ///< bytes that lie before the zip: a program that unpacks it
  std::uint64_t entries = 0;
  std::uint64_t comment = 0;  ///< offset of the comment, which is the rest of the file
};

/// Of a file of `size` bytes. `read` gives the bytes at an offset, fewer only at the end of the
/// file; its errors are those of this. Reads 1 KiB, and 64 KiB where a comment is longer than that.
[[nodiscard]] Result<ZipEnd> find_zip_end(
    std::uint64_t size,
    const std::function<Result<std::string>(std::uint64_t offset, std::size_t length)>& read);

}  // namespace fvprefetch
