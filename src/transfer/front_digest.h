// The digest of a file that is being written: it follows the part that is there without a hole, on
// the worker. Of what has just come, in order, the bytes are at hand; all else it reads again from
// the page cache, so that memory does not grow however far it falls behind.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/digest.h"
#include "base/posix.h"
#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"
#include "transfer/transport.h"
#include "transfer/worker.h"

namespace fvprefetch {

class FrontDigest {
 public:
  /// `fd` is its own (posix::duplicate). For kGitSha1 `size` must be that of the whole file.
  /// `worker` must outlive it.
  FrontDigest(Worker& worker, posix::Fd fd, std::string path, Digest::Kind kind,
              std::uint64_t size);
  ~FrontDigest();  ///< does not wait
  FrontDigest(const FrontDigest&) = delete;
  FrontDigest& operator=(const FrontDigest&) = delete;

  /// `piece` was written to `offset`, up to where the file was there. (advance() has still to be
  /// called.) Where it may be kept it is, and not read again.
  void take(std::uint64_t offset, const BodyPiece& piece);
  /// The file is there up to `front`.
  void advance(std::uint64_t front);
  /// All is there, and `size` bytes are all: the hex digest, or nullopt while it is being made. Not
  /// to be called again after a value.
  [[nodiscard]] std::optional<Result<std::string>> finish(std::uint64_t size);

 private:
  struct State;
  void post_if_behind(std::uint64_t by);

  Worker& worker_;
  std::shared_ptr<State> state_;
};

}  // namespace fvprefetch
