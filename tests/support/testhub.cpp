#include "testhub.h"

#include "delivery.h"
#include "faults.h"
#include "file_reply.h"
#include "http_server.h"
#include "hub_routes.h"
#include "repo_store.h"
#include "stats.h"
#include "url.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <stdexcept>

namespace fvprefetch::testhub {

namespace {

bool is_any_address(const std::string& address) {
  return address == "0.0.0.0" || address == "::";
}

// Shown to people and written to the port file; an unspecified address is no destination.
std::string address_for_clients(const std::string& address) {
  return is_any_address(address) ? "127.0.0.1" : address;
}

std::string http_url(const std::string& host, int port) {
  return "http://" + host + ":" + std::to_string(port);
}

Reply not_found() {
  Reply reply;
  reply.status = 404;
  reply.body = Body::of_text("Not Found");
  return reply;
}

}  // namespace

struct TestHub::Impl {
  explicit Impl(HubOptions from)
      : options(std::move(from)),
        store(options.root),
        shared_limit(options.bytes_per_second),
        hub_routes(store, options.page_size, [this](const Request& r) { return cdn_base(r); }),
        cdn_routes(store, stats) {}

  // With an unspecified address the client's own way to us is the only one known to work.
  std::string cdn_base(const Request& request) const {
    std::string host = cdn_address;
    if (is_any_address(host)) host = request.host.substr(0, request.host.rfind(':'));
    return http_url(host, cdn->port());
  }

  Reply plain(const Request& request, Ranges ranges) const {
    const std::string path = join(request.segments, 0, '/');
    if (!is_safe_relative(path)) return not_found();
    const std::filesystem::path disk = options.root / path;
    auto file = OpenFile::open(disk);
    if (!file) return not_found();
    char etag[64];
    std::snprintf(etag, sizeof etag, "\"%llx-%llx\"",
                  static_cast<unsigned long long>(file->modified_ns()),
                  static_cast<unsigned long long>(file->size()));
    Reply reply = file_reply(request, std::move(file), etag, ranges);
    if (reply.is_file_body) reply.content_type = content_type_of(path);
    reply.real_file = disk;
    return reply;
  }

  Reply route(const Request& request, Ranges ranges) {
    const std::string& first = request.segments.front();
    if (first == "files" || first == "plain") return plain(request, ranges);
    Reply reply = hub_routes.handle(request, ranges);
    reply.add("X-Request-Id", "Root=testhub-" + std::to_string(++request_number));
    reply.add("RateLimit", "\"resolvers\";r=4999;t=300");
    reply.add("RateLimit-Policy", "\"fixed window\";\"resolvers\";q=5000;w=300");
    return reply;
  }

  template <class Route>
  Outgoing answer(const Request& request, Route route) {
    const bool api = request.segments.front() == "api" && request.segments.size() > 1 &&
                     request.segments[1] != "resolve-cache";
    auto ticket =
        stats.begin(request.path, request.method, api ? Stats::Kind::kApi : Stats::Kind::kOther);
    const auto early = faults.take_early(request);
    Ranges ranges = Ranges::kHonoured;
    for (const Fault& fault : early) {
      if (fault.kind == FaultKind::kNoRanges) ranges = Ranges::kIgnored;
      if (fault.kind == FaultKind::kDelay) {
        const std::chrono::duration<double> delay(fault.seconds);
        stop.wait_until(StopSignal::Clock::now() +
                        std::chrono::duration_cast<StopSignal::Clock::duration>(delay));
      }
    }
    Outgoing outgoing{route(request, ranges), nullptr};
    Reply& reply = outgoing.reply;
    replace_reply(early, request, reply);
    const Delivery delivery = deliver_with(faults.take_late(request, reply), reply);
    log(request, reply);

    const bool counted = reply.is_file_body;
    auto writer = std::make_shared<BodyWriter>(std::move(reply.body), delivery, ticket, counted,
                                               counted ? &shared_limit : nullptr, stop);
    if (request.method == "HEAD" || writer->length() == 0) ticket->finish();
    if (writer->length() > 0) outgoing.writer = std::move(writer);
    return outgoing;
  }

  Outgoing control(const Request& request, const std::string& body) {
    Reply reply;
    reply.content_type = "application/json";
    const auto is = [&](const char* method, const char* path) {
      return request.method == method && request.path == path;
    };
    if (is("GET", "/_testhub/stats")) {
      reply.body = Body::of_text(stats.to_json());
    } else if (is("POST", "/_testhub/reset")) {
      stats.reset();
      reply.body = Body::of_text("{}\n");
    } else if (is("GET", "/_testhub/faults")) {
      reply.body = Body::of_text(faults.to_json());
    } else if (is("POST", "/_testhub/faults")) {
      try {
        faults.set(body);
        reply.body = Body::of_text(faults.to_json());
      } catch (const std::invalid_argument& error) {
        reply.status = 400;
        reply.content_type = "text/plain; charset=utf-8";
        reply.body = Body::of_text(std::string(error.what()) + "\n");
      }
    } else if (is("DELETE", "/_testhub/faults")) {
      faults.clear();
      reply.body = Body::of_text("[]\n");
    } else {
      reply = not_found();
    }
    Outgoing outgoing;
    auto ticket = std::shared_ptr<Stats::Ticket>();
    outgoing.writer = std::make_shared<BodyWriter>(std::move(reply.body), Delivery{}, ticket, false,
                                                   nullptr, stop);
    outgoing.reply = std::move(reply);
    return outgoing;
  }

  void log(const Request& request, const Reply& reply) {
    if (!options.log_requests) return;
    const std::lock_guard lock(log_mutex);
    std::fprintf(stderr, "testhub: %s %s %s-> %d\n", request.method.c_str(), request.target.c_str(),
                 request.range.empty() ? "" : (request.range + " ").c_str(), reply.status);
  }

  const HubOptions options;
  RepoStore store;
  Stats stats;
  Faults faults;
  StopSignal stop;
  RateLimit shared_limit;
  HubRoutes hub_routes;
  CdnRoutes cdn_routes;
  std::atomic<std::uint64_t> request_number{0};
  std::mutex log_mutex;
  std::string cdn_address;
  // Last, so that no connection outlives what it uses.
  std::unique_ptr<HttpServer> cdn;
  std::unique_ptr<HttpServer> hub;
};

TestHub::TestHub(HubOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {
  Impl& impl = *impl_;
  impl.cdn_address = impl.options.cdn_bind.empty() ? impl.options.bind : impl.options.cdn_bind;
  impl.cdn = std::make_unique<HttpServer>(
      impl.cdn_address, 0, [&impl](const Request& request, const std::string&) {
        return impl.answer(request, [&impl](const Request& r, Ranges ranges) {
          return impl.cdn_routes.handle(r, ranges);
        });
      });
  impl.hub = std::make_unique<HttpServer>(
      impl.options.bind, impl.options.port,
      [&impl](const Request& request, const std::string& body) {
        if (request.segments.front() == "_testhub") return impl.control(request, body);
        return impl.answer(
            request, [&impl](const Request& r, Ranges ranges) { return impl.route(r, ranges); });
      });
}

TestHub::~TestHub() {
  impl_->stop.raise();
}

std::string TestHub::url() const {
  return http_url(address_for_clients(impl_->options.bind), impl_->hub->port());
}

std::string TestHub::cdn_url() const {
  return http_url(address_for_clients(impl_->cdn_address), impl_->cdn->port());
}

std::string TestHub::stats() const {
  return impl_->stats.to_json();
}

void TestHub::reset_stats() {
  impl_->stats.reset();
}

void TestHub::set_faults(const std::string& json) {
  impl_->faults.set(json);
}

void TestHub::clear_faults() {
  impl_->faults.clear();
}

}  // namespace fvprefetch::testhub
