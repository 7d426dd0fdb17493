#include "transfer/redirect.h"

#include <map>
#include <string>

#include "base/url.h"

namespace fvprefetch {
namespace {

constexpr int kMaxRedirects = 10;

// A redirect's body is a sentence for people. One that is longer ends the connection, since nobody
// reads it; the redirect is followed all the same.
constexpr std::size_t kMaxDiscarded = 64U << 10U;

bool is_redirect(const ResponseHead& head) {
  switch (head.status) {
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
      return !head.header("location").empty();
    default:
      return false;
  }
}

// One request of the caller's, over all its hops.
class Journey final : public BodySink {
 public:
  Journey(Request request, BodySink& sink) : request_(std::move(request)), sink_(sink) {}

  bool on_head(const ResponseHead& head) override {
    redirected_ = is_redirect(head);
    discarded_ = 0;
    if (redirected_ || request_.cookies.empty()) return redirected_ || sink_.on_head(head);
    ResponseHead with_cookies = head;
    with_cookies.by_cookies = true;
    return sink_.on_head(with_cookies);
  }

  bool on_body(const BodyPiece& piece) override {
    if (!redirected_) return sink_.on_body(piece);
    discarded_ += piece.data.size();
    return discarded_ <= kMaxDiscarded;
  }

  [[nodiscard]] const Request& request() const { return request_; }
  [[nodiscard]] bool redirected() const { return redirected_; }
  [[nodiscard]] std::uint64_t hops() const { return static_cast<std::uint64_t>(redirects_) + 1; }

  // Sets out for where a redirect points to; the error is for people.
  Status turn(Completion& completion) {
    const ResponseHead& head = completion.head;
    if (++redirects_ > kMaxRedirects) {
      --redirects_;
      std::string what = "more than " + std::to_string(kMaxRedirects) + " redirects";
      if (!head.header("set-cookie").empty()) {
        what += "; each sets a cookie: the server wants a login, or there is a direct address";
      }
      return fail(ErrorCode::kNetwork, std::move(what));
    }
    request_.cookies = std::move(completion.cookies);
    auto target = redirect_target(request_.url, head.header("location"));
    if (!target) return fail(std::move(target).error());
    request_.url = std::move(*target);
    redirected_ = false;
    return {};
  }

 private:
  // The credential stays in the request: each hop is asked anew whether it may see it (may_see).
  Request request_;
  BodySink& sink_;
  bool redirected_ = false;
  std::size_t discarded_ = 0;
  int redirects_ = 0;
};

class FollowingTransport final : public Transport {
 public:
  explicit FollowingTransport(Transport& inner) : inner_(inner) {}

  ~FollowingTransport() override {
    // The inner transport outlives us and must not call sinks of ours.
    for (const auto& [inner_id, travel] : travels_) inner_.cancel(inner_id);
  }
  FollowingTransport(const FollowingTransport&) = delete;
  FollowingTransport& operator=(const FollowingTransport&) = delete;

  TransferId start(const Request& request, BodySink& sink) override {
    auto journey = std::make_unique<Journey>(request, sink);
    const TransferId id = next_++;
    set_out(id, std::move(journey));
    return id;
  }

  std::vector<Completion> poll(Clock::TimePoint until, const std::stop_token& stop) override {
    for (;;) {
      std::vector<Completion> arrived;
      bool turned = false;
      for (Completion& completion : inner_.poll(until, stop)) {
        const auto found = travels_.find(completion.id);
        if (found == travels_.end()) continue;  // somebody else's on the same transport
        auto [id, journey] = std::move(found->second);
        travels_.erase(found);
        if (journey->redirected()) {
          const Status status = journey->turn(completion);
          if (status) {
            set_out(id, std::move(journey));
            turned = true;
            continue;
          }
          completion.failure = TransportFailure::kProtocol;
          completion.detail = status.error().message;
        }
        completion.id = id;
        completion.requests = journey->hops();
        arrived.push_back(std::move(completion));
      }
      // A hop is no event for the caller; go on within the time that it gave.
      if (!arrived.empty() || !turned || stop.stop_requested()) return arrived;
    }
  }

  void cancel(TransferId id) override {
    for (auto travel = travels_.begin(); travel != travels_.end(); ++travel) {
      if (travel->second.first != id) continue;
      inner_.cancel(travel->first);
      travels_.erase(travel);
      return;
    }
  }

  [[nodiscard]] std::uint64_t requests() const override { return inner_.requests(); }

 private:
  void set_out(TransferId id, std::unique_ptr<Journey> journey) {
    Journey& traveller = *journey;
    const TransferId inner_id = inner_.start(traveller.request(), traveller);
    travels_.emplace(inner_id, std::pair{id, std::move(journey)});
  }

  Transport& inner_;
  TransferId next_ = 1;
  // By the inner transport's id of the hop that is under way: the id that the caller knows.
  std::map<TransferId, std::pair<TransferId, std::unique_ptr<Journey>>> travels_;
};

}  // namespace

std::unique_ptr<Transport> follow_redirects(Transport& inner) {
  return std::make_unique<FollowingTransport>(inner);
}

}  // namespace fvprefetch
