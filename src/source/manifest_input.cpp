#include "source/manifest_input.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/clock.h"
#include "base/posix.h"
#include "base/try.h"
#include "source/entry_rules.h"
#include "source/wording.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;

// Until there is something to read, or the end. A regular file is always ready.
Status wait_for_input(int fd, const std::string& origin, const InputWait& wait) {
  constexpr milliseconds kSlice(100);
  constexpr milliseconds kFirst(2'000);
  constexpr milliseconds kAgain(30'000);
  const Clock::TimePoint begin = real_clock().now();
  Clock::TimePoint say = begin + kFirst;
  for (;;) {
    pollfd ready{fd, POLLIN, 0};
    const int count = ::poll(&ready, 1, static_cast<int>(kSlice.count()));
    if (count > 0) return {};
    if (count < 0 && errno != EINTR) return fail(posix::errno_error(errno, "read", origin));
    if (wait.must_stop) {
      if (auto stop = wait.must_stop()) return fail(*std::move(stop));
    }
    const Clock::TimePoint now = real_clock().now();
    if (now < say) continue;
    say = now + kAgain;
    if (wait.on_wait) {
      wait.on_wait("the manifest from " + origin,
                   std::chrono::duration_cast<milliseconds>(now - begin));
    }
  }
}

// At most a byte more than a manifest may have.
Result<std::string> read_all(int fd, const std::string& origin, bool to_end,
                             const InputWait& wait) {
  std::string text;
  JsonEnd end;
  std::array<char, 1U << 16U> buffer{};
  while (text.size() <= kLargestManifest) {
    FVP_CHECK_OK(wait_for_input(fd, origin, wait));
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got == 0) break;
    if (got > 0) {
      const std::string_view piece(buffer.data(), static_cast<std::size_t>(got));
      text += piece;
      if (!to_end && end.closed_after(piece)) break;
    } else if (errno == EISDIR) {
      return fail(ErrorCode::kUsage, "`" + origin + "` is a directory, expected a manifest file");
    } else if (errno != EINTR && errno != EAGAIN) {
      return fail(posix::errno_error(errno, "read", origin));
    }
  }
  return text;
}

}  // namespace

bool JsonEnd::closed_after(std::string_view piece) {
  for (const char c : piece) {
    if (state_ == State::kClosed) return true;
    if (state_ == State::kOther) return false;
    if (state_ == State::kBefore) {
      if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
      state_ = c == '{' || c == '[' ? State::kInside : State::kOther;
      depth_ = 1;
    } else if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if ((c == '}' || c == ']') && --depth_ == 0) {
      state_ = State::kClosed;
    }
  }
  return state_ == State::kClosed;
}

std::string manifest_origin(const std::string& path) {
  return path == "-" ? "<stdin>" : path;
}

Result<std::string> read_manifest_text(const std::string& path, const InputWait& wait) {
  if (path == "-") return read_all(STDIN_FILENO, manifest_origin(path), /*to_end=*/false, wait);
  // Not posix::read_small(): it may be a pipe ("<(jq ...)"), which has no size; and a FIFO that has
  // no writer yet must not hold up open().
  const posix::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    const int number = errno;
    if (number == ENOENT || number == ENOTDIR) {
      return fail(ErrorCode::kNotFound, "manifest `" + printable(path) + "` does not exist",
                  "give the path of a JSON manifest, or - for standard input");
    }
    if (number == ENXIO) {
      return fail(ErrorCode::kUsage, "`" + printable(path) + "` is a socket, expected a manifest");
    }
    Error error = posix::errno_error(number, "open", path);
    if (error.code == ErrorCode::kPermission) {
      error.hint = "ask its owner for the right to read it (chmod +r, a folder +x)";
    } else if (error.code == ErrorCode::kUsage) {
      error.hint = "give the path of a JSON manifest, or - for standard input";
    }
    return fail(std::move(error));
  }
  return read_all(fd.get(), path, /*to_end=*/true, wait);
}

}  // namespace fvprefetch
