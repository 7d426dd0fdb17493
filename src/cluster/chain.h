// One stream of bytes from rank 0 to all ranks, each of which passes on what it gets to the next.
// Every link carries the stream once, however many ranks there are, and shared storage is read once
// (a pipelined chain; for long messages the best that can be done with one port per node: Träff et
// al., "A pipelined broadcast for multidimensional meshes", 2008).
//
//   rank 0:  source -> frame -+-> takers            rank i:  previous -> frame -+-> takers
//                             +-> rank 1                                        +-> next
//
// A frame is {u32 length, u32 flags} and up to `frame_bytes` of the stream, in one message; a few
// of them are under way at each rank. The source and the takers work on threads of their own, and
// MPI is called by the calling thread alone. Nobody leaves early: a rank that has no use for the
// stream any more still passes it on.
//
// Neighbours send each other heartbeats, by messages of their own: a rank whose disk is slow takes
// no frames for minutes, and is not dead. A rank that finds one lost, or fails, says so, and it
// spreads.
//
// Every few frames a word goes the other way, from the last rank to rank 0, each adding its own:
// how many have no use for the stream any more, and whether one was told to end. Rank 0 may end the
// stream for it. (Not an all-reduce: the chain would stand still until its last rank has caught
// up.)
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "cluster/collective.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

/// What the ranks tell rank 0 while the stream flows.
struct ChainWord {
  std::uint32_t out = 0;     ///< ranks that have no use for it any more
  std::uint32_t signal = 0;  ///< the largest signal that told one of them to end
};

struct ChainOptions {
  /// Many small frames rather than few large ones: MPI moves a bit of each message that is under
  /// way whenever it is tested, and the last of many ranks begins to get bytes when the others have
  /// a frame each.
  std::size_t frame_bytes = std::size_t{2} << 20U;
  std::size_t frames = 8;      ///< buffers, and so frames under way, of each rank
  std::size_t word_every = 8;  ///< frames
  /// A neighbour of which no heartbeat comes for so long is lost. Longer than a link takes for all
  /// frames that are under way: a heartbeat may be behind them.
  std::chrono::milliseconds patience{120'000};
  /// How long the threads have, at the end, while must_stop() asks this rank to end.
  std::chrono::milliseconds grace{3'000};
};

/// One rank's end of the chain. What is called on which thread is said with each. `source` and
/// `takers` must own what they use: a thread of theirs that does not end is left behind.
struct ChainEnd {
  /// Rank 0: puts the next piece of the stream into the room, and says how long it is; 0: it is
  /// over. Its own thread. Must not throw.
  std::function<std::size_t(std::span<std::byte> room)> source;
  /// All are given each piece, in order, each taker on a thread of its own. Must not throw.
  std::vector<std::function<void(std::span<const std::byte>)>> takers;
  /// This rank's word. The calling thread; must not block.
  std::function<ChainWord()> word;
  /// Rank 0, after each sum of words: false ends the stream where it is. The calling thread.
  std::function<bool(const ChainWord& sum)> go_on;
  /// What an error calls the ranks, by rank.
  std::vector<std::string> names;
  /// Before the stream flows: this rank cannot have its threads (kNoSpace). It passes the stream on
  /// and takes nothing; without its source the stream ends early. The calling thread; may be empty.
  std::function<void(const Error&)> unable;
  /// Several times a second: the calling thread's other duties. Must not block. May be empty.
  std::function<void()> attend;
  /// Why this rank has to end; nullopt: it may go on. The calling thread; may be empty.
  std::function<std::optional<Error>()> must_stop;
};

struct ChainResult {
  bool whole = false;  ///< all of the stream came, and it was not ended early
  bool left_behind =
      false;  ///< a thread of this rank did not end in time: leave what it uses alone
  std::optional<Error> error;  ///< a rank was lost (kNetwork, kPeerLost) or the communicator broke:
                               ///< it cannot be used any more
};

/// Collective. Returns when this rank has taken and passed on the whole stream, or has failed. The
/// calling thread tests and sleeps in turns.
[[nodiscard]] ChainResult run_chain(Collective& ranks, const ChainEnd& end,
                                    const ChainOptions& options = {});

}  // namespace fvprefetch
