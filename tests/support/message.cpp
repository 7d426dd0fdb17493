#include "message.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace fvprefetch::testhub {

std::shared_ptr<const OpenFile> OpenFile::open(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return nullptr;
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return nullptr;
  }
  const auto modified_ns =
      static_cast<std::int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec;
  return std::shared_ptr<const OpenFile>(
      new OpenFile(fd, static_cast<std::uint64_t>(info.st_size), modified_ns));
}

OpenFile::~OpenFile() {
  ::close(fd_);
}

std::size_t OpenFile::read_at(std::uint64_t offset, char* out, std::size_t count) const {
  std::size_t done = 0;
  while (done < count) {
    const ssize_t got = ::pread(fd_, out + done, count - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

Body Body::of_text(std::string text) {
  Body body;
  body.length = text.size();
  body.text = std::move(text);
  return body;
}

Body Body::of_file(std::shared_ptr<const OpenFile> file, std::uint64_t offset,
                   std::uint64_t length) {
  Body body;
  body.file = std::move(file);
  body.offset = offset;
  body.length = length;
  return body;
}

std::size_t Body::read_at(std::uint64_t position, char* out, std::size_t count) const {
  if (position >= length) return 0;
  count = static_cast<std::size_t>(std::min<std::uint64_t>(count, length - position));
  if (file) return file->read_at(offset + position, out, count);
  std::memcpy(out, text.data() + position, count);
  return count;
}

void Reply::add(std::string name, std::string value) {
  headers.emplace_back(std::move(name), std::move(value));
}

}  // namespace fvprefetch::testhub
