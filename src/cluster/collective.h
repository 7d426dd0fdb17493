// The ranks of a job as a seam, without MPI types: a handful of collective verbs.
//
// Three implementations pass one contract suite: SelfCollective (one rank), the tests' threads, and
// mpi/mpi_collective. Every function marked Collective must be called by every rank in the same
// order; between two of them no rank may return early (design section D5).
//
// An Error from a collective itself means that the communicator is not usable any more.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fvprefetch/error.h"

namespace fvprefetch {

/// A message between two ranks that is under way. Its buffer must live until it is done, and it
/// must be seen through, unless the communicator broke.
class Pending {
 public:
  virtual ~Pending() = default;
  /// Moves it on, and says whether it is done. Does not block. Not to be asked again afterwards.
  [[nodiscard]] virtual Result<bool> done() = 0;
};

/// What ranks tell each other while some of them work and the others wait.
struct Vigil {
  /// A rank that should send heartbeats, and of which nothing is heard for so long, is lost.
  std::chrono::milliseconds patience{120'000};
  /// The signal that told this rank to end; 0: none. Asked several times a second. May be empty.
  std::function<int()> signal;
  /// Another rank was told to end by this signal. May be empty.
  std::function<void(int)> on_signal;
  /// Rank 0 waits for `whom`: after 2 s, then every 30 s. May be empty.
  std::function<void(const std::string& whom, std::chrono::milliseconds waited)> on_wait;
};

/// Messages of one kind do not wait for those of another.
enum class Mail : int { kStream, kSigns };

/// Error::reason of a rank that is lost. Not every rank knows: the communicator cannot be used any
/// more, and a program can only end it (MPI_Abort).
inline constexpr const char* kPeerLost = "peer_lost";

class Collective {
 public:
  virtual ~Collective() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  /// One rank per node is its leader: the lowest one. The leader of this rank's node.
  [[nodiscard]] virtual int leader() const = 0;
  [[nodiscard]] bool node_leader() const { return leader() == rank(); }
  [[nodiscard]] virtual int nodes() const = 0;
  /// Name of this rank's node.
  [[nodiscard]] virtual const std::string& node() const = 0;
  /// What each rank said of itself when the ranks met, by rank. Empty where none did.
  [[nodiscard]] virtual const std::vector<std::string>& greetings() const;

  /// Collective: returns on every rank when all ranks are here. Waiting uses next to no CPU; the
  /// wake-up comes at most 10 + 50 x ceil(log2 N) ms late.
  [[nodiscard]] virtual Status quiet_wait() = 0;
  /// Collective: returns on every rank when all ranks have ended the work of their own that came
  /// before it, of which this thread calls attend() meanwhile. While it waits, a signal that one
  /// rank was sent reaches all others (Vigil::on_signal), within a second or so. Fails (kNetwork,
  /// kPeerLost) without heartbeats. An implementation whose ranks cannot die apart just waits.
  [[nodiscard]] virtual Status await_work(const Vigil& vigil);
  /// While this rank works: sends and receives heartbeats, and returns the signal that another rank
  /// was sent; 0: none. Not collective, does not block; the thread that makes the collective calls.
  /// To be called several times a second before await_work().
  [[nodiscard]] virtual int attend(const Vigil& vigil);
  /// Collective: rank 0's `bytes` on every rank; the argument of other ranks is ignored. Any size.
  [[nodiscard]] virtual Result<std::string> broadcast(std::string bytes) = 0;
  /// Collective: the largest `value` of all ranks, on every rank.
  [[nodiscard]] virtual Result<int> max(int value) = 0;
  /// Collective: every rank's `text`, by rank, on every rank. For short texts.
  [[nodiscard]] virtual Result<std::vector<std::string>> all_gather(const std::string& text) = 0;

  /// From now on a collective that has not ended after `limit` fails (kNetwork, kPeerLost): what
  /// should have come at once is not going to come. Zero, as at first: it waits for ever. Of this
  /// rank's calls alone; await_work() has its own. Returns what it was.
  virtual std::chrono::milliseconds limit_waits(std::chrono::milliseconds limit);

  /// Collective: the leaders among themselves, in the order of their ranks; null on all others. All
  /// ranks should be about to come: the wait is not a quiet one. Must not outlive this Collective.
  [[nodiscard]] virtual Result<std::unique_ptr<Collective>> leaders();

  // Between two ranks; not collective. Messages of one kind and one rank to another arrive in the
  // order of the calls, at receives in the order of theirs. Where an implementation says no more,
  // there are none.

  /// At most 1 GiB.
  [[nodiscard]] virtual Result<std::unique_ptr<Pending>> send(int to, Mail kind,
                                                              std::span<const std::byte> bytes);
  /// Room for the message that is sent; a shorter one leaves the rest as it is, and the length is
  /// not told.
  [[nodiscard]] virtual Result<std::unique_ptr<Pending>> receive(int from, Mail kind,
                                                                 std::span<std::byte> room);
};

/// attend(), and what comes of it.
void look_after(Collective& ranks, const Vigil& vigil);

/// kPeerLost, with who or what was waited for in `whom`.
[[nodiscard]] Error peer_lost(const std::string& whom, std::chrono::milliseconds patience);

/// While it lives, collectives have this limit.
class WaitLimit {
 public:
  WaitLimit(Collective& ranks, std::chrono::milliseconds limit)
      : ranks_(ranks), before_(ranks.limit_waits(limit)) {}
  WaitLimit(const WaitLimit&) = delete;
  WaitLimit& operator=(const WaitLimit&) = delete;
  ~WaitLimit() { (void)ranks_.limit_waits(before_); }

 private:
  Collective& ranks_;
  std::chrono::milliseconds before_;
};

/// One rank: nothing to wait for.
[[nodiscard]] std::unique_ptr<Collective> make_self_collective(std::string node);

/// Collective: the same answer on every rank: the Error of the lowest rank that passes one, with a
/// count of the others; nullopt when none does. The result itself fails when the collective does.
[[nodiscard]] Result<std::optional<Error>> first_failure(Collective& ranks,
                                                         const std::optional<Error>& mine);

}  // namespace fvprefetch
