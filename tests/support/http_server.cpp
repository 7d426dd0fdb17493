#include "http_server.h"

#include "url.h"

#include <httplib.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

namespace fvprefetch::testhub {

namespace {

constexpr int kIdleTimeoutMs = 60'000;
constexpr int kReadTimeoutMs = 30'000;
constexpr int kWriteTimeoutMs = 600'000;  // a paused client is not a dead one

// Told by what writes a body, which httplib does not let know its socket. A connection has a thread
// of its own.
thread_local bool reset_this_connection = false;

// The socket as httplib wants to see it; lives as long as the connection, so that bytes read ahead
// are not lost between two requests.
class Connection : public httplib::Stream {
 public:
  explicit Connection(int socket) : socket_(socket) {}

  bool wait_for_request() const { return begin_ < end_ || wait(POLLIN, kIdleTimeoutMs); }

  bool is_readable() const override { return begin_ < end_ || wait(POLLIN, kReadTimeoutMs); }

  // Asked before every piece, and while stalling: must say no once the client has left.
  bool is_writable() const override {
    pollfd entry{socket_, POLLOUT | POLLRDHUP, 0};
    if (::poll(&entry, 1, kWriteTimeoutMs) <= 0) return false;
    return (entry.revents & (POLLERR | POLLHUP | POLLRDHUP)) == 0;
  }

  ssize_t read(char* out, size_t size) override {
    if (begin_ == end_) {
      if (!is_readable()) return -1;
      ssize_t got = 0;
      do {
        got = ::recv(socket_, buffer_, sizeof buffer_, 0);
      } while (got < 0 && errno == EINTR);
      if (got <= 0) return got;
      begin_ = 0;
      end_ = static_cast<std::size_t>(got);
    }
    const std::size_t count = std::min(size, end_ - begin_);
    std::copy_n(buffer_ + begin_, count, out);
    begin_ += count;
    return static_cast<ssize_t>(count);
  }

  ssize_t write(const char* data, size_t size) override {
    ssize_t sent = 0;
    do {
      if (!wait(POLLOUT, kWriteTimeoutMs)) return -1;
      sent = ::send(socket_, data, size, MSG_NOSIGNAL);
    } while (sent < 0 && (errno == EINTR || errno == EAGAIN));
    return sent;
  }

  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return socket_; }

 private:
  bool wait(short events, int timeout_ms) const {
    pollfd entry{socket_, events, 0};
    int ready = 0;
    do {
      ready = ::poll(&entry, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
  }

  int socket_;
  char buffer_[16 * 1024];
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

class ThreadPerConnection : public httplib::TaskQueue {
 public:
  void enqueue(std::function<void()> work) override {
    {
      const std::lock_guard lock(mutex_);
      ++running_;
    }
    std::thread([this, work = std::move(work)] {
      work();
      const std::lock_guard lock(mutex_);
      --running_;
      idle_.notify_all();
    }).detach();
  }

  void shutdown() override {
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  std::mutex mutex_;  // guards running_
  std::condition_variable idle_;
  int running_ = 0;
};

class Server : public httplib::Server {
 public:
  void widen_backlog() { ::listen(svr_sock_, 4096); }

  void close_connections() {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    for (const int socket : sockets_) ::shutdown(socket, SHUT_RDWR);
  }

 private:
  bool process_and_close_socket(socket_t socket) override {
    {
      const std::lock_guard lock(mutex_);
      if (closing_) ::shutdown(socket, SHUT_RDWR);
      sockets_.insert(socket);
    }
    Connection connection(socket);
    bool closed = false;
    while (!closed && connection.wait_for_request() &&
           process_request(connection, false, closed, nullptr)) {
    }
    const std::lock_guard lock(mutex_);
    sockets_.erase(socket);
    if (reset_this_connection) {
      const linger at_once{1, 0};
      ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    } else {
      ::shutdown(socket, SHUT_RDWR);
    }
    ::close(socket);
    return true;
  }

  std::mutex mutex_;  // guards both below
  std::set<int> sockets_;
  bool closing_ = false;
};

Request to_request(const httplib::Request& from) {
  Request request;
  request.method = from.method;
  request.target = from.target;
  const auto fragment = request.target.find('#');
  const std::string target = request.target.substr(0, fragment);
  const auto question = target.find('?');
  request.path = target.substr(0, question);
  if (question != std::string::npos) request.query = target.substr(question + 1);
  request.raw_segments = split(std::string_view(request.path).substr(1), '/');
  for (const std::string& raw : request.raw_segments) {
    request.segments.push_back(percent_decode(raw));
  }
  request.host = from.get_header_value("Host");
  if (from.has_header("Authorization")) {
    request.authorization = from.get_header_value("Authorization");
  }
  request.range = from.get_header_value("Range");
  request.if_range = from.get_header_value("If-Range");
  request.if_none_match = from.get_header_value("If-None-Match");
  request.if_modified_since = from.get_header_value("If-Modified-Since");
  request.content = from.body;
  return request;
}

void to_response(Outgoing outgoing, httplib::Response& response) {
  Reply& reply = outgoing.reply;
  response.status = reply.status;
  for (const auto& [name, value] : reply.headers) response.set_header(name, value);
  if (!outgoing.writer) return;

  const auto writer = std::move(outgoing.writer);
  const auto send = [writer](std::uint64_t position, httplib::DataSink& sink) {
    if (writer->write_piece(position, sink.write, sink.is_writable)) return true;
    reset_this_connection = writer->resets();
    return false;
  };
  if (writer->hides_length()) {
    response.set_chunked_content_provider(
        reply.content_type, [writer, send](std::size_t position, httplib::DataSink& sink) {
          if (position < writer->length()) return send(position, sink);
          sink.done();
          return true;
        });
  } else {
    response.set_content_provider(writer->length(), reply.content_type,
                                  [send](std::size_t position, std::size_t,
                                         httplib::DataSink& sink) { return send(position, sink); });
  }
}

}  // namespace

struct HttpServer::Impl {
  Server server;
  std::thread thread;
  int port = 0;
};

HttpServer::HttpServer(const std::string& address, int port, Handler handler)
    : impl_(std::make_unique<Impl>()) {
  Server& server = impl_->server;
  server.new_task_queue = [] { return new ThreadPerConnection; };
  server.set_tcp_nodelay(true);
  server.set_keep_alive_timeout(kIdleTimeoutMs / 1000);
  server.set_keep_alive_max_count(1'000'000);
  // Not httplib's SO_REUSEPORT: two hubs on one fixed port would share it without a word.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  const auto answer = [handler = std::move(handler)](const httplib::Request& from,
                                                     httplib::Response& response) {
    if (from.target.empty() || from.target.front() != '/') {
      response.status = 400;
      return;
    }
    to_response(handler(to_request(from), from.body), response);
  };
  // GET and HEAD go here and not through Get(".*"): no regular expression over long paths, and the
  // Range header is ours. The request is not const where httplib keeps it, so the cast is allowed.
  server.set_pre_routing_handler(
      [answer](const httplib::Request& from, httplib::Response& response) {
        if (from.method != "GET" && from.method != "HEAD") {
          return httplib::Server::HandlerResponse::Unhandled;
        }
        const_cast<httplib::Request&>(from).ranges.clear();
        answer(from, response);
        return httplib::Server::HandlerResponse::Handled;
      });
  server.Post("/_testhub/.*", answer);
  server.Post("/api/.*", answer);
  server.Delete("/_testhub/.*", answer);
  server.set_exception_handler(
      [](const httplib::Request&, httplib::Response& response, const std::exception_ptr& error) {
        response.status = 500;
        try {
          std::rethrow_exception(error);
        } catch (const std::exception& known) {
          response.set_content(std::string("testhub: ") + known.what() + "\n", "text/plain");
        } catch (...) {
          response.set_content("testhub: unknown exception\n", "text/plain");
        }
      });

  bool bound = false;
  if (port == 0) {
    impl_->port = server.bind_to_any_port(address);
    bound = impl_->port > 0;
  } else {
    impl_->port = port;
    bound = server.bind_to_port(address, port);
  }
  if (!bound) {
    throw std::runtime_error("cannot listen on " + address + ":" + std::to_string(port));
  }
  server.widen_backlog();
  impl_->thread = std::thread([&server] { server.listen_after_bind(); });
  // stop() does nothing before the loop runs, so do not return earlier.
  while (!server.is_running()) std::this_thread::yield();
}

HttpServer::~HttpServer() {
  stop();
}

int HttpServer::port() const {
  return impl_->port;
}

void HttpServer::stop() {
  if (!impl_->thread.joinable()) return;
  impl_->server.stop();
  impl_->server.close_connections();
  impl_->thread.join();
}

}  // namespace fvprefetch::testhub
