#include "cluster/read_ahead.h"

#include <algorithm>
#include <span>
#include <system_error>
#include <utility>

#include "base/posix.h"
#include "base/try.h"

namespace fvprefetch {
namespace {

constexpr std::size_t kThreads = 8;
// What lies ready, or is on its way, and was not taken.
constexpr std::size_t kMostFiles = 64;
constexpr std::uint64_t kMostBytes = 8U << 20U;

Result<std::vector<std::byte>> read(const std::string& path, std::uint64_t size) {
  FVP_TRY(const posix::Opened opened, posix::open_with_info(path));
  // One byte more shows that it is longer.
  std::vector<std::byte> bytes(size + 1);
  std::size_t there = 0;
  while (there < bytes.size()) {
    const auto rest = std::span(bytes).subspan(there);
    FVP_TRY(const std::size_t length, posix::read_at(opened.fd, there, rest, path));
    if (length == 0) break;
    there += length;
  }
  bytes.resize(there);
  return bytes;
}

}  // namespace

ReadAhead::ReadAhead(std::vector<File> files) : files_(std::move(files)) {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (files_[i].size.value_or(kSmall + 1) <= kSmall) small_.push_back(i);
  }
  try {
    const std::size_t most = std::min(small_.size(), kThreads);
    while (threads_.size() < most) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    // With fewer it takes longer; with none the caller reads.
  }
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  room_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ReadAhead::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    room_.wait(lock, [this] {
      const bool has_room = reads_.size() < kMostFiles && bytes_ < kMostBytes;
      return over_ || begun_ == small_.size() || has_room;
    });
    if (over_ || begun_ == small_.size()) return;
    const File& file = files_[small_[begun_++]];
    bytes_ += *file.size;
    // An element of a deque stays where it is while others come and go at the ends.
    auto& mine = reads_.emplace_back();
    lock.unlock();
    auto bytes = guard([&] { return read(file.path, *file.size); });
    lock.lock();
    mine = std::move(bytes);
    done_.notify_one();
  }
}

std::optional<Result<std::vector<std::byte>>> ReadAhead::next() {
  const std::optional<std::uint64_t> size = files_[next_++].size;
  if (size.value_or(kSmall + 1) > kSmall || threads_.empty()) return std::nullopt;
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return !reads_.empty() && reads_.front(); });
  auto bytes = std::move(reads_.front());
  reads_.pop_front();
  bytes_ -= *size;
  room_.notify_one();
  return bytes;
}

}  // namespace fvprefetch
