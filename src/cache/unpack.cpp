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

#include "base/relative_path.h"
#include "base/try.h"
#include "cache/layout.h"

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
  std::string text;
  for (const char c : name.substr(0, kMost)) {
    text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return "`" + text + (name.size() > kMost ? "...`" : "`");
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
  // is skipped, ends soon.
  Reader(const posix::Fd& file, std::string name, const StopCheck& must_stop)
      : name_(std::move(name)),
        must_stop_(must_stop),
        archive_(::archive_read_new(), &::archive_read_free),
        file_(file),
        buffer_(kPiece) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() = default;

  Status open() {
    if (!archive_) return fail(ErrorCode::kInternal, "out of memory");
    archive* const reader = archive_.get();
    // These alone: every format more is more code that strangers' bytes reach. Zip by the directory
    // at its end: read from the front, one that is cut short looks whole.
    ::archive_read_support_format_tar(reader);
    ::archive_read_support_format_zip_seekable(reader);
    ::archive_read_support_filter_gzip(reader);
    ::archive_read_support_filter_xz(reader);
    ::archive_read_support_filter_zstd(reader);
    FVP_TRY(const posix::FileInfo info, posix::stat(file_, name_));
    size_ = static_cast<la_int64_t>(info.size);
    ::archive_read_set_callback_data(reader, this);
    ::archive_read_set_read_callback(reader, &Reader::read_piece);
    ::archive_read_set_skip_callback(reader, &Reader::skip);
    ::archive_read_set_seek_callback(reader, &Reader::seek);
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

  // Goes over the data of the member, of which nothing is wanted. Nothing is read where its end is
  // known; of a compressed archive each block is told to `counts`, which may refuse it.
  template <typename F>
  Status pass_over(F&& counts) {
    if (is_plain()) return {};
    for (;;) {
      const void* block = nullptr;
      std::size_t size = 0;
      la_int64_t offset = 0;
      const int told = ::archive_read_data_block(archive_.get(), &block, &size, &offset);
      if (told == ARCHIVE_EOF) return {};
      if (told != ARCHIVE_OK && told != ARCHIVE_WARN) return broken();
      FVP_CHECK_OK(counts(size));
    }
  }

  // Not compressed as a whole: going over it without its data costs next to nothing.
  [[nodiscard]] bool is_plain() const {
    return ::archive_filter_code(archive_.get(), 0) == ARCHIVE_FILTER_NONE;
  }

 private:
  // The three through which libarchive reads: it is C, nothing may be thrown through it.
  static la_ssize_t read_piece(archive* /*reader*/, void* self, const void** piece) {
    Reader& me = *static_cast<Reader*>(self);
    if (me.has_to_stop()) return ARCHIVE_FATAL;
    auto length = guard([&] {
      return posix::read_at(me.file_, static_cast<std::uint64_t>(me.at_), std::span(me.buffer_),
                            me.name_);
    });
    if (!length) {
      me.error_ = std::move(length).error();
      return ARCHIVE_FATAL;
    }
    me.at_ += static_cast<la_int64_t>(*length);
    *piece = me.buffer_.data();
    return static_cast<la_ssize_t>(*length);
  }

  static la_int64_t skip(archive* /*reader*/, void* self, la_int64_t bytes) {
    Reader& me = *static_cast<Reader*>(self);
    const la_int64_t skipped =
        std::clamp<la_int64_t>(bytes, 0, std::max<la_int64_t>(0, me.size_ - me.at_));
    me.at_ += skipped;
    return skipped;
  }

  static la_int64_t seek(archive* /*reader*/, void* self, la_int64_t offset, int from) {
    Reader& me = *static_cast<Reader*>(self);
    const la_int64_t base = from == SEEK_SET ? 0 : from == SEEK_CUR ? me.at_ : me.size_;
    if (offset < -base || offset > me.size_ - base) return ARCHIVE_FATAL;
    return me.at_ = base + offset;
  }

  [[nodiscard]] bool has_to_stop() {
    if (error_ || !must_stop_) return error_.has_value();
    Status going = guard([this]() -> Status {
      if (std::optional<Error> stop = must_stop_()) return fail(*std::move(stop));
      return {};
    });
    if (!going) error_ = std::move(going).error();
    return error_.has_value();
  }

  [[nodiscard]] tl::unexpected<Error> broken() const {
    if (error_) return fail(*error_);
    const int number = ::archive_errno(archive_.get());
    if (number == EIO || number == ESTALE) return fail(posix::errno_error(number, "read", name_));
    if (number == ENOMEM)
      return fail(ErrorCode::kInternal, "out of memory while unpacking " + name_);
    const char* const words = ::archive_error_string(archive_.get());
    const std::string why = words != nullptr ? words : "it cannot be read";
    if (why != "Unrecognized archive format") {
      return fail(ErrorCode::kIntegrity, name_ + " is broken or cut short: " + why);
    }
    if (begins_as_zip()) {
      return fail(
          ErrorCode::kIntegrity,
          name_ + " is broken or cut short: the end of the zip, which lists it, is missing");
    }
    return fail(ErrorCode::kIntegrity,
                name_ + " cannot be unpacked: it is neither zip nor tar(.gz, .xz, .zst)",
                "look at what its address sends; leave out `unpack` if it is the file itself");
  }

  [[nodiscard]] bool begins_as_zip() const {
    std::array<char, 4> begin{};
    const auto length = posix::read_at(file_, 0, std::as_writable_bytes(std::span(begin)), name_);
    return std::string_view(begin.data(), length.value_or(0)) == "PK\x03\x04";
  }

  std::string name_;
  const StopCheck& must_stop_;
  std::unique_ptr<archive, int (*)(archive*)> archive_;
  const posix::Fd& file_;
  std::vector<std::byte> buffer_;
  la_int64_t size_ = 0;
  la_int64_t at_ = 0;           ///< where the next piece begins
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
    const auto counted = [this](std::uint64_t bytes) {
      const Status going = go_on();
      return going ? pass_over(bytes) : going;
    };
    Reader reader(archive_, name_, options_.must_stop);
    FVP_CHECK_OK(reader.open());
    for (;;) {
      FVP_TRY(archive_entry* const entry, reader.next());
      if (entry == nullptr) break;
      FVP_CHECK_OK(go_on());
      if (++members_ > kMostMembers) return too_many();
      FVP_CHECK_OK(take(reader, entry));
      FVP_CHECK_OK(reader.pass_over(counted));
    }
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
    Reader reader(archive_, name_, options_.must_stop);
    FVP_CHECK_OK(reader.open());
    std::uint64_t bytes = 0;
    for (std::uint64_t members = 1;; ++members) {
      FVP_TRY(archive_entry* const entry, reader.next());
      if (entry == nullptr || !reader.is_plain()) return {};
      FVP_CHECK_OK(go_on());
      if (members > kMostMembers) return too_many();
      const std::uint64_t size = size_of(entry);
      if (size > std::numeric_limits<std::uint64_t>::max() - bytes) return too_large(bytes);
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
    FVP_CHECK_OK(pass_over(target.size()));
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

  // Bytes that are not written; a bomb may have them as well.
  Status pass_over(std::uint64_t bytes) {
    passed_over_ += bytes;
    return passed_over_ > most_bytes_ ? too_large(passed_over_) : Status{};
  }

  Status check_total(std::uint64_t bytes) const {
    if (bytes > most_bytes_) return too_large(bytes);
    if (!options_.room || bytes <= *options_.room) return {};
    return fail(ErrorCode::kNoSpace, name_ + " needs " + std::to_string(bytes) +
                                         " bytes or more when it is unpacked, and there are " +
                                         std::to_string(*options_.room) + " free");
  }

  Status too_large(std::uint64_t bytes) const {
    return fail(ErrorCode::kIntegrity,
                name_ + " would be " + std::to_string(bytes) +
                    " bytes or more when it is unpacked, over the bound of " +
                    std::to_string(most_bytes_) + " for an archive of its size",
                kHint);
  }

  [[nodiscard]] tl::unexpected<Error> too_many() const {
    return fail(ErrorCode::kIntegrity,
                name_ + " has more than " + std::to_string(kMostMembers) + " members and folders",
                kHint);
  }

  [[nodiscard]] tl::unexpected<Error> nothing_left() const {
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

  static constexpr const char* kHint =
      "nothing of the archive was put in place; pin the right one by `sha256`, or ask whoever "
      "serves it";

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
  std::uint64_t bytes_ = 0;        ///< written
  std::uint64_t passed_over_ = 0;  ///< of what is not written
  std::uint64_t most_bytes_ = 0;
};

}  // namespace

Result<std::vector<ReceiptFile>> unpack(const posix::Fd& archive, const std::string& name,
                                        const std::string& directory,
                                        const UnpackOptions& options) {
  return Unpacker(archive, name, directory, options).run();
}

}  // namespace fvprefetch
