#include "transfer/fetcher.h"

#include <algorithm>
#include <csignal>

#include "base/url.h"
#include "transfer/retry.h"

namespace fvprefetch {
namespace {

constexpr std::size_t kMaxBody = 64U << 20U;

// Keeps the body of one attempt.
class Keeper final : public BodySink {
 public:
  explicit Keeper(bool head_only) : head_only_(head_only) {}

  bool on_head(const ResponseHead& head) override {
    enough_ = head_only_ && head.status / 100 == 2;
    return !enough_ && head.content_length().value_or(0) <= kMaxBody;
  }
  bool on_body(const BodyPiece& piece) override {
    const std::span<const std::byte> data = piece.data;
    if (data.size() > kMaxBody - body_.size()) return false;
    body_.append(reinterpret_cast<const char*>(data.data()), data.size());
    return true;
  }
  /// It ended the transfer since it had what was asked for.
  [[nodiscard]] bool enough() const { return enough_; }
  [[nodiscard]] std::string take() { return std::move(body_); }

 private:
  bool head_only_;
  bool enough_ = false;
  std::string body_;
};

// Ends a transfer when its sink goes away, also by an exception.
class Running {
 public:
  Running(Transport& transport, TransferId id) : transport_(transport), id_(id) {}
  ~Running() { transport_.cancel(id_); }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  [[nodiscard]] TransferId id() const { return id_; }

 private:
  Transport& transport_;
  TransferId id_;
};

class PatientFetcher final : public Fetcher {
 public:
  PatientFetcher(Transport& transport, Clock& clock, EngineOptions options, std::mt19937& random,
                 std::stop_token stop, std::function<int()> stop_signal, OnWait on_wait,
                 OnSlow on_slow)
      : transport_(transport),
        clock_(clock),
        options_(options),
        random_(random),
        stop_(std::move(stop)),
        stop_signal_(std::move(stop_signal)),
        on_wait_(std::move(on_wait)),
        on_slow_(std::move(on_slow)) {}

  Result<Response> fetch(const Request& request) override {
    for (int retry = 1;; ++retry) {
      Keeper keeper(request.head_only);
      auto ended = attempt(request, keeper, retry == 1);
      if (!ended) return tl::unexpected(std::move(ended).error());
      Completion& completion = *ended;
      if (keeper.enough()) return Response{std::move(completion.head), {}};
      if (completion.failure == TransportFailure::kRefusedBySink) {
        Error error = retry::to_error(completion);
        error.message = error.subject + " answered with more than " +
                        std::to_string(kMaxBody >> 20U) +
                        " MiB where a small document was asked for";
        return tl::unexpected(std::move(error));
      }
      const auto wait = retry::wait_asked(completion.head);
      const bool rate_limited = retry::is_rate_limit(completion.head);
      const bool again = retry::classify({completion.failure, completion.head.status,
                                          rate_limited}) == retry::Verdict::kAgain;
      if (again && retry <= options_.retries) {
        const auto delay = retry::delay(retry, wait, random_);
        const Clock::TimePoint now = clock_.now();
        if (delay < options_.deadline - now) {
          if (on_wait_) on_wait_(retry::to_error(completion).message, delay);
          clock_.sleep_until(now + delay, stop_);
          continue;
        }
      }
      const bool answered = completion.failure == TransportFailure::kNone;
      if (!answered || rate_limited) {
        return tl::unexpected(retry::to_error(completion));
      }
      return Response{std::move(completion.head), keeper.take()};
    }
  }

 private:
  // One attempt to its end, or the reason to leave it.
  Result<Completion> attempt(const Request& request, Keeper& keeper, bool first) {
    // Asked before anything is sent: a stop during the wait ends here.
    if (stop_.stop_requested()) return tl::unexpected(stopped());
    Request asked = request;
    asked.stall_timeout = options_.stall_timeout;
    asked.small = first;  // should HTTP/2 be what failed, it is not tried again
    const Running running(transport_, transport_.start(asked, keeper));
    const Clock::TimePoint begin = clock_.now();
    Clock::TimePoint say = on_slow_ ? begin + std::chrono::seconds(2) : Clock::TimePoint::max();
    for (;;) {
      for (Completion& completion : transport_.poll(std::min(options_.deadline, say), stop_)) {
        if (completion.id == running.id()) return std::move(completion);
      }
      if (stop_.stop_requested()) return tl::unexpected(stopped());
      if (clock_.now() >= options_.deadline) {
        return fail(ErrorCode::kNetwork,
                    redact(request.url) + " had not answered when the deadline came",
                    "raise --deadline");
      }
      if (const Clock::TimePoint now = clock_.now(); now >= say) {
        say = now + std::chrono::seconds(30);
        on_slow_(redact(request.url),
                 std::chrono::duration_cast<std::chrono::milliseconds>(now - begin));
      }
    }
  }

  [[nodiscard]] Error stopped() const {
    return interrupted(stop_signal_ ? stop_signal_() : SIGTERM);
  }

  Transport& transport_;
  Clock& clock_;
  EngineOptions options_;
  std::mt19937& random_;
  std::stop_token stop_;
  std::function<int()> stop_signal_;
  OnWait on_wait_;
  OnSlow on_slow_;
};

}  // namespace

std::unique_ptr<Fetcher> make_fetcher(Transport& transport, Clock& clock, EngineOptions options,
                                      std::mt19937& random, std::stop_token stop,
                                      std::function<int()> stop_signal, OnWait on_wait,
                                      OnSlow on_slow) {
  return std::make_unique<PatientFetcher>(transport, clock, options, random, std::move(stop),
                                          std::move(stop_signal), std::move(on_wait),
                                          std::move(on_slow));
}

}  // namespace fvprefetch
