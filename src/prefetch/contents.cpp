#include "prefetch/contents.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/little_endian.h"
#include "base/try.h"
#include "prefetch/space.h"

namespace fvprefetch {
namespace {

using Fault = Result<std::string>;

std::string cut_short(std::string_view format, std::uint64_t told, std::uint64_t size) {
  return "is cut short: its " + std::string(format) + " header tells of " + std::to_string(told) +
         " bytes, it has " + std::to_string(size);
}

std::uint64_t product(std::uint64_t a, std::uint64_t b) {
  return a != 0 && b > UINT64_MAX / a ? UINT64_MAX : a * b;
}

// --- zip (torch since 1.6, NumPy's .npz, Keras)
// ---------------------------------------------------

constexpr std::size_t kZipEnd = 22;
constexpr std::size_t kZip64End = 56;
constexpr std::size_t kZip64Locator = 20;

/// Offset of the last end record that is whole, in `tail`.
std::optional<std::size_t> find_zip_end(std::string_view tail) {
  if (tail.size() < kZipEnd) return std::nullopt;
  const std::size_t found = tail.rfind("PK\x05\x06", tail.size() - kZipEnd);
  return found == std::string_view::npos ? std::nullopt : std::optional(found);
}

Fault zip_fault(const Contents& contents) {
  constexpr std::size_t kUsual = 1024;                // torch writes no comment
  constexpr std::size_t kLongest = kZipEnd + 0xFFFF;  // with the longest comment
  constexpr std::string_view kCut = "is cut short: it is a zip archive without its end record";
  std::string tail;
  std::optional<std::size_t> end;
  for (const std::size_t most : {kUsual, kLongest}) {
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(most, contents.size));
    FVP_TRY(tail, contents.read(contents.size - length, length));
    if (tail.size() != length) return std::string(kCut);  // it shrinks as we look
    end = find_zip_end(tail);
    if (end || length == contents.size) break;
  }
  if (!end) return std::string(kCut);
  std::uint64_t record = contents.size - tail.size() + *end;
  std::uint64_t entries = little_endian(tail, *end + 10, 2);
  std::uint64_t length = little_endian(tail, *end + 12, 4);
  std::uint64_t offset = little_endian(tail, *end + 16, 4);
  const bool is_zip64 = entries == 0xFFFF || length == 0xFFFFFFFF || offset == 0xFFFFFFFF;
  if (is_zip64 && record >= kZip64Locator) {
    FVP_TRY(const std::string locator, contents.read(record - kZip64Locator, kZip64Locator));
    if (locator.size() == kZip64Locator && locator.starts_with("PK\x06\x07")) {
      const std::uint64_t at = little_endian(locator, 8, 8);
      if (at > record - kZip64Locator)
        return std::string("is cut: its zip end record leads out of it");
      FVP_TRY(const std::string big, contents.read(at, kZip64End));
      if (big.size() != kZip64End || !big.starts_with("PK\x06\x06")) {
        return std::string("is no whole zip archive: its end record is damaged");
      }
      record = at;
      entries = little_endian(big, 32, 8);
      length = little_endian(big, 40, 8);
      offset = little_endian(big, 48, 8);
    }
  }
  // The directory ends where the record begins; something may stand in front of the archive.
  if (length > record || offset > record - length) {
    return std::string("is no whole zip archive: it is shorter than its directory tells");
  }
  if (entries == 0) return std::string();
  FVP_TRY(const std::string first, contents.read(record - length, 4));
  if (first != "PK\x01\x02") {
    return std::string("is no whole zip archive: its directory is not where it should be");
  }
  return std::string();
}

// --- safetensors ---------------------------------------------------------------------------------

/// The largest end of a tensor's data_offsets. A header is {name: {"data_offsets": [begin, end]}}.
class Offsets : public nlohmann::json_sax<nlohmann::json> {
 public:
  [[nodiscard]] std::uint64_t end() const { return end_; }

  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(number_integer_t /*value*/) override { return !in_offsets(); }
  bool number_unsigned(number_unsigned_t value) override {
    if (!in_offsets()) return true;
    if (numbers_ > 1 || value < last_) return false;
    last_ = value;
    if (++numbers_ == 2) end_ = std::max<std::uint64_t>(end_, value);
    return true;
  }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override {
    return !in_offsets();
  }
  bool string(string_t& /*value*/) override { return depth_ > 0 && !in_offsets(); }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(std::size_t /*elements*/) override { return deeper(); }
  bool key(string_t& value) override {
    is_offsets_ = depth_ == 2 && value == "data_offsets";
    return true;
  }
  bool end_object() override { return --depth_, true; }
  bool start_array(std::size_t /*elements*/) override {
    numbers_ = 0;
    last_ = 0;
    return deeper() && depth_ > 1;
  }
  bool end_array() override {
    const bool whole = !in_offsets() || numbers_ == 2;
    --depth_;
    return whole;
  }
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::json::exception& /*why*/) override {
    return false;
  }

 private:
  static constexpr int kDeepest = 3;
  bool deeper() { return ++depth_ <= kDeepest; }
  [[nodiscard]] bool in_offsets() const { return is_offsets_ && depth_ == kDeepest; }

  int depth_ = 0;
  bool is_offsets_ = false;
  int numbers_ = 0;
  std::uint64_t last_ = 0;
  std::uint64_t end_ = 0;
};

Fault safetensors_fault(const Contents& contents, std::string_view front) {
  constexpr std::size_t kLength = 8;
  constexpr std::uint64_t kLongest = 100'000'000;     // the format's own limit
  constexpr std::uint64_t kLongestRead = 16U << 20U;  // of what is parsed here
  std::string no_format = "is no safetensors file: it has no header";
  if (front.size() <= kLength || front[kLength] != '{') return no_format;
  const std::uint64_t length = little_endian(front, 0, kLength);
  if (length > kLongest) return no_format;
  if (length > contents.size - kLength) {
    return cut_short("safetensors", kLength + length, contents.size);
  }
  if (length > kLongestRead) return std::string();
  FVP_TRY(const std::string header, contents.read(kLength, static_cast<std::size_t>(length)));
  Offsets offsets;
  if (header.size() != length || !nlohmann::json::sax_parse(header, &offsets)) {
    return std::string("is no safetensors file: its header cannot be read");
  }
  const std::uint64_t told = add_sizes(kLength + length, offsets.end());
  if (told > contents.size) return cut_short("safetensors", told, contents.size);
  if (told < contents.size) {
    return "is longer than its safetensors header tells: " + std::to_string(told) +
           " bytes, it has " + std::to_string(contents.size);
  }
  return std::string();
}

// --- HDF5 (Keras, MATLAB)
// -------------------------------------------------------------------------

constexpr std::string_view kHdf5 = "\x89HDF\r\n\x1a\n";

/// Of the superblock at `at`, which tells where the file ends.
Fault hdf5_fault(const Contents& contents, std::uint64_t at) {
  constexpr std::size_t kSuperblock = 64;
  FVP_TRY(const std::string block, contents.read(at, kSuperblock));
  if (block.size() < 16) return std::string("is cut short: it ends in its HDF5 header");
  const auto byte = [&block](std::size_t i) { return static_cast<unsigned char>(block[i]); };
  const unsigned version = byte(8);
  const std::size_t width = byte(version < 2 ? 13 : 9);
  if (version > 3 || (width != 4 && width != 8)) return std::string();  // not known here
  const std::size_t addresses = version == 0 ? 24 : version == 1 ? 28 : 12;
  const std::size_t end_at = addresses + 2 * width;
  if (block.size() < end_at + width) return std::string("is cut short: it ends in its HDF5 header");
  const std::uint64_t end = little_endian(block, end_at, width);
  const bool undefined = end == (width == 8 ? UINT64_MAX : 0xFFFFFFFF);
  if (!undefined && end > contents.size) return cut_short("HDF5", end, contents.size);
  return std::string();
}

/// Where the superblock is; a block of the user's may stand in front.
std::optional<std::uint64_t> find_hdf5(std::string_view front) {
  for (const std::size_t at : {std::size_t{0}, std::size_t{512}}) {
    if (front.size() > at && front.substr(at).starts_with(kHdf5)) return at;
  }
  return std::nullopt;
}

Fault named_hdf5_fault(const Contents& contents) {
  for (const std::uint64_t at : {1024U, 2048U, 4096U}) {
    if (at >= contents.size) break;
    FVP_TRY(const std::string block, contents.read(at, kHdf5.size()));
    if (block == kHdf5) return std::string();
  }
  return std::string("is no HDF5 file");
}

// --- NumPy ---------------------------------------------------------------------------------------

std::optional<std::uint64_t> digits(std::string_view& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

/// Bytes of an array with this header; nullopt where it is not one of plain numbers or strings.
std::optional<std::uint64_t> npy_bytes(std::string_view header) {
  const auto after = [header](std::string_view key) {
    const std::size_t at = header.find(key);
    return at == std::string_view::npos ? std::string_view() : header.substr(at + key.size());
  };
  std::string_view type = after("'descr': '");
  if (type.empty()) return std::nullopt;
  if (std::string_view("<>|=").find(type.front()) != std::string_view::npos) type.remove_prefix(1);
  if (type.empty() || std::string_view("biufcSUV?").find(type.front()) == std::string_view::npos) {
    return std::nullopt;
  }
  const std::uint64_t unit = type.front() == 'U' ? 4 : 1;
  type.remove_prefix(1);
  const auto width = digits(type);
  if (!width || !type.starts_with('\'')) return std::nullopt;
  std::string_view shape = after("'shape': (");
  if (shape.empty()) return std::nullopt;
  std::uint64_t bytes = product(unit, *width);
  while (!shape.starts_with(')')) {
    const auto length = digits(shape);
    if (!length) return std::nullopt;
    bytes = product(bytes, *length);
    while (shape.starts_with(',') || shape.starts_with(' ')) shape.remove_prefix(1);
  }
  return bytes;
}

Fault npy_fault(const Contents& contents, std::string_view front) {
  if (!front.starts_with("\x93NUMPY")) return std::string("is no NumPy array");
  std::string in_header = "is cut short: it ends in its NumPy header";
  if (front.size() < 12) return in_header;
  const std::size_t width = front[6] == 1 ? 2 : 4;
  const std::uint64_t begin = 8 + width + little_endian(front, 8, width);
  if (begin > contents.size) return in_header;
  constexpr std::uint64_t kLongest = 64U << 10U;
  if (begin > kLongest) return std::string();
  FVP_TRY(const std::string header, contents.read(0, static_cast<std::size_t>(begin)));
  const auto bytes = npy_bytes(header);
  if (!bytes) return std::string();
  const std::uint64_t told = add_sizes(begin, *bytes);
  return told > contents.size ? cut_short("NumPy", told, contents.size) : std::string();
}

// --- any -----------------------------------------------------------------------------------------

struct Magic {
  std::string_view suffix;
  std::string_view begins;
  std::string_view what;
};
constexpr auto kMagics = std::to_array<Magic>({{".gguf", "GGUF", "GGUF file"},
                                               {".gz", "\x1f\x8b", "gzip file"},
                                               {".tgz", "\x1f\x8b", "gzip file"},
                                               {".bz2", "BZh", "bzip2 file"},
                                               {".tbz2", "BZh", "bzip2 file"},
                                               {".xz",
                                                "\xFD"
                                                "7zXZ",
                                                "xz file"},
                                               {".txz",
                                                "\xFD"
                                                "7zXZ",
                                                "xz file"},
                                               {".7z", "7z\xBC\xAF", "7z archive"}});

bool is_zero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

/// Room that was made for a download that has not come.
Fault zeros_fault(const Contents& contents, const Asked& asked, std::string_view front) {
  if (!is_zero(front)) return std::string();
  // Plain numbers may begin with zeros; formats with a header do not.
  const bool plain = asked.wanted != Wanted::kWeights || asked.suffix == ".bin" ||
                     asked.suffix == ".weights" || asked.suffix == ".onnx_data";
  if (!plain) return std::string("begins with zeros where a header ought to be");
  const std::uint64_t last = contents.size - std::min<std::uint64_t>(contents.size, kSniffBytes);
  for (const std::uint64_t at : {contents.size / 2, last}) {
    FVP_TRY(const std::string piece, contents.read(at, kSniffBytes));
    if (!is_zero(piece)) return std::string();
  }
  return std::string("has nothing but zeros, as far as was looked");
}

/// By what it says that it is, and by what its name says.
Fault format_fault(const Contents& contents, const Asked& asked, std::string_view front) {
  const std::string& suffix = asked.suffix;
  if (suffix == ".safetensors") return safetensors_fault(contents, front);
  if (suffix == ".npy") return npy_fault(contents, front);
  const bool is_zip = front.starts_with("PK\x03\x04") || front.starts_with("PK\x05\x06");
  if (!is_zip && (suffix == ".npz" || suffix == ".keras")) {
    return std::string("is no zip archive, which such a file is");
  }
  // A program may stand in front of an archive that unpacks itself.
  if (is_zip || suffix == ".zip") return zip_fault(contents);
  const auto hdf5 = find_hdf5(front);
  if (hdf5) return hdf5_fault(contents, *hdf5);
  if (suffix == ".h5" || suffix == ".hdf5") return named_hdf5_fault(contents);
  for (const Magic& magic : kMagics) {
    if (suffix == magic.suffix && !front.starts_with(magic.begins)) {
      return "is no " + std::string(magic.what);
    }
  }
  return std::string();
}

}  // namespace

Asked asked_as(std::string_view path, std::string_view address) {
  Asked asked;
  asked.wanted = wanted_as(path, address);
  asked.suffix = telling_suffix(path, address);
  asked.may_be_empty = asked.wanted != Wanted::kWeights;
  return asked;
}

Result<std::string> fault_of(const Contents& contents, const Asked& asked) {
  if (contents.size == 0) return asked.may_be_empty ? std::string() : std::string("is empty");
  FVP_TRY(const std::string front, contents.read(0, kSniffBytes));
  const Impostor impostor = sniff(front);
  if (!may_be(impostor, asked.wanted)) return "is " + describe(impostor, front);
  if (asked.wanted == Wanted::kPage) return std::string();
  FVP_TRY(std::string zeros, zeros_fault(contents, asked, front));
  if (!zeros.empty()) return zeros;
  return format_fault(contents, asked, front);
}

}  // namespace fvprefetch
