// A Transport without a socket: every answer is written down beforehand, arrives in exactly that
// order, and takes exactly as long (on a FakeClock) as the script says.
//
//   ScriptedTransport transport(clock);
//   transport.on("http://host/a", Answer(200).header("content-length", "6").body("abc").cut());
//   transport.on("http://host/a", Answer::whole("abcdef"));
//
// Answers of an address are used up one by one. A request that has no answer fails the test. It
// keeps to the contract of transport.h (tests/contract holds it to it, beside libcurl).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "support/fake_clock.h"
#include "transfer/transport.h"

namespace fvprefetch::testing {

/// What comes back for one request.
struct Answer {
  /// One thing that happens, `after` the one before it.
  struct Step {
    std::chrono::nanoseconds after{0};
    std::string body;
    std::function<void()> call;
  };

  int status = 0;  ///< 0: the answer has no head
  std::vector<std::pair<std::string, std::string>> headers;
  std::vector<Step> steps;
  TransportFailure failure = TransportFailure::kNone;  ///< how it ends
  std::vector<std::string> cookies;                    ///< that its completion tells

  explicit Answer(int answer_status) : status(answer_status) {}

  /// 200 with its length told.
  static Answer whole(const std::string& text) {
    return Answer(200).header("content-length", std::to_string(text.size())).body(text);
  }
  /// No answer.
  static Answer none(TransportFailure why) {
    Answer answer(0);
    answer.failure = why;
    return answer;
  }
  Answer& header(std::string name, std::string value) {
    headers.emplace_back(std::move(name), std::move(value));
    return *this;
  }
  /// One piece of the body; each goes to the sink by itself.
  Answer& body(std::string piece) {
    steps.push_back({std::chrono::nanoseconds(0), std::move(piece), {}});
    return *this;
  }
  Answer& pause(std::chrono::nanoseconds time) {
    steps.push_back({time, {}, {}});
    return *this;
  }
  /// Something that the test does at this point.
  Answer& then(std::function<void()> call) {
    steps.push_back({std::chrono::nanoseconds(0), {}, std::move(call)});
    return *this;
  }
  Answer& cookie(std::string text) {
    cookies.push_back(std::move(text));
    return *this;
  }
  Answer& cut() {
    failure = TransportFailure::kCut;
    return *this;
  }
  /// Nothing more comes, and the connection stays.
  Answer& stall() {
    failure = TransportFailure::kStalled;
    return *this;
  }
};

class ScriptedTransport : public Transport {
 public:
  /// What a server would have seen.
  struct Sent {
    Request request;
    bool with_token = false;

    /// "" when the request has no such header.
    [[nodiscard]] std::string header(const std::string& name) const {
      for (const auto& [key, value] : request.headers) {
        if (key == name) return value;
      }
      return {};
    }
  };

  explicit ScriptedTransport(FakeClock& clock) : clock_(clock) {}

  /// Makes the answers of an address whose script is used up: a server with a mind of its own.
  void serve(const std::string& url, std::function<Answer(const Sent&)> make) {
    servers_[url] = std::move(make);
  }
  void on(const std::string& url, Answer answer) { script_[url].push_back(std::move(answer)); }

  [[nodiscard]] const std::vector<Sent>& sent() const { return sent_; }
  [[nodiscard]] std::vector<std::string> urls() const {
    std::vector<std::string> urls;
    for (const Sent& sent : sent_) urls.push_back(sent.request.url);
    return urls;
  }
  /// Transfers that are neither completed nor cancelled.
  [[nodiscard]] std::size_t running() const { return transfers_.size(); }

  TransferId start(const Request& request, BodySink& sink) override {
    const TransferId id = next_++;
    Transfer transfer{request, &sink, Answer::none(TransportFailure::kUrl), {}, 0, 0, false, 0,
                      {},      0};
    transfer.due = clock_.now();
    if (parse_url(request.url)) {
      sent_.push_back({request, may_see(request.credential, request.url)});
      auto& answers = script_[request.url];
      if (const auto server = servers_.find(request.url);
          answers.empty() && server != servers_.end()) {
        transfer.answer = server->second(sent_.back());
      } else if (answers.empty()) {
        ADD_FAILURE() << "no answer in the script: " << request.url;
        transfer.answer.failure = TransportFailure::kConnect;
      } else {
        transfer.answer = std::move(answers.front());
        answers.pop_front();
      }
      transfer.due += delay_of_next(transfer);
    }
    transfers_.emplace(id, std::move(transfer));
    return id;
  }

  std::vector<Completion> poll(Clock::TimePoint until, const std::stop_token& stop) override {
    std::vector<Completion> completions;
    while (!transfers_.empty() && completions.empty() && !stop.stop_requested()) {
      const auto next =
          std::min_element(transfers_.begin(), transfers_.end(), [](const auto& a, const auto& b) {
            return std::pair(a.second.due, a.second.turn) < std::pair(b.second.due, b.second.turn);
          });
      if (next->second.due > clock_.now()) {
        clock_.sleep_until(std::min(next->second.due, until), stop);
        if (next->second.due > clock_.now()) break;
      }
      const TransferId id = next->first;
      if (auto completion = step(id, next->second)) {
        transfers_.erase(id);
        completions.push_back(std::move(*completion));
      }
    }
    // What came meanwhile: as with sockets, of several that are ready each is read.
    if (!completions.empty()) read_heads(completions);
    return completions;
  }

  void cancel(TransferId id) override { transfers_.erase(id); }

  [[nodiscard]] std::uint64_t requests() const override { return sent_.size(); }

 private:
  struct Transfer {
    Request request;
    BodySink* sink;
    Answer answer;
    Clock::TimePoint due;
    std::uint64_t turn;  // transfers that are due together take turns
    std::size_t position;
    bool head_delivered;
    std::uint64_t body_bytes;
    Clock::TimePoint slow_since{};
    std::uint64_t slow_bytes = 0;
  };

  void read_heads(std::vector<Completion>& completions) {
    for (auto next = transfers_.begin(); next != transfers_.end();) {
      const auto& [id, transfer] = *next;
      const bool ready = transfer.due <= clock_.now() && !transfer.head_delivered;
      auto completion = ready ? step(id, next->second) : std::nullopt;
      if (completion) completions.push_back(std::move(*completion));
      next = completion ? transfers_.erase(next) : std::next(next);
    }
  }

  // The next thing that happens in a transfer; its completion when it was the last.
  std::optional<Completion> step(TransferId id, Transfer& transfer) {
    transfer.turn = ++turns_;
    if (is_slow(transfer)) {
      transfer.answer.failure = TransportFailure::kStalled;
      transfer.answer.steps.clear();
    }
    ResponseHead head;
    head.status = transfer.answer.status;
    head.url = transfer.request.url;
    head.headers = transfer.answer.headers;
    const auto complete = [&](TransportFailure failure) {
      Completion completion;
      completion.id = id;
      completion.failure = failure;
      if (failure != TransportFailure::kNone) completion.detail = "as the script says";
      completion.head = head;
      completion.requests = failure == TransportFailure::kUrl ? 0 : 1;
      completion.cookies = transfer.answer.cookies;
      return completion;
    };

    if (head.status != 0 && !std::exchange(transfer.head_delivered, true)) {
      if (!transfer.sink->on_head(head)) return complete(TransportFailure::kRefusedBySink);
      return std::nullopt;
    }
    if (transfer.position < transfer.answer.steps.size()) {
      // Copied, since what the test does may cancel the transfer.
      const Answer::Step now = transfer.answer.steps[transfer.position++];
      transfer.due += delay_of_next(transfer);
      const bool has_body = transfer.request.method == Request::Method::kGet &&
                            head.status != 304 && head.status != 204;
      if (has_body && !now.body.empty()) {
        transfer.body_bytes += now.body.size();
        const auto bytes = std::as_bytes(std::span(now.body.data(), now.body.size()));
        if (!transfer.sink->on_body({bytes, nullptr}))
          return complete(TransportFailure::kRefusedBySink);
      }
      if (now.call) now.call();
      return std::nullopt;
    }
    // As any HTTP client: a body that ends before its length does was cut.
    const auto length = head.content_length();
    if (transfer.answer.failure == TransportFailure::kNone && transfer.body_bytes > 0 && length &&
        transfer.body_bytes < *length) {
      return complete(TransportFailure::kCut);
    }
    return complete(transfer.answer.failure);
  }

  // As transport.h says: looked at once in each stall_timeout, from the head of the answer on.
  [[nodiscard]] bool is_slow(Transfer& transfer) const {
    if (!transfer.head_delivered) {
      transfer.slow_since = clock_.now();
      return false;
    }
    const auto passed = clock_.now() - transfer.slow_since;
    if (passed < transfer.request.stall_timeout) return false;
    const double seconds = std::chrono::duration<double>(passed).count();
    const auto bytes = static_cast<double>(transfer.body_bytes - transfer.slow_bytes);
    transfer.slow_since = clock_.now();
    transfer.slow_bytes = transfer.body_bytes;
    const bool more = transfer.position < transfer.answer.steps.size();
    return more && bytes < static_cast<double>(kSlowest) * seconds;
  }

  // From now to the next step, or to the end.
  [[nodiscard]] static std::chrono::nanoseconds delay_of_next(const Transfer& transfer) {
    if (transfer.position < transfer.answer.steps.size()) {
      return transfer.answer.steps[transfer.position].after;
    }
    return transfer.answer.failure == TransportFailure::kStalled
               ? std::chrono::nanoseconds(transfer.request.stall_timeout)
               : std::chrono::nanoseconds(0);
  }

  FakeClock& clock_;
  std::map<std::string, std::deque<Answer>> script_;
  std::map<std::string, std::function<Answer(const Sent&)>> servers_;
  std::vector<Sent> sent_;
  std::map<TransferId, Transfer> transfers_;
  TransferId next_ = 1;
  std::uint64_t turns_ = 0;
};

}  // namespace fvprefetch::testing
