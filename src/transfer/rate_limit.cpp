#include "transfer/rate_limit.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <string>

#include "base/url.h"
#include "transfer/retry.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;

class ObedientTransport final : public Transport {
 public:
  ObedientTransport(Transport& inner, Clock& clock, Clock::TimePoint deadline, std::mt19937& random)
      : inner_(inner), clock_(clock), deadline_(deadline), random_(random) {}

  ~ObedientTransport() override {
    // The inner transport outlives us and must not call sinks of our callers.
    for (const auto& [inner_id, id] : running_) inner_.cancel(inner_id);
  }
  ObedientTransport(const ObedientTransport&) = delete;
  ObedientTransport& operator=(const ObedientTransport&) = delete;

  TransferId start(const Request& request, BodySink& sink) override {
    constexpr milliseconds::rep kLongestSpread = 1000;
    const TransferId id = next_++;
    const std::string origin = closed_.empty() ? std::string() : origin_of(request.url);
    if (opens(origin, milliseconds(0)) <= clock_.now()) {
      send(id, request, sink);
    } else {
      const milliseconds spread(
          std::uniform_int_distribution<milliseconds::rep>(0, kLongestSpread)(random_));
      const bool patient = opens(origin, spread) - clock_.now() <= request.patience;
      waiting_.push_back({id, request, &sink, origin, spread, patient});
    }
    return id;
  }

  std::vector<Completion> poll(Clock::TimePoint until, const std::stop_token& stop) override {
    for (;;) {
      send_due();
      if (auto refused = refuse_hopeless(); !refused.empty()) return refused;
      if (running_.empty() && waiting_.empty()) return {};
      Clock::TimePoint wake = until;
      for (const Waiting& waiting : waiting_) wake = std::min(wake, opens(waiting));
      std::vector<Completion> arrived;
      if (running_.empty()) {
        clock_.sleep_until(wake, stop);
      } else {
        arrived = take(inner_.poll(wake, stop));
      }
      if (!arrived.empty() || stop.stop_requested() || clock_.now() >= until) return arrived;
    }
  }

  void cancel(TransferId id) override {
    std::erase_if(waiting_, [id](const Waiting& waiting) { return waiting.id == id; });
    const auto found = std::find_if(running_.begin(), running_.end(),
                                    [id](const auto& entry) { return entry.second == id; });
    if (found == running_.end()) return;
    inner_.cancel(found->first);
    running_.erase(found);
  }

  [[nodiscard]] std::uint64_t requests() const override { return inner_.requests(); }

 private:
  struct Waiting {
    TransferId id;
    Request request;
    BodySink* sink;
    std::string origin;
    milliseconds spread;
    bool patient;  // false: it is answered at once
  };

  [[nodiscard]] Clock::TimePoint opens(const std::string& origin, milliseconds spread) const {
    const auto closed = closed_.find(origin);
    if (closed == closed_.end()) return Clock::TimePoint::min();
    return closed->second.until + spread;
  }
  [[nodiscard]] Clock::TimePoint opens(const Waiting& waiting) const {
    return opens(waiting.origin, waiting.spread);
  }

  void send(TransferId id, const Request& request, BodySink& sink) {
    running_.emplace(inner_.start(request, sink), id);
  }

  void send_due() {
    const Clock::TimePoint now = clock_.now();
    for (auto waiting = waiting_.begin(); waiting != waiting_.end();) {
      if (opens(*waiting) > now) {
        ++waiting;
        continue;
      }
      send(waiting->id, waiting->request, *waiting->sink);
      waiting = waiting_.erase(waiting);
    }
  }

  // Completes what cannot be sent before the deadline, or before its patience ends.
  std::vector<Completion> refuse_hopeless() {
    std::vector<Completion> refused;
    const auto hopeless = std::stable_partition(
        waiting_.begin(), waiting_.end(),
        [this](const Waiting& waiting) { return waiting.patient && opens(waiting) < deadline_; });
    const std::vector<Waiting> ended(std::make_move_iterator(hopeless),
                                     std::make_move_iterator(waiting_.end()));
    waiting_.erase(hopeless, waiting_.end());
    for (const Waiting& waiting : ended) {
      Completion completion;
      completion.id = waiting.id;
      completion.requests = 0;
      completion.head = closed_.at(waiting.origin).answer;
      completion.head.url = waiting.request.url;
      // Its words were about a time that has partly passed.
      std::erase_if(completion.head.headers, [](const auto& header) {
        return header.first == "ratelimit" || header.first == "retry-after";
      });
      const auto left =
          std::chrono::ceil<std::chrono::seconds>(closed_.at(waiting.origin).until - clock_.now());
      completion.head.headers.emplace_back("retry-after", std::to_string(left.count()));
      if (!waiting.sink->on_head(completion.head)) {
        completion.failure = TransportFailure::kRefusedBySink;
      }
      refused.push_back(std::move(completion));
    }
    return refused;
  }

  std::vector<Completion> take(std::vector<Completion> completions) {
    std::vector<Completion> arrived;
    for (Completion& completion : completions) {
      const auto found = running_.find(completion.id);
      if (found == running_.end()) continue;  // somebody else's on the same transport
      completion.id = found->second;
      running_.erase(found);
      close_if_asked(completion.head);
      arrived.push_back(std::move(completion));
    }
    return arrived;
  }

  void close_if_asked(const ResponseHead& head) {
    if (!retry::is_rate_limit(head) && head.status != 503) return;
    const auto wait = retry::wait_asked(head);
    if (!wait) return;
    Closed& closed = closed_[origin_of(head.url)];
    const Clock::TimePoint until = clock_.now() + *wait;
    if (until > closed.until) closed = {until, head};
  }

  struct Closed {
    Clock::TimePoint until = Clock::TimePoint::min();
    ResponseHead answer;
  };

  Transport& inner_;
  Clock& clock_;
  Clock::TimePoint deadline_;
  std::mt19937& random_;
  TransferId next_ = 1;
  std::vector<Waiting> waiting_;              // in the order of their start
  std::map<TransferId, TransferId> running_;  // inner id -> the id that the caller has
  std::map<std::string, Closed> closed_;      // by origin
};

}  // namespace

std::unique_ptr<Transport> obey_rate_limits(Transport& inner, Clock& clock,
                                            Clock::TimePoint deadline, std::mt19937& random) {
  return std::make_unique<ObedientTransport>(inner, clock, deadline, random);
}

}  // namespace fvprefetch
