#include "prefetch/contents.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/little_endian.h"
#include "base/try.h"
#include "cache/zip_end.h"
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

bool is_zero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

// --- zip (torch since 1.6, NumPy's .npz, Keras)
// ---------------------------------------------------

Fault zip_fault(const Contents& contents) {
  FVP_TRY(const ZipEnd end, find_zip_end(contents.size, contents.read));
  switch (end.fault) {
    case ZipEnd::Fault::kMissing:
      return std::string("is cut short: it is a zip archive without its end record");
    case ZipEnd::Fault::kBehind:
      return std::string("is no whole zip archive: its end record is not its end");
    case ZipEnd::Fault::kUnreadable:
      return std::string("is no whole zip archive: it is shorter than its end record tells");
    case ZipEnd::Fault::kNone:
      break;
  }
  if (end.entries == 0) return std::string();
  FVP_TRY(const std::string first, contents.read(end.begin, 4));
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

/// Bytes of one element of this type ("<f4", "<M8[ns]"), which is taken from `type`.
std::optional<std::uint64_t> npy_element(std::string_view& type) {
  if (type.empty()) return std::nullopt;
  if (std::string_view("<>|=").find(type.front()) != std::string_view::npos) type.remove_prefix(1);
  if (type.empty() ||
      std::string_view("biufcSUVMm?").find(type.front()) == std::string_view::npos) {
    return std::nullopt;
  }
  const std::uint64_t unit = type.front() == 'U' ? 4 : 1;
  type.remove_prefix(1);
  const auto width = digits(type);
  if (type.starts_with('[')) type.remove_prefix(std::min(type.find('\''), type.size()));
  if (!width || !type.starts_with('\'')) return std::nullopt;
  type.remove_prefix(1);
  return product(unit, *width);
}

/// Of a structure: [('a', '<f4'), ('b', '<i8')], from behind its first bracket on.
std::optional<std::uint64_t> npy_structure(std::string_view text) {
  std::uint64_t bytes = 0;
  while (text.starts_with("('")) {
    const std::size_t type = text.find("', '", 2);
    if (type == std::string_view::npos) return std::nullopt;
    text.remove_prefix(type + 4);
    const auto element = npy_element(text);
    if (!element || !text.starts_with(')')) return std::nullopt;  // an array in it
    bytes = add_sizes(bytes, *element);
    text.remove_prefix(1);
    while (text.starts_with(',') || text.starts_with(' ')) text.remove_prefix(1);
  }
  return text.starts_with(']') ? std::optional(bytes) : std::nullopt;
}

/// Bytes of an array with this header; nullopt where it is not one of plain numbers or strings.
std::optional<std::uint64_t> npy_bytes(std::string header) {
  std::replace(header.begin(), header.end(), '"', '\'');
  const auto after = [&header](std::string_view key) {
    const std::size_t at = header.find(key);
    return at == std::string::npos ? std::string_view()
                                   : std::string_view(header).substr(at + key.size());
  };
  std::string_view type = after("'descr': '");
  std::optional<std::uint64_t> bytes =
      type.empty() ? npy_structure(after("'descr': [")) : npy_element(type);
  std::string_view shape = after("'shape': (");
  if (!bytes || shape.empty()) return std::nullopt;
  while (!shape.starts_with(')')) {
    const auto length = digits(shape);
    if (!length) return std::nullopt;
    bytes = product(*bytes, *length);
    if (shape.starts_with('L')) shape.remove_prefix(1);  // Python 2
    while (shape.starts_with(',') || shape.starts_with(' ')) shape.remove_prefix(1);
  }
  return bytes;
}

Fault npy_fault(const Contents& contents, std::string_view front) {
  // ndarray.dump() writes a pickle, and who loads it takes one.
  const bool is_pickle =
      front.starts_with('\x80') && front.size() > 1 && static_cast<unsigned char>(front[1]) <= 5;
  if (is_pickle) return std::string();
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

// --- GGUF ----------------------------------------------------------------------------------------

/// Bytes of so many elements of a type, where it is known; each block of so many has so many bytes.
std::uint64_t gguf_bytes(std::uint64_t type, std::uint64_t elements) {
  struct Block {
    std::uint64_t elements;
    std::uint64_t bytes;
  };
  constexpr auto kBlocks = std::to_array<Block>(
      {{1, 4},    {1, 2},    {32, 18},  {32, 20},   {1, 0},     {1, 0},     {32, 22},   {32, 24},
       {32, 34},  {32, 36},  {256, 84}, {256, 110}, {256, 144}, {256, 176}, {256, 210}, {256, 292},
       {256, 66}, {256, 74}, {256, 98}, {256, 50},  {32, 18},   {256, 110}, {256, 82},  {256, 136},
       {1, 1},    {1, 2},    {1, 4},    {1, 8},     {1, 8},     {256, 56},  {1, 2}});
  if (type >= kBlocks.size()) return 0;
  const Block& block = kBlocks[static_cast<std::size_t>(type)];
  return product(elements / block.elements, block.bytes);
}

/// The header, number after number. What leads out of the bytes that there are is asked for by
/// `ended`; from then on all is 0.
class GgufHeader {
 public:
  explicit GgufHeader(std::string_view bytes) : bytes_(bytes) {}

  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] std::uint64_t position() const { return position_; }

  std::uint64_t number(std::size_t width) {
    const std::uint64_t at = position_;
    skip(width);
    return ended_ ? 0 : little_endian(bytes_, static_cast<std::size_t>(at), width);
  }
  void skip(std::uint64_t length) {
    ended_ = ended_ || length > bytes_.size() - position_;
    if (!ended_) position_ += length;
  }
  std::string_view string() {
    const std::uint64_t length = number(8);
    const std::uint64_t at = position_;
    skip(length);
    return ended_ ? std::string_view()
                  : bytes_.substr(static_cast<std::size_t>(at), static_cast<std::size_t>(length));
  }
  /// False where the type is not known.
  bool skip_value(std::uint64_t type) {
    constexpr std::uint64_t kString = 8;
    constexpr std::uint64_t kArray = 9;
    if (type == kString) return (void)string(), true;
    if (type != kArray) {
      skip(width_of(type));
      return width_of(type) > 0;
    }
    const std::uint64_t of = number(4);
    const std::uint64_t count = number(8);
    if (of == kString) {
      for (std::uint64_t i = 0; i < count && !ended_; ++i) (void)string();
      return true;
    }
    skip(product(count, width_of(of)));
    return width_of(of) > 0;
  }
  static std::size_t width_of(std::uint64_t type) {
    constexpr auto kWidths = std::to_array<std::size_t>({1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8});
    return type < kWidths.size() ? kWidths[static_cast<std::size_t>(type)] : 0;
  }

 private:
  std::string_view bytes_;
  std::uint64_t position_ = 0;
  bool ended_ = false;
};

/// Where the file has to end; nullopt: the header is of a kind that is not known. `header` is at
/// its end too early where the bytes do.
std::optional<std::uint64_t> gguf_end(GgufHeader& header) {
  header.skip(4);
  const std::uint64_t version = header.number(4);
  if (version != 2 && version != 3) return std::nullopt;
  const std::uint64_t tensors = header.number(8);
  const std::uint64_t keys = header.number(8);
  constexpr std::uint64_t kMostOfEach = 1'000'000;  // more are not believed
  if (tensors > kMostOfEach || keys > kMostOfEach) return std::nullopt;
  std::uint64_t alignment = 32;
  for (std::uint64_t i = 0; i < keys && !header.ended(); ++i) {
    const bool is_alignment = header.string() == "general.alignment";
    const std::uint64_t type = header.number(4);
    constexpr std::uint64_t kUint32 = 4;
    if (is_alignment && type == kUint32) {
      alignment = header.number(4);
    } else if (!header.skip_value(type) && !header.ended()) {
      return std::nullopt;
    }
  }
  std::uint64_t end = 0;
  for (std::uint64_t i = 0; i < tensors && !header.ended(); ++i) {
    (void)header.string();
    const std::uint64_t dimensions = header.number(4);
    constexpr std::uint64_t kMost = 8;
    if (dimensions > kMost) return std::nullopt;
    std::uint64_t elements = 1;
    for (std::uint64_t d = 0; d < dimensions; ++d) elements = product(elements, header.number(8));
    const std::uint64_t type = header.number(4);
    const std::uint64_t offset = header.number(8);
    if (!header.ended()) end = std::max(end, add_sizes(offset, gguf_bytes(type, elements)));
  }
  if (alignment == 0 || tensors == 0) return header.position();
  const std::uint64_t begin = (header.position() + alignment - 1) / alignment * alignment;
  return add_sizes(begin, end);
}

Fault gguf_fault(const Contents& contents) {
  for (const std::size_t most : {std::size_t{64} << 10U, std::size_t{16} << 20U}) {
    FVP_TRY(const std::string bytes, contents.read(0, most));
    GgufHeader header(bytes);
    const auto end = gguf_end(header);
    if (!end) return std::string();
    if (header.ended() && bytes.size() == contents.size) {
      return std::string("is cut short: it ends in its GGUF header");
    }
    if (header.ended()) continue;
    return *end > contents.size ? cut_short("GGUF", *end, contents.size) : std::string();
  }
  return std::string();
}

// --- tar (torch before 0.2, and what is to be unpacked) ------------------------------------------

constexpr std::size_t kTarBlock = 512;

/// The number in a field of octal digits; nullopt where it is none.
std::optional<std::uint64_t> octal(std::string_view field) {
  std::uint64_t value = 0;
  field.remove_prefix(std::min(field.find_first_not_of(' '), field.size()));
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value, 8);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

/// The size of the member whose head this is; nullopt where it is none.
std::optional<std::uint64_t> tar_member(std::string_view head) {
  constexpr std::size_t kSum = 148;
  if (head.size() != kTarBlock) return std::nullopt;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < head.size(); ++i) {
    sum += i >= kSum && i < kSum + 8 ? ' ' : static_cast<unsigned char>(head[i]);
  }
  if (octal(head.substr(kSum, 8)) != sum) return std::nullopt;
  constexpr std::string_view kWithoutData = "123456S";  // of sparse ones it is not known
  if (kWithoutData.find(head[156]) != std::string_view::npos) return 0;
  return octal(head.substr(124, 12));
}

Fault tar_fault(const Contents& contents) {
  constexpr int kMost = 100;
  std::uint64_t at = 0;
  for (int members = 0; members < kMost && at < contents.size; ++members) {
    FVP_TRY(const std::string head, contents.read(at, kTarBlock));
    if (head.size() < kTarBlock && !is_zero(head)) {
      return std::string("is cut short: it ends in the head of a member of this tar");
    }
    const auto size = tar_member(head);
    if (!size) break;  // the zeros at the end, or what is not known
    const std::uint64_t end = add_sizes(at + kTarBlock, *size);
    if (end > contents.size) {
      return "is cut short: a member of this tar ends at " + std::to_string(end) + ", it has " +
             std::to_string(contents.size) + " bytes";
    }
    at = (end + kTarBlock - 1) / kTarBlock * kTarBlock;
  }
  return std::string();
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

/// A block of the user's, of words or of zeros, may stand in front.
bool is_hdf5(const Asked& asked) {
  return asked.suffix == ".h5" || asked.suffix == ".hdf5";
}

/// Room that was made for a download that has not come.
Fault zeros_fault(const Contents& contents, const Asked& asked, std::string_view front) {
  if (!is_zero(front)) return std::string();
  // Plain numbers may begin with zeros; formats with a header do not.
  if (is_hdf5(asked)) return std::string();
  const bool plain = asked.wanted == Wanted::kAnything || asked.suffix == ".bin" ||
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
  const auto hdf5 = find_hdf5(front);
  if (hdf5) return hdf5_fault(contents, *hdf5);
  const bool is_zip = front.starts_with("PK\x03\x04") || front.starts_with("PK\x05\x06");
  if (!is_zip && (suffix == ".npz" || suffix == ".keras")) {
    return std::string("is no zip archive, which such a file is");
  }
  // A program may stand in front of an archive that unpacks itself.
  if (is_zip || suffix == ".zip") return zip_fault(contents);
  if (front.starts_with("GGUF")) return gguf_fault(contents);
  if (tar_member(front.substr(0, kTarBlock))) return tar_fault(contents);
  if (is_hdf5(asked)) return named_hdf5_fault(contents);
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
  asked.may_be_empty = asked.wanted == Wanted::kAnything || asked.wanted == Wanted::kPage;
  return asked;
}

Asked asked_of(const UrlSource& source) {
  Asked asked = asked_as(source.file.path, source.file.urls.front());
  asked.may_be_empty = source.file.size == 0 || asked.wanted == Wanted::kPage;
  return asked;
}

Asked asked_of(const PathSource& source) {
  Asked asked = asked_as(source.path);
  asked.may_be_empty = false;  // nobody gives a path for nothing
  return asked;
}

Result<std::string> fault_of(const Contents& contents, const Asked& asked) {
  if (contents.size == 0) return asked.may_be_empty ? std::string() : std::string("is empty");
  FVP_TRY(const std::string front, contents.read(0, kSniffBytes));
  const Impostor impostor = sniff(front);
  if (!may_be(impostor, asked.wanted)) {
    if (is_hdf5(asked)) {
      FVP_TRY(std::string other, named_hdf5_fault(contents));
      if (other.empty()) return other;
    }
    return "is " + describe(impostor, front);
  }
  if (asked.wanted == Wanted::kPage) return std::string();
  FVP_TRY(std::string zeros, zeros_fault(contents, asked, front));
  if (!zeros.empty()) return zeros;
  return format_fault(contents, asked, front);
}

}  // namespace fvprefetch
