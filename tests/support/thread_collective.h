// N ranks = N threads: the collective protocol without mpiexec, under any sanitizer.
//
//   run_ranks({"a", "a", "b"}, [](Collective& ranks) { EXPECT_TRUE(ranks.quiet_wait()); });
//
// Stricter than MPI, so that a broken protocol is an error and not a hang: ranks that meet in
// different collectives, and ranks that wait for one that has left, all get kInternal.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "cluster/collective.h"

namespace fvprefetch::testing {

/// Where the threads meet.
class ThreadRanks {
 public:
  explicit ThreadRanks(std::vector<std::string> nodes) : nodes_(std::move(nodes)) {}

  [[nodiscard]] const std::vector<std::string>& nodes() const { return nodes_; }

  /// Every rank's `value`, when all have called the same `verb`.
  Result<std::vector<std::string>> exchange(int rank, std::string verb, std::string value) {
    std::unique_lock lock(mutex_);
    if (left_ > 0)
      give_up("rank " + std::to_string(rank) + " calls " + verb + " after another rank has left");
    if (broken_.empty() && !verbs_.empty() && verbs_ != verb) {
      give_up("ranks meet in " + verbs_ + " and " + verb);
    }
    if (!broken_.empty()) return fail(ErrorCode::kInternal, broken_);

    verbs_ = std::move(verb);
    values_.resize(nodes_.size());
    values_[static_cast<std::size_t>(rank)] = std::move(value);
    const std::size_t round = round_;
    if (++arrived_ == nodes_.size()) {
      met_ = std::move(values_);
      values_.clear();
      verbs_.clear();
      arrived_ = 0;
      ++round_;
      all_here_.notify_all();
    }
    all_here_.wait(lock, [&] { return round_ != round || !broken_.empty(); });
    if (round_ == round) return fail(ErrorCode::kInternal, broken_);
    return met_;
  }

  [[nodiscard]] int leader(int rank) const {
    const auto& node = nodes_[static_cast<std::size_t>(rank)];
    return static_cast<int>(std::find(nodes_.begin(), nodes_.end(), node) - nodes_.begin());
  }

  /// The leaders' own meeting place, the same for all who ask until it is forgotten.
  std::shared_ptr<ThreadRanks> leaders() {
    const std::lock_guard lock(mutex_);
    if (!leaders_) {
      std::vector<std::string> names;
      for (std::size_t i = 0; i < nodes_.size(); ++i) {
        if (leader(static_cast<int>(i)) == static_cast<int>(i)) names.push_back(nodes_[i]);
      }
      leaders_ = std::make_shared<ThreadRanks>(std::move(names));
    }
    return leaders_;
  }
  void forget_leaders() {
    const std::lock_guard lock(mutex_);
    leaders_.reset();
  }

  Result<std::unique_ptr<Pending>> send(int from, int to, Mail kind,
                                        std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    messages_[{from, to, kind}].sent.emplace_back(bytes.begin(), bytes.end());
    return std::make_unique<Sent>();
  }
  Result<std::unique_ptr<Pending>> receive(int from, int to, Mail kind, std::span<std::byte> room) {
    const std::lock_guard lock(mutex_);
    const Route route{from, to, kind};
    return std::make_unique<Received>(*this, route, messages_[route].asked++, room);
  }

  /// The rank makes no further call.
  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    ++left_;
    gone_.insert(rank);
    if (arrived_ > 0)
      give_up("rank " + std::to_string(rank) + " left while others wait in " + verbs_);
  }

 private:
  using Route = std::tuple<int, int, Mail>;  // from one rank to another
  struct Messages {
    std::deque<std::vector<std::byte>> sent;
    std::size_t asked = 0;  // receives so far
    std::size_t taken = 0;
  };
  class Sent final : public Pending {  // it was copied
   public:
    Result<bool> done() override { return true; }
  };
  class Received final : public Pending {
   public:
    Received(ThreadRanks& all, Route route, std::size_t turn, std::span<std::byte> room)
        : all_(all), route_(route), turn_(turn), room_(room) {}
    Result<bool> done() override {
      const std::lock_guard lock(all_.mutex_);
      Messages& messages = all_.messages_[route_];
      if (messages.taken == turn_ && !messages.sent.empty()) {
        const std::vector<std::byte>& bytes = messages.sent.front();
        if (bytes.size() > room_.size()) {
          return fail(ErrorCode::kInternal, "a message is too long for its receiver");
        }
        std::copy(bytes.begin(), bytes.end(), room_.begin());
        messages.sent.pop_front();
        ++messages.taken;
        return true;
      }
      if (const int from = std::get<0>(route_); all_.gone_.contains(from)) {
        return fail(ErrorCode::kInternal, "rank " + std::to_string(from) + " has left");
      }
      return false;
    }

   private:
    ThreadRanks& all_;
    Route route_;
    std::size_t turn_;
    std::span<std::byte> room_;
  };

  void give_up(std::string why) {
    if (broken_.empty()) broken_ = std::move(why);
    all_here_.notify_all();
  }

  const std::vector<std::string> nodes_;
  std::mutex mutex_;  // for all that follows
  std::condition_variable all_here_;
  std::string verbs_;  // what the ranks of this round are calling
  std::vector<std::string> values_;
  std::vector<std::string> met_;  // of the last complete round; nobody enters a new one before
                                  // every rank has copied it
  std::size_t arrived_ = 0;
  std::size_t round_ = 0;
  std::size_t left_ = 0;
  std::set<int> gone_;
  std::map<Route, Messages> messages_;
  std::shared_ptr<ThreadRanks> leaders_;
  std::string broken_;
};

class ThreadCollective final : public Collective {
 public:
  ThreadCollective(ThreadRanks& all, int rank) : all_(all), rank_(rank) {}
  /// Of leaders(): leaves when it goes.
  ThreadCollective(std::shared_ptr<ThreadRanks> all, int rank)
      : shared_(std::move(all)), all_(*shared_), rank_(rank) {}
  ThreadCollective(const ThreadCollective&) = delete;
  ThreadCollective& operator=(const ThreadCollective&) = delete;
  ~ThreadCollective() override {
    if (shared_) shared_->leave(rank_);
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(all_.nodes().size()); }
  int leader() const override { return all_.leader(rank_); }
  int nodes() const override {
    return static_cast<int>(std::set(all_.nodes().begin(), all_.nodes().end()).size());
  }
  const std::string& node() const override { return all_.nodes()[static_cast<std::size_t>(rank_)]; }

  Status quiet_wait() override {
    auto met = all_.exchange(rank_, "quiet_wait", "");
    if (!met) return fail(std::move(met).error());
    return {};
  }
  Result<std::string> broadcast(std::string bytes) override {
    auto met = all_.exchange(rank_, "broadcast", std::move(bytes));
    if (!met) return fail(std::move(met).error());
    return met->front();
  }
  Result<int> max(int value) override {
    auto met = all_.exchange(rank_, "max", std::to_string(value));
    if (!met) return fail(std::move(met).error());
    int largest = value;
    for (const std::string& text : *met) largest = std::max(largest, std::stoi(text));
    return largest;
  }
  Result<std::vector<std::string>> all_gather(const std::string& text) override {
    return all_.exchange(rank_, "all_gather", text);
  }
  Result<std::unique_ptr<Collective>> leaders() override {
    auto met = all_.exchange(rank_, "leaders", "");
    if (!met) return fail(std::move(met).error());
    auto part = all_.leaders();
    // Everybody has it before the next call can ask for another one.
    met = all_.exchange(rank_, "leaders, met", "");
    if (!met) return fail(std::move(met).error());
    all_.forget_leaders();
    if (!node_leader()) return nullptr;
    const auto& names = part->nodes();
    const auto mine = std::find(names.begin(), names.end(), node()) - names.begin();
    return std::make_unique<ThreadCollective>(std::move(part), static_cast<int>(mine));
  }
  Result<std::unique_ptr<Pending>> send(int to, Mail kind,
                                        std::span<const std::byte> bytes) override {
    return all_.send(rank_, to, kind, bytes);
  }
  Result<std::unique_ptr<Pending>> receive(int from, Mail kind,
                                           std::span<std::byte> room) override {
    return all_.receive(from, rank_, kind, room);
  }

 private:
  std::shared_ptr<ThreadRanks> shared_;  // null: somebody else's
  ThreadRanks& all_;
  int rank_;
};

/// Runs `body` as rank 0, 1, ... on the nodes named, one thread each, and returns when all are
/// done. An exception of a body is thrown again here.
inline void run_ranks(std::vector<std::string> nodes,
                      const std::function<void(Collective&)>& body) {
  ThreadRanks all(std::move(nodes));
  std::vector<std::exception_ptr> thrown(all.nodes().size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < all.nodes().size(); ++i) {
    threads.emplace_back([&, i] {
      const int rank = static_cast<int>(i);
      ThreadCollective ranks(all, rank);
      try {
        body(ranks);
      } catch (...) {
        thrown[i] = std::current_exception();
      }
      all.leave(rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& exception : thrown) {
    if (exception) std::rethrow_exception(exception);
  }
}

/// Names for `ranks` ranks, two to a node.
inline std::vector<std::string> two_to_a_node(int ranks) {
  std::vector<std::string> nodes;
  for (int rank = 0; rank < ranks; ++rank) nodes.push_back("node" + std::to_string(rank / 2));
  return nodes;
}

}  // namespace fvprefetch::testing
