#include "cache/decompress.h"

#include <archive.h>
#include <archive_entry.h>
#include <zlib.h>

#include <array>
#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>

#include "base/try.h"

namespace fvprefetch {
namespace {

using Piece = std::span<const std::byte>;

constexpr std::size_t kPiece = 1U << 20U;

tl::unexpected<Error> broken(const std::string& name, std::string_view why) {
  return fail(ErrorCode::kIntegrity, name + " is broken or cut short: " + std::string(why));
}

tl::unexpected<Error> out_of_memory(const std::string& name) {
  return fail(ErrorCode::kInternal, "out of memory while unpacking " + name);
}

Status check(const StopCheck& must_stop) {
  if (!must_stop) return {};
  if (std::optional<Error> stop = must_stop()) return fail(*std::move(stop));
  return {};
}

// One member after the other, as `cat` and parallel compressors make them.
class Gunzip : public Decompressed {
 public:
  Gunzip(const posix::Fd& file, const std::string& name, const StopCheck& must_stop)
      : name_(name), must_stop_(must_stop), pieces_(file, name, must_stop), out_(kPiece) {}
  Gunzip(const Gunzip&) = delete;
  Gunzip& operator=(const Gunzip&) = delete;
  ~Gunzip() override {
    if (begun_) ::inflateEnd(&stream_);
  }

  Status begin() {
    constexpr int kGzipAlone = 15 + 16;  // the largest window; zlib compares CRC-32 and length
    if (::inflateInit2(&stream_, kGzipAlone) != Z_OK) return out_of_memory(name_);
    begun_ = true;
    return {};
  }

  Result<Piece> next() override {
    while (!ended_) {
      FVP_CHECK_OK(check(must_stop_));
      FVP_TRY(const bool more, refill());
      if (between_) {
        FVP_CHECK_OK(look_behind(more));
        continue;
      }
      if (!more) return broken(name_, "its gzip data has no end");
      FVP_TRY(const std::size_t length, inflate_some());
      if (length > 0) return Piece(out_).first(length);
    }
    return Piece();
  }

 private:
  // False: the file has no more.
  Result<bool> refill() {
    if (stream_.avail_in > 0) return true;
    FVP_TRY(const Piece piece, pieces_.next());
    // zlib takes pointers to what it does not write.
    stream_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(piece.data()));
    stream_.avail_in = static_cast<uInt>(piece.size());
    return !piece.empty();
  }

  // At the end of a member: the file's end, zeros up to there, or another member.
  Status look_behind(bool more) {
    for (; stream_.avail_in > 0 && *stream_.next_in == 0; ++stream_.next_in, --stream_.avail_in) {
      padded_ = true;
    }
    if (!more) {
      ended_ = true;
    } else if (stream_.avail_in > 0) {
      constexpr Bytef kFirst = 0x1f;
      if (padded_ || *stream_.next_in != kFirst) {
        return broken(name_, "other bytes are behind the end of its gzip data");
      }
      if (::inflateReset(&stream_) != Z_OK) return broken(name_, "its gzip data cannot be read");
      between_ = false;
    }
    return {};
  }

  Result<std::size_t> inflate_some() {
    stream_.next_out = reinterpret_cast<Bytef*>(out_.data());
    stream_.avail_out = static_cast<uInt>(out_.size());
    const int told = ::inflate(&stream_, Z_NO_FLUSH);
    const std::size_t length = out_.size() - stream_.avail_out;
    if (told == Z_MEM_ERROR) return out_of_memory(name_);
    if (told != Z_OK && told != Z_STREAM_END) {
      return broken(name_, stream_.msg != nullptr ? stream_.msg : "its gzip data cannot be read");
    }
    between_ = told == Z_STREAM_END;
    return length;
  }

  const std::string& name_;
  const StopCheck& must_stop_;
  FilePieces pieces_;
  std::vector<std::byte> out_;
  z_stream stream_{};
  bool begun_ = false;
  bool between_ = false;  ///< two members, or behind the last
  bool padded_ = false;   ///< with zeros there, as tapes have it
  bool ended_ = false;
};

// xz and zstd: libarchive's filters in front of its "format" that is the bytes as they are.
class Filtered : public Decompressed {
 public:
  Filtered(const posix::Fd& file, const std::string& name, const StopCheck& must_stop)
      : name_(name),
        must_stop_(must_stop),
        pieces_(file, name, must_stop),
        archive_(::archive_read_new(), &::archive_read_free) {}

  // False: no filter knows it.
  Result<bool> begin() {
    archive* const reader = archive_.get();
    if (reader == nullptr) return out_of_memory(name_);
    ::archive_read_support_filter_xz(reader);
    ::archive_read_support_filter_zstd(reader);
    ::archive_read_support_format_raw(reader);
    ::archive_read_support_format_empty(reader);
    ::archive_read_set_callback_data(reader, this);
    ::archive_read_set_read_callback(reader, &Filtered::read_piece);
    if (::archive_read_open1(reader) != ARCHIVE_OK) return cannot_read();
    if (::archive_filter_code(reader, 0) == ARCHIVE_FILTER_NONE) return false;
    constexpr int kOneAndTheFile = 2;
    if (::archive_filter_count(reader) > kOneAndTheFile) {
      return fail(ErrorCode::kIntegrity, name_ + " is compressed more than once over");
    }
    archive_entry* entry = nullptr;
    const int told = ::archive_read_next_header(reader, &entry);
    ended_ = told == ARCHIVE_EOF;
    if (told != ARCHIVE_OK && told != ARCHIVE_WARN && !ended_) return cannot_read();
    return true;
  }

  Result<Piece> next() override {
    while (!ended_) {
      FVP_CHECK_OK(check(must_stop_));
      const void* block = nullptr;
      std::size_t size = 0;
      la_int64_t offset = 0;
      const int told = ::archive_read_data_block(archive_.get(), &block, &size, &offset);
      ended_ = told == ARCHIVE_EOF;
      if (told != ARCHIVE_OK && told != ARCHIVE_WARN && !ended_) return cannot_read();
      if (!ended_ && size > 0) return Piece(static_cast<const std::byte*>(block), size);
    }
    return Piece();
  }

 private:
  // It is called from C: nothing may be thrown through it.
  static la_ssize_t read_piece(archive* /*reader*/, void* self, const void** data) {
    Filtered& me = *static_cast<Filtered*>(self);
    if (me.error_) return ARCHIVE_FATAL;
    auto piece = guard([&] { return me.pieces_.next(); });
    if (!piece) {
      me.error_ = std::move(piece).error();
      return ARCHIVE_FATAL;
    }
    *data = piece->data();
    return static_cast<la_ssize_t>(piece->size());
  }

  [[nodiscard]] tl::unexpected<Error> cannot_read() const {
    if (error_) return fail(*error_);
    if (::archive_errno(archive_.get()) == ENOMEM) return out_of_memory(name_);
    const char* const words = ::archive_error_string(archive_.get());
    return broken(name_, words != nullptr ? words : "it cannot be read");
  }

  const std::string& name_;
  const StopCheck& must_stop_;
  FilePieces pieces_;
  std::unique_ptr<archive, int (*)(archive*)> archive_;
  std::optional<Error> error_;  ///< why reading ended
  bool ended_ = false;
};

bool begins_as_gzip(const posix::Fd& file, const std::string& name) {
  std::array<char, 2> begin{};
  const auto length = posix::read_at(file, 0, std::as_writable_bytes(std::span(begin)), name);
  return std::string_view(begin.data(), length.value_or(0)) == "\x1f\x8b";
}

}  // namespace

FilePieces::FilePieces(const posix::Fd& file, const std::string& name, const StopCheck& must_stop)
    : file_(file), name_(name), must_stop_(must_stop), buffer_(kPiece) {}

Result<std::span<const std::byte>> FilePieces::next() {
  FVP_CHECK_OK(check(must_stop_));
  FVP_TRY(const std::size_t length, posix::read_at(file_, position_, buffer_, name_));
  position_ += length;
  return std::span<const std::byte>(buffer_).first(length);
}

Result<std::unique_ptr<Decompressed>> decompress(const posix::Fd& file, const std::string& name,
                                                 const StopCheck& must_stop) {
  if (begins_as_gzip(file, name)) {
    auto gunzip = std::make_unique<Gunzip>(file, name, must_stop);
    FVP_CHECK_OK(gunzip->begin());
    return gunzip;
  }
  auto filtered = std::make_unique<Filtered>(file, name, must_stop);
  FVP_TRY(const bool compressed, filtered->begin());
  if (!compressed) return nullptr;
  return filtered;
}

}  // namespace fvprefetch
