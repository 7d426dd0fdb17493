#include "cache/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>  // newlocale
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>  // PATH_MAX
#include <cwchar>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string_view>
#include <utility>

#include "base/printable.h"
#include "base/relative_path.h"
#include "base/try.h"
#include "cache/decompress.h"
#include "cache/layout.h"
#include "cache/zip_check.h"
#include "cache/zip_end.h"

namespace fvprefetch {
namespace {

constexpr std::size_t kPiece = 1U << 20U;
// Of a hard link's bytes between two looks at whether to stop.
constexpr std::uint64_t kCopied = 16U << 20U;

// libarchive turns names into the locale's characters; in the "C" locale, where our command runs,
// everything but ASCII would be lost. Of this thread alone, for as long as this lives.
class Utf8Locale {
 public:
  Utf8Locale() : locale_(::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
    if (locale_ != nullptr) before_ = ::uselocale(locale_);
  }
  Utf8Locale(const Utf8Locale&) = delete;
  Utf8Locale& operator=(const Utf8Locale&) = delete;
  ~Utf8Locale() {
    if (locale_ == nullptr) return;
    ::uselocale(before_);
    ::freelocale(locale_);
  }

  [[nodiscard]] bool accepts(const std::string& text) const {
    if (locale_ == nullptr) return true;
    std::mbstate_t state{};
    const char* at = text.c_str();
    return std::mbsrtowcs(nullptr, &at, 0, &state) != static_cast<std::size_t>(-1);
  }

 private:
  ::locale_t locale_;
  ::locale_t before_ = nullptr;
};

// A name of the archive in a message.
std::string shown(std::string_view name) {
  constexpr std::size_t kMost = 200;
  return "`" + escaped(name.substr(0, kMost)) + (name.size() > kMost ? "...`" : "`");
}

constexpr const char* kHint =
    "nothing of the archive was put in place; pin the right one by `sha256`, or ask whoever "
    "serves it";

tl::unexpected<Error> too_large(const std::string& name, std::uint64_t bytes, std::uint64_t most) {
  return fail(ErrorCode::kIntegrity,
              name + " would be " + std::to_string(bytes) +
                  " bytes or more when it is unpacked, over the bound of " + std::to_string(most) +
                  " for an archive of its size",
              kHint);
}

std::vector<std::string> segments_of(std::string_view path) {
  std::vector<std::string> segments;
  while (!path.empty()) {
    const std::size_t slash = std::min(path.find('/'), path.size());
    const std::string_view segment = path.substr(0, slash);
    // "./a", "a/" and "a//b" are usual in tars.
    if (!segment.empty() && segment != ".") segments.emplace_back(segment);
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return segments;
}

std::string join(const std::vector<std::string>& segments, std::size_t first = 0) {
  std::string path;
  for (std::size_t i = first; i < segments.size(); ++i) {
    path.append(i == first ? "" : "/").append(segments[i]);
  }
  return path;
}

// "" for what lies at the top.
std::string folder_of(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

// The archive, one member after the other. A new one begins at the front.
class Reader {
 public:
  // `must_stop`: may be empty; asked for each piece of the archive, so that a header, too, or what
  // is skipped, ends soon. `most_bytes`: bound of what is unpacked, for an archive of its size.
  Reader(const posix::Fd& file, std::string name, const StopCheck& must_stop,
         std::uint64_t most_bytes)
      : name_(std::move(name)),
        must_stop_(must_stop),
        most_bytes_(most_bytes),
        archive_(::archive_read_new(), &::archive_read_free),
        file_(file),
        pieces_(file_, name_, must_stop_) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() = default;

  Status open() {
    if (!archive_) return out_of_memory();
    archive* const reader = archive_.get();
    FVP_TRY(packed_, decompress(file_, name_, must_stop_));
    // These alone: every format more is more code that strangers' bytes reach.
    ::archive_read_support_format_tar(reader);
    // Tars that were joined by `cat` are read to the last one's end, and bytes behind it refused.
    ::archive_read_set_format_option(reader, "tar", "read_concatenated_archives", "1");
    ::archive_read_set_callback_data(reader, this);
    ::archive_read_set_read_callback(reader, &Reader::read_piece);
    if (!packed_) {
      // By the directory at its end: read from the front, a zip that is cut short looks whole.
      ::archive_read_support_format_zip_seekable(reader);
      FVP_TRY(const posix::FileInfo info, posix::stat(file_, name_));
      const auto some = [this](auto at, auto length) { return read_some(at, length); };
      FVP_TRY(const ZipEnd end, find_zip_end(info.size, some));
      // Of a zip without its comment: it looks for the end in the last 16 KiB only.
      size_ = static_cast<la_int64_t>(end.comment > 0 ? end.comment : info.size);
      ::archive_read_set_skip_callback(reader, &Reader::skip);
      ::archive_read_set_seek_callback(reader, &Reader::seek);
    }
    if (::archive_read_open1(reader) == ARCHIVE_OK) return {};
    return broken();
  }

  // nullptr: there are no more.
  Result<archive_entry*> next() {
    archive_entry* entry = nullptr;
    const int told = ::archive_read_next_header(archive_.get(), &entry);
    if (told == ARCHIVE_EOF) return nullptr;
    // A warning is about a detail that we do not take over, or about a name, which is looked at.
    if (told == ARCHIVE_OK || told == ARCHIVE_WARN) return entry;
    return broken();
  }

  // The next bytes of the member; none at its end.
  Result<std::span<const std::byte>> read(std::vector<std::byte>& buffer) {
    const auto length = ::archive_read_data(archive_.get(), buffer.data(), buffer.size());
    if (length < 0) return broken();
    return std::span<const std::byte>(buffer).first(static_cast<std::size_t>(length));
  }

  // Goes over the data of the member, of which nothing more is wanted.
  Status pass_over() {
    const int told = ::archive_read_data_skip(archive_.get());
    if (told != ARCHIVE_OK && told != ARCHIVE_WARN) return broken();
    end_of_member_ = ::archive_filter_bytes(archive_.get(), 0);
    return {};
  }

  // Behind the last member, over which it has passed: a tar without the block of zeros that says
  // so. Whole ones of some writers have none, but one that was cut between two members, too.
  [[nodiscard]] bool ends_without_mark() const {
    constexpr la_int64_t kBlock = 512;
    return format() == ARCHIVE_FORMAT_TAR &&
           ::archive_filter_bytes(archive_.get(), 0) - end_of_member_ < kBlock;
  }

  // Both of a member that was read.
  [[nodiscard]] bool is_zip() const { return format() == ARCHIVE_FORMAT_ZIP; }
  // Not compressed as a whole: going over it without its data costs next to nothing.
  [[nodiscard]] bool is_plain() const { return packed_ == nullptr; }

 private:
  [[nodiscard]] int format() const {
    return ::archive_format(archive_.get()) & ARCHIVE_FORMAT_BASE_MASK;
  }

  // The three through which libarchive reads: it is C, nothing may be thrown through it.
  static la_ssize_t read_piece(archive* /*reader*/, void* self, const void** data) {
    Reader& me = *static_cast<Reader*>(self);
    if (me.error_) return ARCHIVE_FATAL;
    auto piece = guard([&] { return me.next_piece(); });
    if (!piece) {
      me.error_ = std::move(piece).error();
      return ARCHIVE_FATAL;
    }
    *data = piece->data();
    return static_cast<la_ssize_t>(piece->size());
  }

  static la_int64_t skip(archive* /*reader*/, void* self, la_int64_t bytes) {
    Reader& me = *static_cast<Reader*>(self);
    const la_int64_t left = std::max<la_int64_t>(0, me.size_ - me.at());
    const la_int64_t skipped = std::clamp<la_int64_t>(bytes, 0, left);
    me.pieces_.set_position(static_cast<std::uint64_t>(me.at() + skipped));
    return skipped;
  }

  static la_int64_t seek(archive* /*reader*/, void* self, la_int64_t offset, int from) {
    Reader& me = *static_cast<Reader*>(self);
    const la_int64_t base = from == SEEK_SET ? 0 : from == SEEK_CUR ? me.at() : me.size_;
    if (offset < -base || offset > me.size_ - base) return ARCHIVE_FATAL;
    me.pieces_.set_position(static_cast<std::uint64_t>(base + offset));
    return me.at();
  }

  [[nodiscard]] la_int64_t at() const { return static_cast<la_int64_t>(pieces_.position()); }

  Result<std::span<const std::byte>> next_piece() {
    if (!packed_) return pieces_.next();
    FVP_TRY(const auto piece, packed_->next());
    unpacked_ += piece.size();
    // A bomb may have its bytes in what is passed over. Heads and padding come on top of members.
    if (unpacked_ / 2 > most_bytes_) return too_large(name_, unpacked_, most_bytes_);
    return piece;
  }

  [[nodiscard]] tl::unexpected<Error> broken() const {
    if (error_) return fail(*error_);
    const int number = ::archive_errno(archive_.get());
    if (number == EIO || number == ESTALE) return fail(posix::errno_error(number, "read", name_));
    if (number == ENOMEM) return out_of_memory();
    const char* const words = ::archive_error_string(archive_.get());
    const std::string why = words != nullptr ? words : "it cannot be read";
    if (why != "Unrecognized archive format") {
      return fail(ErrorCode::kIntegrity, name_ + " is broken or cut short: " + why);
    }
    if (is_plain() && begins_as_zip()) {
      return fail(
          ErrorCode::kIntegrity,
          name_ + " is broken or cut short: the end of the zip, which lists it, is missing");
    }
    return fail(ErrorCode::kIntegrity,
                name_ + " cannot be unpacked: it is neither zip nor tar(.gz, .xz, .zst)",
                "look at what its address sends; leave out `unpack` if it is the file itself");
  }

  [[nodiscard]] bool begins_as_zip() const { return read_some(0, 4).value_or("") == "PK\x03\x04"; }

  // Fewer than `length` at the end.
  [[nodiscard]] Result<std::string> read_some(std::uint64_t at, std::size_t length) const {
    std::string bytes(length, '\0');
    const auto room = std::as_writable_bytes(std::span(bytes));
    FVP_TRY(const std::size_t there, posix::read_fully_at(file_, at, room, name_));
    bytes.resize(there);
    return bytes;
  }

  const std::string name_;
  const StopCheck& must_stop_;
  const std::uint64_t most_bytes_;
  std::unique_ptr<archive, int (*)(archive*)> archive_;
  const posix::Fd& file_;
  FilePieces pieces_;                     ///< of what is not compressed
  std::unique_ptr<Decompressed> packed_;  ///< of what is
  std::uint64_t unpacked_ = 0;            ///< its bytes so far
  la_int64_t size_ = 0;
  la_int64_t end_of_member_ = 0;
  std::optional<Error> error_;  ///< why reading ended
};

class Unpacker {
 public:
  Unpacker(const posix::Fd& archive, const std::string& name, const std::string& directory,
           const UnpackOptions& options)
      : archive_(archive), name_(name), directory_(directory), options_(options), buffer_(kPiece) {}

  Result<std::vector<ReceiptFile>> run() {
    FVP_TRY(const posix::FileInfo info, posix::stat(archive_, name_));
    most_bytes_ = std::max(kHarmlessBytes, info.size * kMostGrowth);
    FVP_CHECK_OK(look_ahead());
    FVP_CHECK_OK(posix::make_directories(directory_));
    Reader reader(archive_, name_, options_.must_stop, most_bytes_);
    FVP_CHECK_OK(reader.open());
    for (;;) {
      FVP_TRY(archive_entry* const entry, reader.next());
      if (entry == nullptr) break;
      FVP_CHECK_OK(go_on());
      if (++members_ > kMostMembers) return too_many();
      FVP_CHECK_OK(take(reader, entry));
      FVP_CHECK_OK(reader.pass_over());
    }
    if (!options_.pinned && members_ > 0 && reader.ends_without_mark()) return no_mark();
    if (members_ == 0) return fail(ErrorCode::kIntegrity, name_ + " has no members");
    if (files_.empty() && links_.empty()) return nothing_left();
    FVP_CHECK_OK(make_links());
    FVP_CHECK_OK(sync_all());
    std::sort(files_.begin(), files_.end(),
              [](const ReceiptFile& a, const ReceiptFile& b) { return a.path < b.path; });
    return std::move(files_);
  }

 private:
  enum class Kind { kDirectory, kFile, kLink };
  struct Made {
    Kind kind = Kind::kDirectory;
    std::size_t file = 0;  ///< kFile: index into files_
  };
  struct Link {
    std::string target;
    std::string member;    ///< its name in the archive
    int followed = 0;      ///< links on the way, itself included; 0: not known yet
    std::string leads_to;  ///< then: what is there, or is not
  };

  // The sizes, where they can be had without the data: so that there is no need to fill a disk to
  // find out that it is too small.
  Status look_ahead() {
    Reader reader(archive_, name_, options_.must_stop, most_bytes_);
    FVP_CHECK_OK(reader.open());
    std::uint64_t bytes = 0;
    for (std::uint64_t members = 1;; ++members) {
      FVP_TRY(archive_entry* const entry, reader.next());
      if (members == 1 && reader.is_zip()) {
        FVP_CHECK_OK(check_zip(archive_, name_, options_.must_stop));
      }
      if (entry == nullptr || !reader.is_plain()) return {};
      FVP_CHECK_OK(go_on());
      if (members > kMostMembers) return too_many();
      const std::uint64_t size = size_of(entry);
      if (size > std::numeric_limits<std::uint64_t>::max() - bytes)
        return too_large(name_, bytes, most_bytes_);
      bytes += size;
      FVP_CHECK_OK(check_total(bytes));
    }
  }

  static std::uint64_t size_of(archive_entry* entry) {
    const bool told =
        ::archive_entry_size_is_set(entry) != 0 && ::archive_entry_hardlink(entry) == nullptr;
    return told ? static_cast<std::uint64_t>(std::max<la_int64_t>(0, ::archive_entry_size(entry)))
                : 0;
  }

  Status take(Reader& reader, archive_entry* entry) {
    const char* const told = ::archive_entry_pathname(entry);
    member_ = told != nullptr ? told : "";
    if (told == nullptr || !utf8_.accepts(member_)) return refuse("has a name that is not UTF-8");
    if (member_.starts_with('/')) return refuse("has an absolute name");
    std::vector<std::string> segments = segments_of(member_);
    if (segments.empty()) return {};  // "./", the root itself
    if (const auto fault = relative_path_fault(join(segments)); !fault.empty()) {
      return refuse("has a name that " + std::string(fault));
    }
    for (const std::string& segment : segments) {
      if (layout::is_private(segment)) {
        return refuse("has a name of which fvprefetch makes its own private files");
      }
    }
    if (::archive_entry_is_encrypted(entry) != 0) return refuse("is encrypted");
    const bool is_directory =
        ::archive_entry_filetype(entry) == AE_IFDIR && ::archive_entry_hardlink(entry) == nullptr;
    if (segments.size() <= options_.strip_components) return skip(entry);
    const std::string path = join(segments, options_.strip_components);
    if (path.empty()) return {};
    FVP_CHECK_OK(make_parents(path));
    if (is_directory) return make_directory(path);
    if (made_.contains(path)) return refuse("is in the archive twice, or is a folder as well");
    if (const char* const target = ::archive_entry_hardlink(entry)) return copy_of(path, target);
    switch (::archive_entry_filetype(entry)) {
      case AE_IFREG:
        return make_file(reader, entry, path);
      case AE_IFLNK:
        return note_link(entry, path);
      default:
        return refuse("is a device, a FIFO or a socket");
    }
  }

  // What is left out must be harmless all the same: it is no reason to trust the rest.
  Status skip(archive_entry* entry) {
    const auto type = ::archive_entry_filetype(entry);
    const bool plain = type == AE_IFREG || type == AE_IFDIR || type == AE_IFLNK;
    return plain ? Status{} : refuse("is a device, a FIFO or a socket");
  }

  Status make_parents(const std::string& path) {
    for (std::size_t slash = path.find('/'); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
      const std::string parent = path.substr(0, slash);
      const auto known = made_.find(parent);
      if (known == made_.end()) {
        FVP_CHECK_OK(make_directory(parent));
      } else if (known->second.kind == Kind::kLink) {
        return refuse("lies below " + shown(parent) + ", which the archive makes a link");
      } else if (known->second.kind == Kind::kFile) {
        return refuse("lies below " + shown(parent) + ", which is a file of the archive");
      }
    }
    return {};
  }

  Status make_directory(const std::string& path) {
    const auto [known, is_new] = made_.try_emplace(path);
    if (!is_new && known->second.kind != Kind::kDirectory) {
      return refuse("is a folder, and a file or link as well");
    }
    // One name can ask for a thousand folders.
    if (made_.size() > kMostMembers) return too_many();
    return is_new ? posix::make_directories(at(path)) : Status{};
  }

  Status make_file(Reader& reader, archive_entry* entry, const std::string& path) {
    FVP_CHECK_OK(check_total(bytes_ + size_of(entry)));
    FVP_TRY(posix::Fd file, posix::create_private(at(path)));
    Hasher hasher(Digest::Kind::kSha256, 0);
    std::uint64_t size = 0;
    for (;;) {
      FVP_CHECK_OK(go_on());
      const auto piece = reader.read(buffer_);
      if (!piece) return fail(with_context(piece.error(), "while unpacking " + shown(member_)));
      if (piece->empty()) break;
      bytes_ += piece->size();
      FVP_CHECK_OK(check_total(bytes_));
      FVP_CHECK_OK(posix::write_at(file, size, *piece, at(path)));
      hasher.update(*piece);
      if (options_.meter) options_.meter(piece->size());
      size += piece->size();
    }
    constexpr unsigned kOwnerRuns = 0100;
    if ((static_cast<unsigned>(::archive_entry_perm(entry)) & kOwnerRuns) != 0) {
      FVP_CHECK_OK(posix::make_executable(file, at(path)));
    }
    return add_file(std::move(file), path, size, hasher.finish());
  }

  // A hard link: its file's bytes once more, which costs nothing where blocks can be shared.
  Status copy_of(const std::string& path, const std::string& target) {
    const std::vector<std::string> segments = segments_of(target);
    const bool inside = !target.starts_with('/') && segments.size() > options_.strip_components;
    const std::string original = inside ? join(segments, options_.strip_components) : "";
    const auto file = made_.find(original);
    if (file == made_.end() || file->second.kind != Kind::kFile) {
      return refuse("is a hard link to " + shown(target) +
                    ", which is no file that the archive has before it");
    }
    const std::uint64_t size = files_[file->second.file].size;
    std::string sha256 = files_[file->second.file].sha256;
    bytes_ += size;
    FVP_CHECK_OK(check_total(bytes_));
    FVP_TRY(const posix::Fd from, posix::open_read(at(original)));
    FVP_TRY(posix::Fd to, posix::create_private(at(path)));
    const bool shared = posix::clone(from, to);
    for (std::uint64_t done = 0; !shared && done < size;) {
      FVP_CHECK_OK(go_on());
      const std::uint64_t piece = std::min<std::uint64_t>(size - done, kCopied);
      FVP_CHECK_OK(posix::copy(from, to, done, piece, at(path)));
      done += piece;
    }
    if (options_.meter) options_.meter(size);
    return add_file(std::move(to), path, size, std::move(sha256));
  }

  Status add_file(posix::Fd file, const std::string& path, std::uint64_t size, std::string sha256) {
    FVP_CHECK_OK(file.close(at(path)));
    made_.emplace(path, Made{Kind::kFile, files_.size()});
    files_.push_back({.path = path,
                      .size = size,
                      .blob = {},
                      .sha256 = std::move(sha256),
                      .mtime_ns = 0,
                      .link = {}});
    return {};
  }

  Status note_link(archive_entry* entry, const std::string& path) {
    const char* const told = ::archive_entry_symlink(entry);
    const std::string target = told != nullptr ? told : "";
    if (target.empty() || !utf8_.accepts(target)) return refuse("is a link to no name in UTF-8");
    if (target.size() >= PATH_MAX) {
      return refuse("is a link with a text of " + std::to_string(target.size()) +
                    " bytes, more than a link can have");
    }
    link_bytes_ += target.size();  // which are kept in memory
    if (link_bytes_ > most_bytes_) return too_large(name_, link_bytes_, most_bytes_);
    made_.emplace(path, Made{Kind::kLink, 0});
    links_.emplace(path, Link{.target = target, .member = member_, .followed = 0, .leads_to = {}});
    return {};
  }

  // When all names are known: one link may lead through another.
  Status make_links() {
    for (auto& [path, link] : links_) {
      FVP_CHECK_OK(go_on());
      member_ = link.member;
      FVP_CHECK_OK(resolve(path, link, 1));
    }
    for (const auto& [path, link] : links_) {
      FVP_CHECK_OK(go_on());
      FVP_CHECK_OK(posix::make_link(at(path), link.target));
      files_.push_back(
          {.path = path, .size = 0, .blob = {}, .sha256 = {}, .mtime_ns = 0, .link = link.target});
    }
    return {};
  }

  // Follows the link at `path` as the kernel would, and notes where it leads: links that lead
  // through it need not follow it again. `depth`: of how many links this one is looked at.
  Status resolve(const std::string& path, Link& link, int depth) {
    constexpr int kMostLinks = 40;  // as the kernel
    if (link.followed > 0) return {};
    if (depth > kMostLinks) return refuse("is a link that leads in a circle");
    if (link.target.starts_with('/')) return leads_out(link);
    // Its folder is one: nothing lies below a link. "": the root of the archive.
    std::string place = folder_of(path);
    int followed = 1;
    for (const std::string& segment : segments_of(link.target)) {
      if (segment == "..") {
        if (place.empty()) return leads_out(link);
        place = folder_of(place);
        continue;
      }
      if (!place.empty()) place += '/';
      place += segment;
      const auto next = links_.find(place);
      if (next == links_.end()) continue;
      FVP_CHECK_OK(resolve(next->first, next->second, depth + 1));
      followed += next->second.followed;
      if (followed > kMostLinks) return refuse("is a link that leads in a circle");
      place = next->second.leads_to;
    }
    link.followed = followed;
    link.leads_to = std::move(place);
    return {};
  }

  Status leads_out(const Link& link) {
    member_ = link.member;
    return refuse("is a link to " + shown(link.target) + ", which leads out of the archive");
  }

  // At the end and not file by file: the first sync takes what lies there to the disk together, and
  // the others find little left to do.
  Status sync_all() {
    for (const auto& [path, made] : made_) {
      FVP_CHECK_OK(go_on());
      if (made.kind != Kind::kLink) FVP_CHECK_OK(posix::sync_path(at(path)));
    }
    return posix::sync_path(directory_);
  }

  Status check_total(std::uint64_t bytes) const {
    if (bytes > most_bytes_) return too_large(name_, bytes, most_bytes_);
    if (!options_.room || bytes <= *options_.room) return {};
    return fail(ErrorCode::kNoSpace, name_ + " needs " + std::to_string(bytes) +
                                         " bytes or more when it is unpacked, and there are " +
                                         std::to_string(*options_.room) + " free");
  }

  [[nodiscard]] tl::unexpected<Error> no_mark() const {
    return fail(ErrorCode::kIntegrity,
                name_ + " may be cut short: the zeros at a tar's end are missing",
                "nothing of the archive was put in place; if its maker leaves them out, say by "
                "`sha256` which one is right");
  }

  [[nodiscard]] tl::unexpected<Error> too_many() const {
    return fail(ErrorCode::kIntegrity,
                name_ + " has more than " + std::to_string(kMostMembers) + " members and folders",
                kHint);
  }

  [[nodiscard]] tl::unexpected<Error> nothing_left() const {
    if (options_.strip_components == 0) {
      return fail(ErrorCode::kIntegrity, name_ + " has no file in it, only folders",
                  "look at what its address sends");
    }
    return fail(ErrorCode::kUsage,
                "strip_components " + std::to_string(options_.strip_components) +
                    " leaves no file of " + name_,
                "set it to the number of folders that all files of the archive lie in");
  }

  Status refuse(const std::string& why) const {
    return fail(ErrorCode::kIntegrity, "member " + shown(member_) + " of " + name_ + " " + why,
                kHint);
  }

  Status go_on() const {
    if (!options_.must_stop) return {};
    if (std::optional<Error> stop = options_.must_stop()) return fail(*std::move(stop));
    return {};
  }

  [[nodiscard]] std::string at(const std::string& path) const { return directory_ + "/" + path; }

  const posix::Fd& archive_;
  const std::string& name_;
  const std::string& directory_;
  const UnpackOptions& options_;
  const Utf8Locale utf8_;
  std::vector<std::byte> buffer_;
  std::string member_;  ///< that is looked at, as the archive calls it
  std::map<std::string, Made, std::less<>> made_;
  std::map<std::string, Link, std::less<>> links_;
  std::vector<ReceiptFile> files_;
  std::uint64_t members_ = 0;
  std::uint64_t bytes_ = 0;  ///< written
  std::uint64_t link_bytes_ = 0;
  std::uint64_t most_bytes_ = 0;
};

}  // namespace

Result<std::vector<ReceiptFile>> unpack(const posix::Fd& archive, const std::string& name,
                                        const std::string& directory,
                                        const UnpackOptions& options) {
  return Unpacker(archive, name, directory, options).run();
}

}  // namespace fvprefetch
