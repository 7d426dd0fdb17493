// Files that are read before their turn, several at once: of a small one a file server takes far
// longer to open it than to send its bytes, and answers eight such questions in about the time of
// one.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch {

class ReadAhead {
 public:
  struct File {
    std::string path;
    std::optional<std::uint64_t> size;  ///< as it should be; nullopt: not known
  };

  /// Begins to read. Of files of more than kSmall bytes, or of unknown size, it keeps its hands
  /// off.
  explicit ReadAhead(std::vector<File> files);
  ~ReadAhead();  ///< waits for what is being read
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  static constexpr std::uint64_t kSmall = 256U << 10U;

  /// The bytes of the next file, in the order of the list, or why they cannot be had; nullopt: it
  /// is the caller's to read. Blocks on the file system. Bytes that are more or fewer than they
  /// should be are given as they are. At most once for each file.
  [[nodiscard]] std::optional<Result<std::vector<std::byte>>> next();

 private:
  void work();

  const std::vector<File> files_;
  std::size_t next_ = 0;            // the caller's
  std::vector<std::size_t> small_;  // of files_
  std::mutex mutex_;                // guards what follows
  std::condition_variable room_;
  std::condition_variable done_;
  /// Of the small ones: those that were begun and not yet given; nullopt while they are read.
  std::deque<std::optional<Result<std::vector<std::byte>>>> reads_;
  std::size_t begun_ = 0;
  std::uint64_t bytes_ = 0;  // that they take
  bool over_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace fvprefetch
