#include "cache/zip_end.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/little_endian.h"
#include "base/try.h"

namespace fvprefetch {
namespace {

constexpr std::size_t kEnd = 22;
constexpr std::size_t kEnd64 = 56;
constexpr std::size_t kLocator64 = 20;
constexpr std::string_view kMagic = "PK\x05\x06";

// The last record whose comment is the rest of the file.
std::optional<std::size_t> find_record(std::string_view tail) {
  std::size_t at = tail.size();
  while (at >= kEnd) {
    at = tail.rfind(kMagic, at - kEnd);
    if (at == std::string_view::npos) return std::nullopt;
    if (at + kEnd + little_endian(tail, at + 20, 2) == tail.size()) return at;
    at += kEnd - 1;  // one in front of it
  }
  return std::nullopt;
}

}  // namespace

Result<ZipEnd> find_zip_end(
    std::uint64_t size,
    const std::function<Result<std::string>(std::uint64_t, std::size_t)>& read) {
  constexpr std::size_t kUsual = 1024;
  constexpr std::size_t kLongest = kEnd + 0xFFFF;
  ZipEnd found;
  std::string tail;
  std::optional<std::size_t> record;
  for (const std::size_t most : {kUsual, kLongest}) {
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(most, size));
    FVP_TRY(tail, read(size - length, length));
    record = tail.size() == length ? find_record(tail) : std::nullopt;  // it may shrink as we look
    if (record || length == size) break;
  }
  if (!record) {
    const std::size_t last = tail.rfind(kMagic);
    const bool behind = last != std::string::npos && tail.size() - last >= kEnd &&
                        last + kEnd + little_endian(tail, last + 20, 2) < tail.size();
    found.fault = behind ? ZipEnd::Fault::kBehind : ZipEnd::Fault::kMissing;
    return found;
  }
  found.end = size - tail.size() + *record;
  found.comment = found.end + kEnd;
  found.entries = little_endian(tail, *record + 10, 2);
  std::uint64_t length = little_endian(tail, *record + 12, 4);
  std::uint64_t told = little_endian(tail, *record + 16, 4);
  // PyTorch writes a zip64 record always, also where the other one tells everything.
  std::string locator;
  if (found.end >= kLocator64) {
    FVP_TRY(locator, read(found.end - kLocator64, kLocator64));
  }
  found.fault = ZipEnd::Fault::kUnreadable;
  if (locator.size() == kLocator64 && locator.starts_with("PK\x06\x07")) {
    const std::uint64_t at = little_endian(locator, 8, 8);
    if (at > found.end || found.end - at < kEnd64 + kLocator64) return found;
    FVP_TRY(const std::string end, read(at, kEnd64));
    if (end.size() != kEnd64 || !end.starts_with("PK\x06\x06")) return found;
    found.end = at;
    found.entries = little_endian(end, 32, 8);
    length = little_endian(end, 40, 8);
    told = little_endian(end, 48, 8);
  }
  // The directory ends where its record begins, wherever the zip itself begins.
  if (length > found.end || told > found.end - length) return found;
  found.begin = found.end - length;
  found.in_front = found.begin - told;
  found.fault = ZipEnd::Fault::kNone;
  return found;
}

}  // namespace fvprefetch
