// A server on loopback that plays Answers (scripted_transport.h) byte for byte: what libcurl is
// held to the contract of a Transport with. It speaks just enough HTTP/1.1 for that, and what a
// real server would not let a test say: cut heads, trailers, interim answers, silence.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/scripted_transport.h"

namespace fvprefetch::testing {

class WireServer {
 public:
  /// Listens on a port that the kernel chooses.
  WireServer() {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_, generic, length) != 0 || ::listen(listener_, 64) != 0 ||
        ::getsockname(listener_, generic, &length) != 0) {
      throw std::runtime_error("cannot listen on loopback");
    }
    port_ = ntohs(address.sin_port);
    accepting_ = std::thread([this] { accept_all(); });
  }

  ~WireServer() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      for (const int socket : sockets_) ::shutdown(socket, SHUT_RDWR);
    }
    ::shutdown(listener_, SHUT_RDWR);  // wakes accept()
    accepting_.join();
    for (std::thread& thread : serving_) thread.join();
    ::close(listener_);
  }
  WireServer(const WireServer&) = delete;
  WireServer& operator=(const WireServer&) = delete;

  /// The address of `path`, which will be answered once with `answer`.
  std::string serve(const std::string& path, Answer answer) {
    return serve_raw(
        path, {to_bytes(answer), answer.failure, {first_pause(answer), answer.steps.cend()}});
  }
  /// The same with bytes of the test's own; the connection is closed after them.
  std::string serve_bytes(const std::string& path, std::string bytes) {
    return serve_raw(path, {std::move(bytes), TransportFailure::kCut});
  }

  [[nodiscard]] std::string origin() const { return "http://127.0.0.1:" + std::to_string(port_); }

  /// Heads of the requests of `path` so far, as they came.
  [[nodiscard]] std::vector<std::string> heads(const std::string& path) const {
    const std::lock_guard lock(mutex_);
    const auto found = heads_.find(path);
    return found == heads_.end() ? std::vector<std::string>() : found->second;
  }
  [[nodiscard]] int connections() const { return connections_; }

 private:
  struct Reply {
    std::string bytes;
    TransportFailure end;
    std::vector<Answer::Step> later{};  // what is sent after a pause
  };

  std::string serve_raw(const std::string& path, Reply reply) {
    const std::lock_guard lock(mutex_);
    replies_[path].push_back(std::move(reply));
    return origin() + path;
  }

  // From the first pause on.
  static std::vector<Answer::Step>::const_iterator first_pause(const Answer& answer) {
    return std::find_if(answer.steps.begin(), answer.steps.end(),
                        [](const Answer::Step& step) { return step.after.count() > 0; });
  }

  static std::string to_bytes(const Answer& answer) {
    if (answer.status == 0) return {};
    std::string body;
    for (auto step = answer.steps.begin(); step != first_pause(answer); ++step) body += step->body;
    std::string bytes = "HTTP/1.1 " + std::to_string(answer.status) + " Said\r\n";
    for (const auto& [name, value] : answer.headers) bytes += name + ": " + value + "\r\n";
    return bytes + "\r\n" + body;
  }

  void accept_all() {
    for (;;) {
      const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) return;
      const std::lock_guard lock(mutex_);
      if (stopping_) {
        ::close(socket);
        return;
      }
      ++connections_;
      sockets_.insert(socket);
      serving_.emplace_back([this, socket] { serve_connection(socket); });
    }
  }

  void serve_connection(int socket) {
    std::string received;
    while (read_head(socket, received)) {
      const std::size_t end = received.find("\r\n\r\n") + 4;
      const std::string head = received.substr(0, end);
      received.erase(0, end);
      const std::size_t begin = head.find(' ') + 1;
      const std::string path = head.substr(begin, head.find(' ', begin) - begin);
      Reply reply{"HTTP/1.1 500 No such script\r\ncontent-length: 0\r\n\r\n", {}};
      {
        const std::lock_guard lock(mutex_);
        heads_[path].push_back(head);
        if (auto& replies = replies_[path]; !replies.empty()) {
          reply = std::move(replies.front());
          replies.pop_front();
        }
      }
      // A HEAD and a 304 have the headers of a body and no body.
      if (head.starts_with("HEAD ")) reply.bytes.erase(reply.bytes.find("\r\n\r\n") + 4);
      bool sent = send_all(socket, reply.bytes);
      for (auto step = reply.later.begin(); sent && step != reply.later.end(); ++step) {
        sent = stays_for(socket, step->after) && send_all(socket, step->body);
      }
      if (!sent || reply.end == TransportFailure::kCut) break;
      if (reply.end == TransportFailure::kStalled) {
        char byte = 0;
        while (::recv(socket, &byte, 1, 0) > 0) {
        }  // until the other side has had enough
        break;
      }
    }
    const std::lock_guard lock(mutex_);
    sockets_.erase(socket);
    ::close(socket);
  }

  static bool read_head(int socket, std::string& received) {
    while (received.find("\r\n\r\n") == std::string::npos) {
      char buffer[4096];
      const ssize_t got = ::recv(socket, buffer, sizeof buffer, 0);
      if (got <= 0) return false;
      received.append(buffer, static_cast<std::size_t>(got));
    }
    return true;
  }

  // False: the other side has gone meanwhile.
  static bool stays_for(int socket, std::chrono::nanoseconds time) {
    pollfd watched{socket, POLLRDHUP, 0};
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(time).count();
    return ms == 0 || ::poll(&watched, 1, static_cast<int>(ms)) == 0;
  }

  static bool send_all(int socket, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  int listener_ = -1;
  int port_ = 0;
  std::atomic<int> connections_ = 0;
  std::thread accepting_;
  std::vector<std::thread> serving_;  // of accepting_, and of the destructor after its end

  mutable std::mutex mutex_;  // guards what follows
  bool stopping_ = false;
  std::set<int> sockets_;
  std::map<std::string, std::deque<Reply>> replies_;
  std::map<std::string, std::vector<std::string>> heads_;
};

}  // namespace fvprefetch::testing
