// One listening address: requests in, replies out. The only file that knows cpp-httplib.
//
// What httplib 0.11 would do otherwise, and why it does not do for counting and for faults: it
// serves a connection from a fixed pool (a stalled client would hold a thread that others wait
// for), polls idle connections every 10 ms, closes them after five requests, listens with a backlog
// of 5, and decides about ranges and compression itself.
#pragma once

#include "delivery.h"
#include "message.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace fvprefetch::testhub {

/// A reply that is ready to go. `writer` is null when there is no body.
struct Outgoing {
  Reply reply;
  std::shared_ptr<BodyWriter> writer;
};

class HttpServer {
 public:
  /// GET, HEAD, POST and DELETE all come here, from many threads; `body` is that of a POST.
  using Handler = std::function<Outgoing(const Request&, const std::string& body)>;

  /// Listens when it returns; throws std::runtime_error when the address cannot be bound.
  HttpServer(const std::string& address, int port, Handler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;
  /// Closes all connections and waits for their threads.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fvprefetch::testhub
