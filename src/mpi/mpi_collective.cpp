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
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/awake_time.h"
#include "base/clock.h"
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

// Messages between rank 0 and each other rank while ranks work: one int each. A positive number is
// a signal that ends the job.
constexpr int kFromRootTag = 1;
constexpr int kToRootTag = 2;
constexpr int kFirstMailTag = 3;
constexpr int kHeartbeat = 0;
constexpr int kLast = -1;  // from rank 0: all ranks have come, and no further message follows

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

// MPI may write to a buffer until its request is done, and a communicator that broke cannot be
// asked to cancel one: what requests of such a communicator use is kept for the life of the
// process.
void keep_for_good(std::shared_ptr<void> buffers) {
  static std::mutex mutex;
  static auto* const kept = new std::vector<std::shared_ptr<void>>;  // outlives static destruction
  const std::lock_guard guard(mutex);
  kept->push_back(std::move(buffers));
}

// Tests once right away and then between sleeps that grow to `longest`. Slowly, by an eighth: a
// collective of several levels is then late by a part of the time that it has taken so far, where
// doubling would double it; and to reach 50 ms takes 60 tests, which cost nothing. `limit`: as in
// limit_waits().
Status finish(MPI_Request& request, microseconds longest, std::string_view call,
              std::chrono::milliseconds limit = {}) {
  AwakeTime time;
  const auto begin = time.now();
  microseconds pause = kFirstPause;
  for (;;) {
    int done = 0;
    FVP_CHECK_OK(checked(MPI_Test(&request, &done, MPI_STATUS_IGNORE), call));
    if (done != 0) return {};
    if (limit.count() > 0 && time.now() - begin > limit) {
      return fail(peer_lost("a rank did not take part in " + std::string(call), limit));
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
    if (broken_) keep_for_good(std::move(post_));
    if (MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0 && !broken_) {
      (void)MPI_Comm_free(&comm_);  // there is no way to report a failure
    }
  }

  // Collective: who and where everybody is.
  Status open(const std::string& greeting) {
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
    FVP_TRY(std::vector<std::string> keys, all_gather(key + '\0' + greeting));
    for (std::string& text : keys) {
      const std::size_t end = std::min(text.find('\0'), text.size());
      greetings_.push_back(text.substr(std::min(end + 1, text.size())));
      text.resize(end);
      places_.push_back(text.substr(0, text.find('\n')));
    }
    nodes_ = static_cast<int>(std::set(keys.begin(), keys.end()).size());
    leader_ = static_cast<int>(std::find(keys.begin(), keys.end(), key) - keys.begin());
    return {};
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int leader() const override { return leader_; }
  int nodes() const override { return nodes_; }
  const std::string& node() const override { return node_; }
  const std::vector<std::string>& greetings() const override { return greetings_; }

  Status quiet_wait() override {
    return run("MPI_Ibarrier", kPatient, nullptr,
               [&](MPI_Request* request) { return MPI_Ibarrier(comm_, request); });
  }

  // Each rank enters the barrier when its own work is done. Until all have come, rank 0 sends
  // heartbeats, ranks that work send theirs to it (attend()), and a signal that one rank was sent
  // goes to rank 0, which passes it on. Then rank 0 sends kLast, so that no message is left over;
  // those to rank 0 are counted, for the same reason.
  Status await_work(const Vigil& vigil) override {
    if (broken_) return fail(*broken_);
    if (size_ == 1) return {};
    Status waited = meet(vigil);
    if (waited) waited = take_last_messages(vigil);
    if (!waited) {
      broken_ = waited.error();
      return waited;
    }
    Post next;
    // A rank that is through may have begun to send what belongs to the next wait.
    if (rank_ == 0) next.received = post_->received - post_->sum.value;
    next.signal_heard = post_->signal_heard;
    next.heard_of = next.received > 0 ? post_->heard_of : 0;
    *post_ = std::move(next);
    return {};
  }

  int attend(const Vigil& vigil) override {
    if (broken_ || size_ == 1) return 0;
    const auto now = time_.now();
    if (now - attended_ < std::chrono::milliseconds(100)) return 0;
    attended_ = now;
    // What fails here fails again in await_work(), which can say so.
    (void)exchange(vigil);
    return std::exchange(post_->signal_heard, 0);
  }

  Result<std::string> broadcast(std::string bytes) override {
    struct Buffers {
      std::uint64_t length;
      std::string bytes;
    };
    const auto sent = std::make_shared<Buffers>();
    sent->length = bytes.size();
    sent->bytes = std::move(bytes);
    FVP_CHECK_OK(broadcast_piece(sent, &sent->length, 1, MPI_UINT64_T, kPatient));
    sent->bytes.resize(sent->length);
    for (std::size_t at = 0; at < sent->bytes.size(); at += piece_) {
      const std::size_t count = std::min(piece_, sent->bytes.size() - at);
      FVP_CHECK_OK(broadcast_piece(sent, sent->bytes.data() + at, count, MPI_BYTE, kBrisk));
    }
    return std::move(sent->bytes);
  }

  Result<int> max(int value) override {
    struct Buffers {
      int mine;
      int largest;
    };
    const auto values = std::make_shared<Buffers>(Buffers{value, value});
    FVP_CHECK_OK(run("MPI_Iallreduce", kPatient, values, [&](MPI_Request* request) {
      return MPI_Iallreduce(&values->mine, &values->largest, 1, MPI_INT, MPI_MAX, comm_, request);
    }));
    return values->largest;
  }

  Result<std::vector<std::string>> all_gather(const std::string& text) override {
    const auto ranks = static_cast<std::size_t>(size_);
    struct Buffers {
      std::uint64_t length;
      std::string text;
      std::vector<std::uint64_t> lengths;
      std::vector<int> counts;
      std::vector<int> offsets;
      std::string all;
    };
    const auto sent = std::make_shared<Buffers>();
    sent->length = text.size();
    sent->text = text;
    sent->lengths.resize(ranks);
    FVP_CHECK_OK(run("MPI_Iallgather", kPatient, sent, [&](MPI_Request* request) {
      return MPI_Iallgather(&sent->length, 1, MPI_UINT64_T, sent->lengths.data(), 1, MPI_UINT64_T,
                            comm_, request);
    }));

    std::uint64_t total = 0;
    for (std::size_t i = 0; i < ranks; ++i) {
      const std::uint64_t length = sent->lengths[i];
      // Every rank has the same lengths, so every rank returns here or none.
      if (length > kLongestText || total + length > INT_MAX) {
        return fail(ErrorCode::kInternal, "the text of rank " + std::to_string(i) +
                                              " is too long to gather: " + std::to_string(length) +
                                              " bytes");
      }
      sent->counts.push_back(static_cast<int>(length));
      sent->offsets.push_back(static_cast<int>(total));
      total += length;
    }

    sent->all.resize(total);
    FVP_CHECK_OK(run("MPI_Iallgatherv", kBrisk, sent, [&](MPI_Request* request) {
      return MPI_Iallgatherv(sent->text.data(), static_cast<int>(sent->length), MPI_BYTE,
                             sent->all.data(), sent->counts.data(), sent->offsets.data(), MPI_BYTE,
                             comm_, request);
    }));
    std::vector<std::string> texts(ranks);
    for (std::size_t i = 0; i < ranks; ++i) {
      texts[i] = sent->all.substr(static_cast<std::size_t>(sent->offsets[i]), sent->lengths[i]);
    }
    return texts;
  }

  Result<std::unique_ptr<Collective>> leaders() override {
    if (broken_) return fail(*broken_);
    // There is no non-blocking split before MPI 4's: with a bound only when all ranks are here.
    FVP_CHECK_OK(quiet_wait());
    MPI_Comm part = MPI_COMM_NULL;
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

  // --- messages between rank 0 and the others while ranks work
  // ------------------------------------

  // A message of one int, and where it stands.
  struct Letter {
    MPI_Request request = MPI_REQUEST_NULL;
    int value = 0;
  };
  // Of one await_work() and the work before it. MPI reads and writes the letters.
  struct Post {
    Letter barrier;
    // Rank 0: to each other rank, by rank; and which of them have been told of the signal.
    std::vector<Letter> outgoing;
    std::vector<bool> told;
    int received = 0;  // messages, of all ranks
    int heard_of = 0;  // the rank whose heartbeat came last
    // The others: from rank 0 and to it.
    Letter incoming;
    Letter to_root;
    bool last = false;  // kLast has come
    int sent = 0;       // messages
    int signal_told = 0;
    // All.
    int signal_heard = 0;  // not yet returned by attend()
    Letter sum;
  };
  using Time = std::chrono::steady_clock;

  Status meet(const Vigil& vigil) {
    Letter& barrier = post_->barrier;
    FVP_CHECK_OK(checked(MPI_Ibarrier(comm_, &barrier.request), "MPI_Ibarrier"));
    const auto begin = time_.now();
    heard_ = begin;
    said_ = begin;
    microseconds pause = kFirstPause;
    bool passed = false;
    while (!passed || (rank_ != 0 && !post_->last)) {
      if (!passed) {
        FVP_TRY(passed, is_done(barrier, "MPI_Ibarrier"));
      }
      FVP_CHECK_OK(exchange(vigil));
      if (const int number = std::exchange(post_->signal_heard, 0); number != 0) {
        if (vigil.on_signal) vigil.on_signal(number);
      }
      if (passed && (rank_ == 0 || post_->last)) break;
      say_on_whom(begin, vigil);
      if (time_.now() - heard_ > vigil.patience) {
        return fail(peer_lost(rank_ != 0 && !passed ? "no heartbeat from rank 0"
                              : rank_ != 0          ? "rank 0 did not end the wait"
                                                    : "no heartbeat from a rank that still works",
                              vigil.patience));
      }
      std::this_thread::sleep_for(pause);
      // After the barrier rank 0's last message is about to come.
      pause = passed ? kBrisk : std::min(pause + pause / 8, kPatient);
    }
    return {};
  }

  // Rank 0's work is done, and what the others wait for it has said itself.
  void say_on_whom(Time::time_point begin, const Vigil& vigil) {
    constexpr std::chrono::seconds kFirst(2);
    constexpr std::chrono::seconds kAgain(30);
    const auto now = time_.now();
    if (rank_ != 0 || !vigil.on_wait || now - said_ < (said_ == begin ? kFirst : kAgain)) return;
    said_ = now;
    const auto at = static_cast<std::size_t>(post_->heard_of);
    vigil.on_wait(post_->heard_of > 0 && at < places_.size()
                      ? "rank " + std::to_string(at) + " on " + places_[at]
                      : "the other ranks",
                  std::chrono::duration_cast<std::chrono::milliseconds>(now - begin));
  }

  // Sends and receives what is due; never blocks.
  Status exchange(const Vigil& vigil) {
    return rank_ == 0 ? exchange_as_root(vigil) : exchange_with_root(vigil);
  }

  Status exchange_as_root(const Vigil& vigil) {
    FVP_CHECK_OK(receive_from_others());
    const int signal = vigil.signal ? vigil.signal() : 0;
    const auto now = time_.now();
    const bool beat = now - beat_ >= vigil.patience / 10;
    if (!beat && signal == 0) return {};
    if (beat) beat_ = now;
    const auto others = static_cast<std::size_t>(size_ - 1);
    post_->outgoing.resize(others);
    post_->told.resize(others, false);
    for (std::size_t i = 0; i < others; ++i) {
      const bool tells = signal != 0 && !post_->told[i];
      if (!beat && !tells) continue;
      Letter& letter = post_->outgoing[i];
      // A rank that has not even taken the last one, since large messages are before it, or the
      // network is slow, hears of us by that one. No rank is waited for.
      FVP_TRY(const bool free, is_done(letter, "MPI_Isend"));
      if (!free) continue;
      FVP_CHECK_OK(
          send_letter(letter, tells ? signal : kHeartbeat, static_cast<int>(i) + 1, kFromRootTag));
      post_->told[i] = post_->told[i] || tells;
    }
    return {};
  }

  Status receive_from_others() {
    for (;;) {
      int there = 0;
      MPI_Status status;
      FVP_CHECK_OK(
          checked(MPI_Iprobe(MPI_ANY_SOURCE, kToRootTag, comm_, &there, &status), "MPI_Iprobe"));
      if (there == 0) return {};
      int value = 0;
      FVP_CHECK_OK(checked(
          MPI_Recv(&value, 1, MPI_INT, status.MPI_SOURCE, kToRootTag, comm_, MPI_STATUS_IGNORE),
          "MPI_Recv"));
      ++post_->received;
      heard_ = time_.now();
      post_->heard_of = status.MPI_SOURCE;
      if (value != kHeartbeat) post_->signal_heard = value;
    }
  }

  Status exchange_with_root(const Vigil& vigil) {
    FVP_CHECK_OK(receive_from_root());
    const int signal = vigil.signal ? vigil.signal() : 0;
    const auto now = time_.now();
    const bool tells = signal != 0 && post_->signal_told == 0;
    // A rank in the barrier works no more, and is not waited for.
    const bool works = post_->barrier.request == MPI_REQUEST_NULL && !post_->last;
    // Often, so that rank 0 can say after 2 s for which one it waits.
    const auto every = std::min<Time::duration>(vigil.patience / 10, std::chrono::seconds(1));
    const bool beats = works && now - beat_ >= every;
    if (!tells && !beats) return {};
    FVP_TRY(const bool free, is_done(post_->to_root, "MPI_Isend"));
    if (!free) return {};
    beat_ = now;
    if (tells) post_->signal_told = signal;
    ++post_->sent;
    return send_letter(post_->to_root, tells ? signal : kHeartbeat, 0, kToRootTag);
  }

  // There may be many, for a rank that has not looked for a while.
  Status receive_from_root() {
    while (!post_->last) {
      Letter& letter = post_->incoming;
      if (letter.request == MPI_REQUEST_NULL) {
        FVP_CHECK_OK(
            checked(MPI_Irecv(&letter.value, 1, MPI_INT, 0, kFromRootTag, comm_, &letter.request),
                    "MPI_Irecv"));
      }
      FVP_TRY(const bool here, is_done(letter, "MPI_Irecv"));
      if (!here) return {};
      heard_ = time_.now();
      post_->last = letter.value == kLast;
      if (letter.value > 0) {
        post_->signal_heard = letter.value;
        post_->signal_told = letter.value;  // rank 0 knows it
      }
    }
    return {};
  }

  // Rank 0 says that this was all; it takes what the others have sent; every request is seen
  // through. All ranks are here, so none of it takes long.
  Status take_last_messages(const Vigil& vigil) {
    const auto due = Time::now() + vigil.patience;
    if (rank_ == 0) {
      const auto others = static_cast<std::size_t>(size_ - 1);
      for (Letter& letter : post_->outgoing) FVP_CHECK_OK(see_through(letter, due));
      post_->outgoing.resize(others);
      for (std::size_t i = 0; i < others; ++i) {
        FVP_CHECK_OK(send_letter(post_->outgoing[i], kLast, static_cast<int>(i) + 1, kFromRootTag));
      }
    }
    Letter& sum = post_->sum;
    FVP_CHECK_OK(
        checked(MPI_Iallreduce(&post_->sent, &sum.value, 1, MPI_INT, MPI_SUM, comm_, &sum.request),
                "MPI_Iallreduce"));
    FVP_CHECK_OK(see_through(sum, due));
    while (rank_ == 0 && post_->received < sum.value) {
      FVP_CHECK_OK(receive_from_others());
      if (post_->received >= sum.value) break;
      if (Time::now() > due) {
        return fail(peer_lost("a message to rank 0 did not arrive", vigil.patience));
      }
      std::this_thread::sleep_for(kFirstPause);
    }
    for (Letter& letter : post_->outgoing) FVP_CHECK_OK(see_through(letter, due));
    return see_through(post_->to_root, due);
  }

  // A null request is done.
  static Result<bool> is_done(Letter& letter, std::string_view call) {
    int done = 0;
    FVP_CHECK_OK(checked(MPI_Test(&letter.request, &done, MPI_STATUS_IGNORE), call));
    return done != 0;
  }

  static Status see_through(Letter& letter, Time::time_point due) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(due - Time::now());
    return finish(letter.request, kBrisk, "the end of a wait",
                  std::max(left, std::chrono::milliseconds(1)));
  }

  Status send_letter(Letter& letter, int value, int to, int tag) {
    letter.value = value;
    return checked(MPI_Isend(&letter.value, 1, MPI_INT, to, tag, comm_, &letter.request),
                   "MPI_Isend");
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
  // in the middle of is unknown, and a further call could wait for ever. `buffers`: all that the
  // call reads and writes.
  template <typename Start>
  Status run(std::string_view call, microseconds longest, std::shared_ptr<void> buffers,
             Start start) {
    if (broken_) return fail(*broken_);
    MPI_Request request = MPI_REQUEST_NULL;
    Status status = checked(start(&request), call);
    if (status) status = finish(request, longest, call, limit_);
    if (!status) {
      broken_ = status.error();
      keep_for_good(std::move(buffers));
    }
    return status;
  }

  Status broadcast_piece(std::shared_ptr<void> buffers, void* data, std::size_t count,
                         MPI_Datatype type, microseconds longest) {
    return run("MPI_Ibcast", longest, std::move(buffers), [&](MPI_Request* request) {
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
  std::vector<std::string> greetings_;
  std::vector<std::string> places_;  // node names by rank
  std::optional<Error> broken_;
  std::chrono::milliseconds limit_{};  // of waits; 0: none

  std::shared_ptr<Post> post_ = std::make_shared<Post>();
  AwakeTime time_;
  Time::time_point attended_{};
  Time::time_point beat_ = time_.now();   // this rank's last heartbeat
  Time::time_point heard_ = time_.now();  // the last one of another rank
  Time::time_point said_{};               // on whom it waits
};

}  // namespace

Result<std::unique_ptr<Collective>> make_mpi_collective(MPI_Comm comm, const MpiOptions& options) {
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
  const auto dup = std::make_shared<MPI_Comm>(MPI_COMM_NULL);
  MPI_Request request = MPI_REQUEST_NULL;
  FVP_CHECK_OK(checked(MPI_Comm_idup(comm, dup.get(), &request), "MPI_Comm_idup"));
  if (const Status made = finish(request, kPatient, "MPI_Comm_idup", options.limit); !made) {
    keep_for_good(dup);
    return fail(made.error());
  }

  auto ranks = std::make_unique<MpiCollective>(
      *dup, std::clamp<std::size_t>(options.broadcast_piece, 1, INT_MAX));
  const WaitLimit limit(*ranks, options.limit);
  FVP_CHECK_OK(ranks->open(options.greeting));
  return ranks;
}

}  // namespace fvprefetch::mpi
