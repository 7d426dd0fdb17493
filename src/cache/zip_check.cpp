#include "cache/zip_check.h"

#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <climits>  // PATH_MAX
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/little_endian.h"
#include "base/printable.h"
#include "base/try.h"
#include "cache/unpack.h"
#include "cache/zip_end.h"

namespace fvprefetch {
namespace {

constexpr std::size_t kListedSize = 46;  // of a member in the directory, without its name and so on
constexpr std::size_t kHeadSize = 30;    // in front of its data, the same
constexpr std::uint32_t kIn64 = std::numeric_limits<std::uint32_t>::max();  // "see the zip64 field"
constexpr const char* kHint =
    "nothing of the archive was put in place; pin the right one by `sha256`, or ask whoever "
    "serves it";

std::uint32_t two(std::string_view bytes, std::size_t at) {
  return static_cast<std::uint32_t>(little_endian(bytes, at, 2));
}
std::uint32_t four(std::string_view bytes, std::size_t at) {
  return static_cast<std::uint32_t>(little_endian(bytes, at, 4));
}
std::uint64_t eight(std::string_view bytes, std::size_t at) {
  return little_endian(bytes, at, 8);
}

struct Member {
  std::string name;
  std::uint32_t flags = 0;
  std::uint32_t method = 0;
  std::uint32_t crc = 0;
  std::uint32_t mode = 0;
  bool of_unix = false;
  std::uint64_t packed = 0;
  std::uint64_t size = 0;
  std::uint64_t begin = 0;
};

struct Extent {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

constexpr std::uint32_t kEncrypted = 1;
constexpr std::uint32_t kSizesBehind = 8;  // flag: the head has zeros for sizes and CRC-32

class ZipCheck {
 public:
  ZipCheck(const posix::Fd& file, const std::string& name, const StopCheck& must_stop)
      : file_(file), name_(name), must_stop_(must_stop) {}

  Status run() {
    FVP_TRY(const posix::FileInfo info, posix::stat(file_, name_));
    size_ = info.size;
    FVP_TRY(const ZipEnd directory, find_directory());
    if (directory.in_front > 0) {
      FVP_TRY(const std::string_view first, read(0, 4));
      if (first == "PK\x03\x04") return refuse("there are two zips in it, one behind the other");
    }
    std::vector<Extent> extents;
    for (std::uint64_t at = directory.begin; at < directory.end;) {
      if (must_stop_) {
        if (auto stop = must_stop_()) return fail(*std::move(stop));
      }
      FVP_TRY(const std::optional<Member> member, next(at, directory));
      if (!member) break;
      if (extents.size() == kMostMembers) {
        return refuse("it has more than " + std::to_string(kMostMembers) + " members");
      }
      FVP_TRY(const Extent extent, check(*member));
      extents.push_back(extent);
    }
    std::sort(extents.begin(), extents.end(),
              [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
    for (std::size_t i = 0; i < extents.size(); ++i) {
      const std::uint64_t most = i + 1 < extents.size() ? extents[i + 1].begin : directory.begin;
      if (extents[i].end > most) return refuse("two of its members lie over each other");
    }
    return {};
  }

 private:
  // `length` bytes, valid until the next call.
  Result<std::string_view> read(std::uint64_t at, std::size_t length) {
    buffer_.resize(std::max(buffer_.size(), length));
    const auto room = std::as_writable_bytes(std::span(buffer_).first(length));
    FVP_TRY(const std::size_t some, posix::read_fully_at(file_, at, room, name_));
    if (some < length) return refuse("it ends where more of it should come");
    return std::string_view(buffer_.data(), length);
  }

  Result<ZipEnd> find_directory() {
    const auto some = [this](std::uint64_t at, std::size_t length) -> Result<std::string> {
      FVP_TRY(const std::string_view bytes, read(at, length));
      return std::string(bytes);
    };
    FVP_TRY(const ZipEnd end, find_zip_end(size_, some));
    switch (end.fault) {
      case ZipEnd::Fault::kMissing:
        return refuse("the end of the zip, which lists it, is missing");
      case ZipEnd::Fault::kBehind:
        return refuse("other bytes lie behind the end of the zip");
      case ZipEnd::Fault::kUnreadable:
        return no_directory();
      case ZipEnd::Fault::kNone:
        break;
    }
    return end;
  }

  // The member that the directory lists at `at`, which is moved behind it; nullopt: there are no
  // more.
  Result<std::optional<Member>> next(std::uint64_t& at, const ZipEnd& directory) {
    if (directory.end - at < kListedSize) return std::nullopt;  // too little for one
    FVP_TRY(const std::string_view fixed, read(at, kListedSize));
    if (fixed.starts_with("PK\x05\x05")) return std::nullopt;  // the directory's signature
    if (!fixed.starts_with("PK\x01\x02")) return no_directory();
    Member member;
    member.of_unix = fixed[5] == 3;
    member.flags = two(fixed, 8);
    member.method = two(fixed, 10);
    member.crc = four(fixed, 16);
    member.packed = four(fixed, 20);
    member.size = four(fixed, 24);
    member.mode = four(fixed, 38) >> 16U;
    member.begin = four(fixed, 42);
    const std::size_t name = two(fixed, 28);
    const std::size_t extra = two(fixed, 30);
    const std::size_t comment = two(fixed, 32);
    const std::uint64_t length = kListedSize + name + extra + comment;
    if (directory.end - at < length) return no_directory();
    FVP_TRY(const std::string_view rest, read(at + kListedSize, name + extra));
    member.name = rest.substr(0, name);
    if (!take_64(rest.substr(name), member)) return no_directory();
    if (member.begin > size_ - directory.in_front) return refuse(member, "lies outside of it");
    member.begin += directory.in_front;
    at += length;
    return member;
  }

  // What did not fit into 32 bits stands in a field of its own, in this order.
  static bool take_64(std::string_view extra, Member& member) {
    constexpr std::uint32_t kZip64 = 1;
    const bool wanted = member.size == kIn64 || member.packed == kIn64 || member.begin == kIn64;
    while (wanted && extra.size() >= 4) {
      const std::size_t length = two(extra, 2);
      const bool found = two(extra, 0) == kZip64;
      extra.remove_prefix(4);
      if (length > extra.size()) return false;
      if (!found) {
        extra.remove_prefix(length);
        continue;
      }
      std::string_view field = extra.substr(0, length);
      for (std::uint64_t* const value : {&member.size, &member.packed, &member.begin}) {
        if (*value != kIn64) continue;
        if (field.size() < 8) return false;
        *value = eight(field, 0);
        field.remove_prefix(8);
      }
      return true;
    }
    return true;
  }

  // Where it lies.
  Result<Extent> check(const Member& member) {
    switch (member.mode & S_IFMT) {
      case S_IFIFO:
      case S_IFCHR:
      case S_IFBLK:
      case S_IFSOCK:
        return refuse(member, "is a device, a FIFO or a socket");
      default:
        break;
    }
    if (size_ < kHeadSize || member.begin > size_ - kHeadSize) {
      return refuse(member, "lies outside of it");
    }
    FVP_TRY(const std::string_view head, read(member.begin, kHeadSize));
    if (!head.starts_with("PK\x03\x04")) return refuse(member, "is not where it should be");
    const bool later = ((member.flags | two(head, 6)) & kSizesBehind) != 0;
    const bool same = two(head, 8) == member.method && agrees(four(head, 14), member.crc, later) &&
                      agrees(four(head, 18), member.packed, later) &&
                      agrees(four(head, 22), member.size, later);
    const std::size_t name_length = two(head, 26);
    const std::size_t extra_length = two(head, 28);
    if (!same || name_length != member.name.size()) return differs(member);
    FVP_TRY(const std::string_view name, read(member.begin + kHeadSize, name_length));
    if (name != member.name) return differs(member);
    const std::uint64_t data = member.begin + kHeadSize + name_length + extra_length;
    if (data > size_ || member.packed > size_ - data) return refuse(member, "is cut short");
    if (later && four(head, 14) == 0 && member.packed > 0) {
      FVP_TRY(const bool right, is_described(member, data + member.packed));
      if (!right) return differs(member);
    }
    if (member.of_unix && S_ISLNK(member.mode) && (member.flags & kEncrypted) == 0) {
      FVP_CHECK_OK(check_link(member, data));
    }
    return Extent{member.begin, data + member.packed};
  }

  // Whether the head in front of a member says the same as the directory. `later`: it may say
  // nothing, since it was not known then.
  static bool agrees(std::uint32_t in_head, std::uint64_t listed, bool later) {
    return in_head == listed || in_head == kIn64 || (in_head == 0 && later);
  }

  // Whether what stands behind the data, at `at`, says the same as the directory: CRC-32 and sizes
  // of 4 or 8 bytes, with or without a signature.
  Result<bool> is_described(const Member& member, std::uint64_t at) {
    constexpr std::uint64_t kLongest = 24;
    const auto length = static_cast<std::size_t>(std::min(kLongest, size_ - at));
    FVP_TRY(std::string_view text, read(at, length));
    for (const std::size_t signature : {std::size_t{4}, std::size_t{0}}) {
      if (signature > 0 && !text.starts_with("PK\x07\x08")) continue;
      for (const std::size_t width : {std::size_t{4}, std::size_t{8}}) {
        if (text.size() < signature + 4 + 2 * width) continue;
        const auto low = [width](std::uint64_t value) {
          return width == 8 ? value : value & kIn64;
        };
        if (four(text, signature) == member.crc &&
            little_endian(text, signature + 4, width) == low(member.packed) &&
            little_endian(text, signature + 4 + width, width) == low(member.size)) {
          return true;
        }
      }
    }
    return false;
  }

  // Its text is the member's data. One that is too long is refused where links are made.
  Status check_link(const Member& member, std::uint64_t data) {
    if (member.size >= PATH_MAX) return {};
    constexpr std::uint64_t kMostPacked = std::uint64_t{2} * PATH_MAX;
    constexpr std::uint32_t kStored = 0;
    constexpr std::uint32_t kDeflated = 8;
    const bool known = member.method == kStored || member.method == kDeflated;
    if (!known || member.packed > kMostPacked) {
      return refuse(member, "is a link whose text cannot be read");
    }
    FVP_TRY(const std::string_view packed, read(data, static_cast<std::size_t>(member.packed)));
    const std::optional<std::string> text =
        member.method == kStored ? std::string(packed) : inflated(packed);
    if (!text || text->size() != member.size ||
        ::crc32(0, reinterpret_cast<const Bytef*>(text->data()), static_cast<uInt>(text->size())) !=
            member.crc) {
      return refuse(member, "is a link whose text is broken: its CRC-32 is another");
    }
    if (text->find('\0') != std::string::npos) {
      return refuse(member, "is a link whose text has a NUL in it");
    }
    return {};
  }

  // Of less than PATH_MAX bytes; nullopt: broken, or longer.
  static std::optional<std::string> inflated(std::string_view packed) {
    constexpr int kWithoutHead = -15;
    std::array<char, PATH_MAX> out{};
    z_stream stream{};
    if (::inflateInit2(&stream, kWithoutHead) != Z_OK) return std::nullopt;
    // zlib takes pointers to what it does not write.
    stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(packed.data()));
    stream.avail_in = static_cast<uInt>(packed.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    const int told = ::inflate(&stream, Z_FINISH);
    ::inflateEnd(&stream);
    if (told != Z_STREAM_END) return std::nullopt;
    return std::string(out.data(), out.size() - stream.avail_out);
  }

  [[nodiscard]] tl::unexpected<Error> refuse(std::string_view why) const {
    return fail(ErrorCode::kIntegrity, name_ + " is broken or cut short: " + std::string(why),
                kHint);
  }

  [[nodiscard]] tl::unexpected<Error> refuse(const Member& member, std::string_view why) const {
    constexpr std::size_t kMost = 200;
    return fail(ErrorCode::kIntegrity,
                "member `" + escaped(member.name.substr(0, kMost)) + "` of " + name_ + " " +
                    std::string(why),
                kHint);
  }

  [[nodiscard]] tl::unexpected<Error> differs(const Member& member) const {
    return refuse(member, "is broken: the zip's directory and the head of the member differ");
  }

  [[nodiscard]] tl::unexpected<Error> no_directory() const {
    return refuse("the directory at its end cannot be read");
  }

  const posix::Fd& file_;
  const std::string& name_;
  const StopCheck& must_stop_;
  std::vector<char> buffer_;
  std::uint64_t size_ = 0;
};

}  // namespace

Status check_zip(const posix::Fd& file, const std::string& name, const StopCheck& must_stop) {
  return ZipCheck(file, name, must_stop).run();
}

}  // namespace fvprefetch
