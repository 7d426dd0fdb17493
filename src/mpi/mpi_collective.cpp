// Waiting. A blocking MPI call spins: measured with Open MPI 4.1, a rank in MPI_Barrier uses 96 %
// of a core, also with mpi_yield_when_idle. So every collective here is a non-blocking one, tested
// between sleeps. A test also moves the collective on (there is no progress thread to count on),
// and a tree of N ranks has ceil(log2 N) levels that each may find the next one asleep: hence the
// bound of 10 + 50 x ceil(log2 N) ms on the wake-up.
#include "mpi/mpi_collective.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/environment.h"
#include "base/posix.h"
#include "base/try.h"

namespace fvprefetch::mpi {
namespace {

using std::chrono::microseconds;

// Between ranks that may be minutes apart, and between ranks that are all here and moving bytes.
constexpr microseconds kPatient{50'000};
constexpr microseconds kBrisk{1'000};
constexpr microseconds kFirstPause{50};

constexpr int kLetterTag = 1;  // from rank 0: a char
constexpr int kSignalTag = 2;  // to rank 0: an int
constexpr int kFirstMailTag = 3;
constexpr char kLives = 'l';
constexpr char kDone = 'd';

// all_gather is for short texts; more is a mistake of the caller, which all ranks see alike.
constexpr std::uint64_t kLongestText = std::uint64_t{1} << 20U;

Status checked(int rc, std::string_view call) {
  if (rc == MPI_SUCCESS) return {};
  std::array<char, MPI_MAX_ERROR_STRING + 1> text{};
  int length = 0;
  std::string words = "error " + std::to_string(rc);
  if (MPI_Error_string(rc, text.data(), &length) == MPI_SUCCESS && length > 0) {
    words.assign(text.data(), static_cast<std::size_t>(length));
  }
  return fail(ErrorCode::kInternal, std::string(call) + " failed: " + words);
}

// Tests once right away and then between sleeps that grow to `longest`. Slowly, by an eighth: a
// collective of several levels is then late by a part of the time that it has taken so far, where
// doubling would double it; and to reach 50 ms takes 60 tests, which cost nothing. `limit`: as in
// limit_waits().
Status finish(MPI_Request& request, microseconds longest, std::string_view call,
              std::chrono::milliseconds limit = {}) {
  const auto begin = std::chrono::steady_clock::now();
  microseconds pause = kFirstPause;
  for (;;) {
    int done = 0;
    FVP_CHECK_OK(checked(MPI_Test(&request, &done, MPI_STATUS_IGNORE), call));
    if (done != 0) return {};
    if (limit.count() > 0 && std::chrono::steady_clock::now() - begin > limit) {
      return fail(peer_lost("a rank has not come to " + std::string(call), limit));
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause + pause / 8, longest);
  }
}

// Whether this thread may call MPI at all. Only calls that are allowed at any time.
Status usable() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized == 0) {
    return fail(ErrorCode::kLauncher, "MPI is not initialised", "call MPI_Init first");
  }
  if (finalized != 0) {
    return fail(ErrorCode::kLauncher, "MPI is finalized already",
                "call fvprefetch before MPI_Finalize");
  }
  int level = MPI_THREAD_SINGLE;
  int main_thread = 0;
  FVP_CHECK_OK(checked(MPI_Query_thread(&level), "MPI_Query_thread"));
  FVP_CHECK_OK(checked(MPI_Is_thread_main(&main_thread), "MPI_Is_thread_main"));
  // SINGLE is what plain MPI_Init gives. It is taken for FUNNELED, which every MPI in use makes
  // of it: our further threads never call MPI.
  if (level <= MPI_THREAD_FUNNELED && main_thread == 0) {
    return fail(ErrorCode::kLauncher, "this thread may not call MPI",
                "call fvprefetch from the thread that called MPI_Init, or initialise MPI with "
                "MPI_THREAD_SERIALIZED");
  }
  return {};
}

std::string processor_name() {
  std::array<char, MPI_MAX_PROCESSOR_NAME + 1> name{};
  int length = 0;
  if (MPI_Get_processor_name(name.data(), &length) != MPI_SUCCESS || length <= 0) {
    return posix::host_name();
  }
  return {name.data(), static_cast<std::size_t>(length)};
}

class MpiCollective final : public Collective {
 public:
  MpiCollective(MPI_Comm comm, std::size_t piece) : comm_(comm), piece_(piece) {}
  MpiCollective(const MpiCollective&) = delete;
  MpiCollective& operator=(const MpiCollective&) = delete;

  ~MpiCollective() override {
    int finalized = 0;
    // After a failed collective the communicator is left alone: a request may still be under way.
    if (MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0 && !broken_) {
      (void)MPI_Comm_free(&comm_);  // nobody could be told
    }
  }

  // Collective: who and where everybody is.
  Status open() {
    FVP_CHECK_OK(
        checked(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    FVP_CHECK_OK(checked(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank"));
    FVP_CHECK_OK(checked(MPI_Comm_size(comm_, &size_), "MPI_Comm_size"));
    node_ = processor_name();
    // By name, since MPI_COMM_TYPE_SHARED means "can share memory", and puts every rank on a node
    // of its own with some PMIx and UCX versions. Slurm's number of the node separates nodes that
    // were given the same name.
    const EnvironmentLookup env = environment::or_process({});
    const std::string key = node_ + '\n' + env("SLURM_NODEID").value_or("");
    FVP_TRY(const std::vector<std::string> keys, all_gather(key));
    nodes_ = static_cast<int>(std::set(keys.begin(), keys.end()).size());
    leader_ = static_cast<int>(std::find(keys.begin(), keys.end(), key) - keys.begin());
    return {};
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int leader() const override { return leader_; }
  int nodes() const override { return nodes_; }
  const std::string& node() const override { return node_; }

  Status quiet_wait() override {
    return run("MPI_Ibarrier", kPatient,
               [&](MPI_Request* request) { return MPI_Ibarrier(comm_, request); });
  }

  // Rank 0's letters to each other rank: kLives now and then, kDone at the end, in this order, so
  // that none is left over. A signal goes the other way, and how many there were is summed up at
  // the end, for the same reason.
  Status await_work(const Vigil& vigil) override {
    if (broken_) return fail(*broken_);
    if (size_ == 1) return {};
    Status waited = rank_ == 0 ? tell_that_it_is_done(vigil) : listen(vigil);
    if (!waited) {
      broken_ = waited.error();
      return waited;
    }
    const WaitLimit limit(*this, vigil.patience);
    if (rank_ == 0) FVP_CHECK_OK(quiet_wait());
    const int sent = signal_sent_ != 0 ? 1 : 0;
    int sum = 0;
    FVP_CHECK_OK(run("MPI_Iallreduce", kBrisk, [&](MPI_Request* request) {
      return MPI_Iallreduce(&sent, &sum, 1, MPI_INT, MPI_SUM, comm_, request);
    }));
    while (rank_ == 0 && signals_heard_ < sum) {
      if (hear_signal() == 0) std::this_thread::sleep_for(kBrisk);
    }
    signals_heard_ = 0;
    signal_sent_ = 0;
    return {};
  }

  int attend(const Vigil& vigil) override {
    if (broken_ || size_ == 1 || rank_ != 0) return 0;
    const auto now = std::chrono::steady_clock::now();
    if (now - attended_ < std::chrono::milliseconds(100)) return 0;
    attended_ = now;
    if (now - told_ >= vigil.patience / 10) {
      told_ = now;
      tell_that_we_live();
    }
    return hear_signal();
  }

  Result<std::string> broadcast(std::string bytes) override {
    std::uint64_t length = bytes.size();
    FVP_CHECK_OK(broadcast_piece(&length, 1, MPI_UINT64_T, kPatient));
    bytes.resize(length);
    for (std::size_t at = 0; at < bytes.size(); at += piece_) {
      const std::size_t count = std::min(piece_, bytes.size() - at);
      FVP_CHECK_OK(broadcast_piece(bytes.data() + at, count, MPI_BYTE, kBrisk));
    }
    return bytes;
  }

  Result<int> max(int value) override {
    int largest = value;
    FVP_CHECK_OK(run("MPI_Iallreduce", kPatient, [&](MPI_Request* request) {
      return MPI_Iallreduce(&value, &largest, 1, MPI_INT, MPI_MAX, comm_, request);
    }));
    return largest;
  }

  Result<std::vector<std::string>> all_gather(const std::string& text) override {
    const auto ranks = static_cast<std::size_t>(size_);
    const std::uint64_t mine = text.size();
    std::vector<std::uint64_t> lengths(ranks);
    FVP_CHECK_OK(run("MPI_Iallgather", kPatient, [&](MPI_Request* request) {
      return MPI_Iallgather(&mine, 1, MPI_UINT64_T, lengths.data(), 1, MPI_UINT64_T, comm_,
                            request);
    }));

    std::vector<int> counts(ranks);
    std::vector<int> offsets(ranks);
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < ranks; ++i) {
      // Every rank has the same lengths, so every rank returns here or none.
      if (lengths[i] > kLongestText || total + lengths[i] > INT_MAX) {
        return fail(ErrorCode::kInternal,
                    "the text of rank " + std::to_string(i) +
                        " is too long to gather: " + std::to_string(lengths[i]) + " bytes");
      }
      counts[i] = static_cast<int>(lengths[i]);
      offsets[i] = static_cast<int>(total);
      total += lengths[i];
    }

    std::string all(total, '\0');
    FVP_CHECK_OK(run("MPI_Iallgatherv", kBrisk, [&](MPI_Request* request) {
      return MPI_Iallgatherv(text.data(), static_cast<int>(mine), MPI_BYTE, all.data(),
                             counts.data(), offsets.data(), MPI_BYTE, comm_, request);
    }));
    std::vector<std::string> texts(ranks);
    for (std::size_t i = 0; i < ranks; ++i) {
      texts[i] = all.substr(static_cast<std::size_t>(offsets[i]), lengths[i]);
    }
    return texts;
  }

  Result<std::unique_ptr<Collective>> leaders() override {
    if (broken_) return fail(*broken_);
    MPI_Comm part = MPI_COMM_NULL;
    // There is no non-blocking one before MPI 4's; everybody is about to come.
    const Status split = checked(
        MPI_Comm_split(comm_, node_leader() ? 0 : MPI_UNDEFINED, rank_, &part), "MPI_Comm_split");
    if (!split) {
      broken_ = split.error();
      return fail(split.error());
    }
    if (part == MPI_COMM_NULL) return nullptr;
    auto leaders = std::make_unique<MpiCollective>(part, piece_);
    leaders->limit_ = limit_;
    FVP_CHECK_OK(leaders->take_place(node_));
    return leaders;
  }

  Result<std::unique_ptr<Pending>> send(int to, Mail kind,
                                        std::span<const std::byte> bytes) override {
    return begin("MPI_Isend", [&](MPI_Request* request) {
      return MPI_Isend(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, to, tag_of(kind),
                       comm_, request);
    });
  }
  Result<std::unique_ptr<Pending>> receive(int from, Mail kind,
                                           std::span<std::byte> room) override {
    return begin("MPI_Irecv", [&](MPI_Request* request) {
      return MPI_Irecv(room.data(), static_cast<int>(room.size()), MPI_BYTE, from, tag_of(kind),
                       comm_, request);
    });
  }

  std::chrono::milliseconds limit_waits(std::chrono::milliseconds limit) override {
    return std::exchange(limit_, limit);
  }

 private:
  static int tag_of(Mail kind) { return kFirstMailTag + static_cast<int>(kind); }

  class Message final : public Pending {
   public:
    Message(MPI_Request request, std::string_view call) : request_(request), call_(call) {}
    Result<bool> done() override {
      int done = 0;
      FVP_CHECK_OK(checked(MPI_Test(&request_, &done, MPI_STATUS_IGNORE), call_));
      return done != 0;
    }

   private:
    MPI_Request request_;
    std::string_view call_;
  };

  // Who has not even taken the last letter off our hands, since large messages are before it, or
  // the network is slow, hears of us by that one. Nobody is waited for.
  void tell_that_we_live() {
    letters_.resize(static_cast<std::size_t>(size_ - 1), MPI_REQUEST_NULL);
    for (int to = 1; to < size_; ++to) {
      MPI_Request& letter = letters_[static_cast<std::size_t>(to - 1)];
      int sent = 0;
      // Who does not get it, and dies of it, is dead already.
      if (MPI_Test(&letter, &sent, MPI_STATUS_IGNORE) != MPI_SUCCESS || sent == 0) continue;
      (void)MPI_Isend(&kLives, 1, MPI_CHAR, to, kLetterTag, comm_, &letter);
    }
  }

  Status tell_that_it_is_done(const Vigil& vigil) {
    std::vector<MPI_Request> last(static_cast<std::size_t>(size_ - 1), MPI_REQUEST_NULL);
    for (int to = 1; to < size_; ++to) {
      FVP_CHECK_OK(checked(MPI_Isend(&kDone, 1, MPI_CHAR, to, kLetterTag, comm_,
                                     &last[static_cast<std::size_t>(to - 1)]),
                           "MPI_Isend"));
    }
    FVP_CHECK_OK(finish_all(letters_, vigil));
    return finish_all(last, vigil);
  }

  static Status finish_all(std::vector<MPI_Request>& requests, const Vigil& vigil) {
    for (MPI_Request& request : requests) {
      if (request == MPI_REQUEST_NULL) continue;
      FVP_CHECK_OK(finish(request, kBrisk, "MPI_Isend", vigil.patience));
    }
    return {};
  }

  // Of a rank that is not rank 0: the barrier, and what comes by letter meanwhile.
  Status listen(const Vigil& vigil) {
    auto heard = std::chrono::steady_clock::now();
    microseconds pause = kFirstPause;
    MPI_Request barrier = MPI_REQUEST_NULL;
    FVP_CHECK_OK(checked(MPI_Ibarrier(comm_, &barrier), "MPI_Ibarrier"));
    MPI_Request letter = MPI_REQUEST_NULL;
    bool last = false;  // the last letter is here
    for (;;) {
      if (letter == MPI_REQUEST_NULL && !last) {
        FVP_CHECK_OK(checked(MPI_Irecv(&heard_letter_, 1, MPI_CHAR, 0, kLetterTag, comm_, &letter),
                             "MPI_Irecv"));
      }
      int passed = 0;
      int done = 0;
      FVP_CHECK_OK(checked(MPI_Test(&barrier, &passed, MPI_STATUS_IGNORE), "MPI_Ibarrier"));
      if (!last) FVP_CHECK_OK(checked(MPI_Test(&letter, &done, MPI_STATUS_IGNORE), "MPI_Irecv"));
      if (done != 0 && heard_letter_ == kDone) last = true;
      if (passed != 0 && last) return {};
      const auto now = std::chrono::steady_clock::now();
      if (done != 0) {  // there may be many, for a rank that was at work itself
        heard = now;
        continue;
      }
      if (now - heard > vigil.patience) {
        return fail(peer_lost(
            last ? "a rank has not come to where rank 0 is" : "rank 0 has given no sign of life",
            vigil.patience));
      }
      if (const int number = vigil.signal ? vigil.signal() : 0; number != 0 && signal_sent_ == 0) {
        signal_sent_ = number;
        FVP_CHECK_OK(
            checked(MPI_Isend(&signal_sent_, 1, MPI_INT, 0, kSignalTag, comm_, &signal_request_),
                    "MPI_Isend"));
      }
      std::this_thread::sleep_for(pause);
      pause = std::min(pause + pause / 8, kPatient);
    }
  }

  // The signal of a rank that has told one; 0: none has.
  int hear_signal() {
    int there = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, kSignalTag, comm_, &there, &status) != MPI_SUCCESS) return 0;
    if (there == 0) return 0;
    int number = 0;
    if (MPI_Recv(&number, 1, MPI_INT, status.MPI_SOURCE, kSignalTag, comm_, MPI_STATUS_IGNORE) !=
        MPI_SUCCESS) {
      return 0;
    }
    ++signals_heard_;
    return number;
  }

  template <typename Start>
  Result<std::unique_ptr<Pending>> begin(std::string_view call, Start start) {
    if (broken_) return fail(*broken_);
    MPI_Request request = MPI_REQUEST_NULL;
    FVP_CHECK_OK(checked(start(&request), call));
    return std::make_unique<Message>(request, call);
  }

  // Of leaders: each is alone on its node.
  Status take_place(const std::string& node) {
    FVP_CHECK_OK(checked(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank"));
    FVP_CHECK_OK(checked(MPI_Comm_size(comm_, &size_), "MPI_Comm_size"));
    node_ = node;
    nodes_ = size_;
    leader_ = rank_;
    return {};
  }

  // Starts one collective and sees it through. A failure is remembered: what the other ranks are
  // in the middle of is unknown, and a further call could wait for ever.
  template <typename Start>
  Status run(std::string_view call, microseconds longest, Start start) {
    if (broken_) return fail(*broken_);
    MPI_Request request = MPI_REQUEST_NULL;
    Status status = checked(start(&request), call);
    if (status) status = finish(request, longest, call, limit_);
    if (!status) broken_ = status.error();
    return status;
  }

  Status broadcast_piece(void* data, std::size_t count, MPI_Datatype type, microseconds longest) {
    return run("MPI_Ibcast", longest, [&](MPI_Request* request) {
      return MPI_Ibcast(data, static_cast<int>(count), type, 0, comm_, request);
    });
  }

  MPI_Comm comm_;
  std::size_t piece_;
  int rank_ = 0;
  int size_ = 1;
  int nodes_ = 1;
  int leader_ = 0;
  std::string node_;
  std::optional<Error> broken_;
  std::chrono::milliseconds limit_{};  // of waits; 0: none

  // Rank 0's.
  std::chrono::steady_clock::time_point attended_{};
  std::chrono::steady_clock::time_point told_ = std::chrono::steady_clock::now();
  std::vector<MPI_Request> letters_;
  int signals_heard_ = 0;
  // The others'.
  char heard_letter_ = 0;
  int signal_sent_ = 0;
  MPI_Request signal_request_ = MPI_REQUEST_NULL;
};

}  // namespace

Result<std::unique_ptr<Collective>> make_mpi_collective(MPI_Comm comm,
                                                        std::size_t broadcast_piece) {
  FVP_CHECK_OK(usable());
  if (comm == MPI_COMM_NULL) return fail(ErrorCode::kUsage, "the communicator is MPI_COMM_NULL");
  int inter = 0;
  FVP_CHECK_OK(checked(MPI_Comm_test_inter(comm, &inter), "MPI_Comm_test_inter"));
  if (inter != 0) {
    return fail(ErrorCode::kUsage, "the communicator is an intercommunicator",
                "pass one that holds all ranks, for instance from MPI_Intercomm_merge");
  }

  // Not MPI_Comm_dup: ranks that come early would spin in it until the last one is here. This is
  // the one call that is made under the caller's error handler, with arguments that were just
  // checked.
  MPI_Comm dup = MPI_COMM_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
  FVP_CHECK_OK(checked(MPI_Comm_idup(comm, &dup, &request), "MPI_Comm_idup"));
  FVP_CHECK_OK(finish(request, kPatient, "MPI_Comm_idup"));

  auto ranks =
      std::make_unique<MpiCollective>(dup, std::clamp<std::size_t>(broadcast_piece, 1, INT_MAX));
  FVP_CHECK_OK(ranks->open());
  return ranks;
}

}  // namespace fvprefetch::mpi
