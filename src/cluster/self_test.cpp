#include "cluster/self_test.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <sstream>
#include <utility>

#include "base/claim.h"
#include "base/posix.h"
#include "base/try.h"
#include "base/within.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;
using Outcome = Attempt::Outcome;

constexpr int kRaces = 3;
constexpr milliseconds kLocalWait{2'000};     // until a name on a local file system is not shared
constexpr milliseconds kHandOverWait{5'000};  // until a lock that was let go can be taken

// --- What travels: one short line of words each -------------------------------------------------

char letter(Outcome outcome) {
  switch (outcome) {
    case Outcome::kTaken:
      return 'T';
    case Outcome::kBusy:
      return 'B';
    case Outcome::kHung:
      return 'H';
    case Outcome::kRefused:
      break;
  }
  return 'R';
}

Outcome outcome_of(char letter) {
  return letter == 'T'   ? Outcome::kTaken
         : letter == 'B' ? Outcome::kBusy
         : letter == 'H' ? Outcome::kHung
                         : Outcome::kRefused;
}

using Attempts = std::array<Attempt, kPrimitives.size()>;

std::string to_words(const Attempts& attempts) {
  std::ostringstream out;
  for (const Attempt& attempt : attempts) {
    out << letter(attempt.outcome) << ' ' << attempt.error << ' ' << attempt.took.count() << ' ';
  }
  return out.str();
}

// nullopt: this rank did not try.
std::optional<Attempts> attempts_of(const std::string& words) {
  if (words.empty()) return std::nullopt;
  std::istringstream in(words);
  Attempts attempts;
  for (Attempt& attempt : attempts) {
    char outcome = 'R';
    long long took = 0;
    if (!(in >> outcome >> attempt.error >> took)) return std::nullopt;
    attempt.outcome = outcome_of(outcome);
    attempt.took = milliseconds(took);
  }
  return attempts;
}

// --- The parties --------------------------------------------------------------------------------

struct Party {
  int rank = 0;
  std::string name;
};

struct Parties {
  std::vector<Party> all;
  bool between_nodes = false;
};

// Collective.
Result<Parties> meet(Collective& ranks) {
  FVP_TRY(const std::vector<std::string> told,
          ranks.all_gather((ranks.node_leader() ? "L" : "-") + ranks.node()));
  Parties parties;
  for (std::size_t rank = 0; rank < told.size(); ++rank) {
    if (told[rank].starts_with('L')) {
      parties.all.push_back({static_cast<int>(rank), told[rank].substr(1)});
    }
  }
  parties.between_nodes = parties.all.size() > 1;
  if (!parties.between_nodes && told.size() > 1) {
    parties.all = {{0, told[0].substr(1) + " (process 1)"},
                   {1, told[1].substr(1) + " (process 2)"}};
  }
  return parties;
}

// --- One run ------------------------------------------------------------------------------------

class Run {
 public:
  Run(Collective& ranks, const SelfTestPlace& place, const SelfTestOptions& options)
      : ranks_(ranks),
        place_(place),
        options_(options),
        clock_(options.clock != nullptr ? *options.clock : real_clock()) {}

  // Collective.
  Result<SelfTest> run() {
    FVP_CHECK_OK(prepare());
    if (test_.not_run.empty()) FVP_CHECK_OK(find_parties());
    if (test_.not_run.empty()) {
      FVP_CHECK_OK(watch_a_new_name());
      open_probes();
      FVP_CHECK_OK(take_turns());
      FVP_CHECK_OK(race());
      probes_.clear();
    }
    // Nobody has a file open there any more: NFS would leave .nfs... names in the directory.
    FVP_CHECK_OK(ranks_.quiet_wait());
    FVP_CHECK_OK(clean_up());
    return std::move(test_);
  }

  // Not collective: what can be done when the communicator is broken.
  void abandon() noexcept {
    (void)guard([&]() -> Status {
      probes_.clear();
      return remove_directory();
    });
  }

 private:
  [[nodiscard]] bool first() const { return ranks_.rank() == 0; }
  [[nodiscard]] bool party() const { return index_.has_value(); }
  [[nodiscard]] std::string directory() const { return probe_directory(place_.base, tag_); }

  // Rank 0 makes the directory; all learn its name, or why there is none.
  Status prepare() {
    std::string wire;  // "+<tag> <base>", "-<why>", or of what cannot be written "!<code> <why>"
    if (first()) {
      wire = guard([&]() -> Result<std::string> {
               return make_directory();
             }).value_or("-out of memory");
    }
    FVP_TRY(const std::string told, ranks_.broadcast(std::move(wire)));
    const std::size_t blank = told.find(' ');
    if (!told.starts_with('+')) {
      const bool cannot = told.starts_with('!');
      test_.directory = place_.base;
      test_.not_run = told.substr(cannot ? blank + 1 : 1);
      int code = 0;
      (void)std::from_chars(told.data() + 1, told.data() + told.size(), code);
      if (cannot) cannot_write(static_cast<ErrorCode>(code), test_.not_run);
      return {};
    }
    tag_ = told.substr(1, blank - 1);
    test_.directory = told.substr(std::min(blank + 1, told.size()));
    return {};
  }

  Result<std::string> make_directory() {
    if (place_.base.empty()) return std::string("-there is no directory to test in");
    tag_ = posix::random_tag();
    const auto made = within(options_.patience, [base = place_.base, tag = tag_] {
      const bool had_base = posix::exists(base);
      const Status status = make_probe_directory(base, tag);
      return std::pair(status ? std::optional<Error>() : status.error(), !had_base);
    });
    if (!made) return "-`" + place_.base + "` does not answer";
    made_base_ = made->second;
    made_ = true;  // as far as it went: there may be something to remove
    if (made->first) {
      (void)remove_directory();
      const std::string why = describe(*made->first);
      if (!why.starts_with("cannot ")) return "-" + why;
      return "!" + std::to_string(static_cast<int>(made->first->code)) + " " + why;
    }
    return "+" + tag_ + " " + place_.base;
  }

  // What the rights promise is not always kept: /proc, some FUSE, a quota, a full disk.
  void cannot_write(ErrorCode code, const std::string& why) {
    const bool full = code == ErrorCode::kNoSpace;
    test_.could_not_write =
        fail(full ? code : ErrorCode::kPermission, why,
             full ? "free some space, inodes or quota, or name another directory"
                  : "name a directory that can be written")
            .value();
  }

  // Who sees the directory takes part.
  Status find_parties() {
    FVP_TRY(const Parties parties, meet(ranks_));
    std::string seen;
    for (const Party& candidate : parties.all) {
      if (candidate.rank == ranks_.rank()) {
        seen = guard([&]() -> Result<std::string> { return sees() ? "y" : "n"; }).value_or("n");
      }
    }
    FVP_TRY(const std::vector<std::string> told, ranks_.all_gather(seen));
    for (const Party& candidate : parties.all) {
      if (told[static_cast<std::size_t>(candidate.rank)] != "y") {
        test_.blind.push_back(candidate.name);
        continue;
      }
      if (candidate.rank == ranks_.rank()) index_ = parties_.size();
      parties_.push_back(candidate);
      test_.parties.push_back(candidate.name);
    }
    test_.between_nodes = parties.between_nodes;
    if (parties_.size() < 2) {
      test_.not_run = test_.blind.empty() ? "a lock needs two processes to be tested"
                                          : "no other node sees the directory";
    }
    return {};
  }

  // Until `done`, at most `limit`. A look hangs no longer than one call may.
  bool poll(milliseconds limit, const std::function<bool()>& done) {
    const Clock::TimePoint end = clock_.now() + limit;
    milliseconds pause{1};
    while (!done()) {
      if (clock_.now() >= end || options_.stop.stop_requested()) return false;
      clock_.sleep_until(std::min(clock_.now() + pause, end), options_.stop);
      pause = std::min(pause * 2, milliseconds{500});
    }
    return true;
  }

  bool sees() {
    if (place_.base.empty()) return false;
    return poll(
        place_.local ? std::min(kLocalWait, options_.visible_timeout) : options_.visible_timeout,
        [&] { return shows_afresh(directory()); });
  }

  bool shows_afresh(const std::string& path) {
    return within(options_.patience,
                  [path] {
                    posix::look_afresh(posix::parent(posix::parent(path)));
                    posix::look_afresh(posix::parent(path));
                    return posix::exists(path);
                  })
        .value_or(false);
  }

  bool shows_again(const std::string& path) {
    return within(options_.patience, [path] { return posix::exists(path); }).value_or(false);
  }

  // Two names in two directories: looking afresh at one makes the client ask about all of it.
  Status watch_a_new_name() {
    const std::string afresh = directory() + "/afresh";
    const std::string again = directory() + "/again";
    if (first()) {
      make_folder(afresh);
      make_folder(again);
    }
    FVP_CHECK_OK(gather("").status);
    if (party() && !first()) {
      // The client remembers now that there is no such name.
      (void)shows_again(afresh + "/name");
      (void)shows_again(again + "/name");
    }
    FVP_CHECK_OK(gather("").status);
    if (first()) {
      make_file(afresh + "/name");
      make_file(again + "/name");
    }
    FVP_CHECK_OK(gather("").status);

    std::string words;
    if (party() && !first()) {
      words = guard([&]() -> Result<std::string> {
                return watch(afresh + "/name", again + "/name");
              }).value_or("- -");
    }
    auto told = gather(words);
    FVP_CHECK_OK(std::move(told.status));
    test_.waited_for = options_.visible_timeout;
    test_.shows_afresh = slowest(told.words, 0);
    test_.shows_again = slowest(told.words, 1);
    return {};
  }

  std::string watch(const std::string& afresh, const std::string& again) {
    const Clock::TimePoint begin = clock_.now();
    std::array<std::string, 2> took{"-", "-"};
    const auto look = [&](std::string& into, bool shows) {
      if (into != "-" || !shows) return;
      into = std::to_string(std::chrono::duration_cast<milliseconds>(clock_.now() - begin).count());
    };
    (void)poll(options_.visible_timeout, [&] {
      if (took[0] == "-") look(took[0], shows_afresh(afresh));
      if (took[1] == "-") look(took[1], shows_again(again));
      return took[0] != "-" && took[1] != "-";
    });
    return took[0] + " " + took[1];
  }

  // nullopt: somebody did not see it.
  std::optional<milliseconds> slowest(const std::vector<std::string>& words, int field) const {
    milliseconds longest{0};
    for (const Party& party : parties_) {
      if (party.rank == 0) continue;
      std::istringstream in(words[static_cast<std::size_t>(party.rank)]);
      std::string word = "-";
      for (int i = 0; i <= field; ++i) in >> word;
      if (word == "-") return std::nullopt;
      longest = std::max(longest, milliseconds(std::stoll(word)));
    }
    return longest;
  }

  void make_folder(const std::string& path) {
    (void)within(options_.patience, [path] { return posix::make_directory(path); });
  }
  void make_file(const std::string& path) {
    (void)within(options_.patience, [path] { return posix::create_private(path).has_value(); });
  }

  // --- Locks ---

  void open_probes() {
    for (const Primitive primitive : kPrimitives) {
      test_.tried.push_back({primitive, Verdict::kExcludes, {}, {}});
      if (!party()) continue;
      const std::string who = std::to_string(ranks_.rank());
      probes_.push_back(options_.make_probe
                            ? options_.make_probe(primitive, directory(), who)
                            : make_lock_probe(primitive, directory(), who, options_.patience));
    }
  }

  Attempts try_all() {
    Attempts attempts;
    for (std::size_t i = 0; i < probes_.size(); ++i) attempts[i] = probes_[i]->take();
    return attempts;
  }

  // What its predecessor let go may take a moment to be free on a server.
  Attempts take_over() {
    Attempts attempts = try_all();
    (void)poll(kHandOverWait, [&] {
      bool all = true;
      for (std::size_t i = 0; i < probes_.size(); ++i) {
        if (attempts[i].outcome != Outcome::kBusy) continue;
        attempts[i] = probes_[i]->take();
        all = all && attempts[i].outcome != Outcome::kBusy;
      }
      return all;
    });
    return attempts;
  }

  void let_go() {
    for (const auto& probe : probes_) probe->let_go();
  }

  struct Gathered {
    Status status;
    std::vector<std::string> words;
  };
  // Collective.
  Gathered gather(const std::string& mine) {
    auto told = ranks_.all_gather(mine);
    if (!told) return {fail(std::move(told).error()), {}};
    return {{}, *std::move(told)};
  }

  template <typename F>
  std::string attempt(F&& work) {
    return guard([&]() -> Result<std::string> { return to_words(work()); }).value_or("");
  }

  Status take_turns() {
    for (std::size_t turn = 0; turn < 2; ++turn) {
      const auto held = gather(
          index_ == turn ? attempt([&] { return turn == 0 ? try_all() : take_over(); }) : "");
      FVP_CHECK_OK(held.status);
      const auto tried =
          gather(party() && index_ != turn ? attempt([&] { return try_all(); }) : "");
      FVP_CHECK_OK(tried.status);
      if (party()) let_go();
      FVP_CHECK_OK(gather("").status);
      judge_turn(turn, held.words, tried.words);
    }
    return {};
  }

  void judge_turn(std::size_t turn, const std::vector<std::string>& held_words,
                  const std::vector<std::string>& tried_words) {
    const Party& holder = parties_[turn];
    const auto held = attempts_of(held_words[static_cast<std::size_t>(holder.rank)]);
    for (std::size_t i = 0; i < kPrimitives.size(); ++i) {
      if (!held) {
        worsen(i, Verdict::kUnclear, holder.name + " could not try");
        continue;
      }
      note_failure(i, holder, (*held)[i]);
      if ((*held)[i].outcome == Outcome::kBusy) {
        worsen(i, Verdict::kUnclear,
               turn == 0 ? holder.name + " found it taken, by nobody"
                         : holder.name + " could not take it after it had been let go");
      }
      if ((*held)[i].outcome != Outcome::kTaken) continue;
      for (const Party& other : parties_) {
        if (other.rank == holder.rank) continue;
        const auto tried = attempts_of(tried_words[static_cast<std::size_t>(other.rank)]);
        if (!tried) {
          worsen(i, Verdict::kUnclear, other.name + " could not try");
          continue;
        }
        note_failure(i, other, (*tried)[i]);
        if ((*tried)[i].outcome == Outcome::kTaken) {
          worsen(i, Verdict::kDoesNotExclude,
                 other.name + " got it while " + holder.name + " held it");
        }
      }
    }
  }

  Status race() {
    for (int round = 0; round < kRaces; ++round) {
      const auto tried = gather(party() ? attempt([&] { return try_all(); }) : "");
      FVP_CHECK_OK(tried.status);
      if (party()) let_go();
      FVP_CHECK_OK(gather("").status);
      judge_race(tried.words);
    }
    return {};
  }

  void judge_race(const std::vector<std::string>& words) {
    for (std::size_t i = 0; i < kPrimitives.size(); ++i) {
      std::vector<std::string> winners;
      for (const Party& party : parties_) {
        const auto tried = attempts_of(words[static_cast<std::size_t>(party.rank)]);
        if (!tried) continue;
        note_failure(i, party, (*tried)[i]);
        if ((*tried)[i].outcome == Outcome::kTaken) winners.push_back(party.name);
      }
      // That nobody won says nothing: a try may be refused by another one that is under way.
      if (winners.size() > 1) {
        worsen(i, Verdict::kDoesNotExclude,
               winners[0] + " and " + winners[1] + " got it at the same time");
      }
    }
  }

  void note_failure(std::size_t primitive, const Party& who, const Attempt& attempt) {
    milliseconds& slowest = test_.tried[primitive].slowest_try;
    slowest = std::max(slowest, attempt.took);
    if (attempt.outcome == Outcome::kHung) {
      worsen(primitive, Verdict::kHangs,
             "a call on " + who.name + " did not return within " +
                 std::to_string(options_.patience.count()) + " ms");
    } else if (attempt.outcome == Outcome::kRefused) {
      if (attempt.error == ENOSPC || attempt.error == EDQUOT) {
        // Not the lock is what is missing: nothing can be fetched to there.
        cannot_write(ErrorCode::kNoSpace, "cannot write in `" + test_.directory + "` on " +
                                              who.name + ": " + std::strerror(attempt.error));
      }
      worsen(primitive, Verdict::kRefused,
             who.name + ": " + std::strerror(attempt.error) + " (errno " +
                 std::to_string(attempt.error) + ")");
    }
  }

  // Of several verdicts the one counts that says most against it; of equal ones the first.
  void worsen(std::size_t primitive, Verdict verdict, std::string detail) {
    constexpr std::array kByGravity{Verdict::kExcludes, Verdict::kUnclear, Verdict::kRefused,
                                    Verdict::kHangs, Verdict::kDoesNotExclude};
    const auto gravity = [&](Verdict of) {
      return std::find(kByGravity.begin(), kByGravity.end(), of) - kByGravity.begin();
    };
    TriedPrimitive& tried = test_.tried[primitive];
    if (gravity(verdict) <= gravity(tried.verdict)) return;
    tried.verdict = verdict;
    tried.detail = std::move(detail);
  }

  // --- The end ---

  Status clean_up() {
    std::string failed;
    if (first()) {
      const Status removed = guard([&]() -> Status { return remove_directory(); });
      if (!removed) failed = describe(removed.error());
    }
    FVP_TRY(const std::string told, ranks_.broadcast(std::move(failed)));
    if (!told.empty()) {
      Error error;
      error.code = ErrorCode::kPermission;
      error.message = told;
      error.hint = "remove it by hand: nothing of it is needed";
      test_.left_behind = std::move(error);
    }
    return {};
  }

  Status remove_directory() {
    if (!std::exchange(made_, false)) return {};
    const auto removed =
        within(options_.patience, [base = place_.base, tag = tag_, made_base = made_base_] {
          return remove_probe_directory(base, tag, made_base);
        });
    if (removed) return *removed;
    return fail(ErrorCode::kNotVisible, "removing `" + directory() + "` does not return");
  }

  Collective& ranks_;
  const SelfTestPlace& place_;
  const SelfTestOptions& options_;
  Clock& clock_;
  SelfTest test_;
  std::string tag_;
  bool made_ = false;       // rank 0: the directory is there
  bool made_base_ = false;  // rank 0: so is what it lies in, because of us
  std::vector<Party> parties_;
  std::optional<std::size_t> index_;  // of this rank among the parties
  std::vector<std::unique_ptr<LockProbe>> probes_;
};

bool excludes(const SelfTest& test, Primitive primitive) {
  const TriedPrimitive* const tried = test.find(primitive);
  return tried != nullptr && tried->verdict == Verdict::kExcludes;
}

}  // namespace

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kExcludes:
      return "excludes";
    case Verdict::kDoesNotExclude:
      return "does not exclude";
    case Verdict::kHangs:
      return "hangs";
    case Verdict::kRefused:
      return "refused";
    case Verdict::kUnclear:
      break;
  }
  return "unclear";
}

const TriedPrimitive* SelfTest::find(Primitive primitive) const {
  const auto it = std::find_if(tried.begin(), tried.end(), [&](const TriedPrimitive& each) {
    return each.primitive == primitive;
  });
  return it == tried.end() ? nullptr : &*it;
}

bool any_lock_excludes(const SelfTest& test) {
  return excludes(test, Primitive::kFlock) || excludes(test, Primitive::kLink) ||
         excludes(test, Primitive::kMkdir);
}

std::string relied_on(const SelfTest& test) {
  if (test.tried.empty()) return {};
  const bool link = excludes(test, Primitive::kLink);
  // A lease is a directory only where the file system says no to links.
  const TriedPrimitive* const tried_link = test.find(Primitive::kLink);
  const bool mkdir = !link && tried_link != nullptr && tried_link->verdict == Verdict::kRefused &&
                     excludes(test, Primitive::kMkdir);
  const std::string lease = link ? "a lease made by link" : mkdir ? "a lease made by mkdir" : "";
  if (excludes(test, Primitive::kFlock)) {
    return lease.empty() ? "flock" : "flock, and " + lease + " inside it";
  }
  if (lease.empty()) return "nothing: two may fetch the same file, and either is right";
  return lease + " alone";
}

Result<SelfTest> self_test(Collective& ranks, const SelfTestPlace& place,
                           const SelfTestOptions& options) {
  Run run(ranks, place, options);
  auto result = guard([&] { return run.run(); });
  if (!result) run.abandon();
  return result;
}

}  // namespace fvprefetch
