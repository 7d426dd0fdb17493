#include "cluster/second_process.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/posix.h"
#include "base/try.h"

namespace fvprefetch {
namespace {

// Two ranks at the two ends of a socket. A message is its length, 8 bytes in this machine's order,
// and itself. Rank 0 speaks first and rank 1 listens first, so that neither waits for the other to
// make room.
class PairCollective final : public Collective {
 public:
  PairCollective(posix::Fd socket, int rank, std::string node)
      : socket_(std::move(socket)), rank_(rank), node_(std::move(node)) {}

  int rank() const override { return rank_; }
  int size() const override { return 2; }
  int leader() const override { return 0; }
  int nodes() const override { return 1; }
  const std::string& node() const override { return node_; }

  Status quiet_wait() override {
    FVP_TRY([[maybe_unused]] const std::string word, exchange(""));
    return {};
  }
  Result<std::string> broadcast(std::string bytes) override {
    FVP_TRY(std::string other, exchange(rank_ == 0 ? bytes : ""));
    return rank_ == 0 ? std::move(bytes) : std::move(other);
  }
  Result<int> max(int value) override {
    FVP_TRY(const std::string other, exchange(std::to_string(value)));
    return std::max(value, std::stoi(other));
  }
  Result<std::vector<std::string>> all_gather(const std::string& text) override {
    FVP_TRY(std::string other, exchange(text));
    return rank_ == 0 ? std::vector{text, std::move(other)} : std::vector{std::move(other), text};
  }

 private:
  Result<std::string> exchange(std::string_view mine) {
    std::string other;
    const bool done = rank_ == 0 ? say(mine) && hear(other) : hear(other) && say(mine);
    if (!done) return fail(ErrorCode::kInternal, "the second process of the self test has gone");
    return other;
  }

  bool say(std::string_view text) {
    const std::uint64_t length = text.size();
    return send_all(&length, sizeof length) && send_all(text.data(), text.size());
  }
  bool hear(std::string& text) {
    std::uint64_t length = 0;
    if (!receive_all(&length, sizeof length)) return false;
    text.resize(length);
    return receive_all(text.data(), text.size());
  }

  bool send_all(const void* data, std::size_t size) {
    const auto* at = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t sent = ::send(socket_.get(), at, size, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return false;
      at += sent;
      size -= static_cast<std::size_t>(sent);
    }
    return true;
  }
  bool receive_all(void* data, std::size_t size) {
    auto* at = static_cast<char*>(data);
    while (size > 0) {
      const ssize_t received = ::recv(socket_.get(), at, size, 0);
      if (received < 0 && errno == EINTR) continue;
      if (received <= 0) return false;
      at += received;
      size -= static_cast<std::size_t>(received);
    }
    return true;
  }

  posix::Fd socket_;
  int rank_;
  std::string node_;
};

}  // namespace

Result<std::unique_ptr<SecondProcess>> SecondProcess::start(
    const std::string& node, const std::function<void(Collective&)>& work) {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail(posix::errno_error(errno, "make a socket for", "the self test"));
  }
  posix::Fd ours(ends[0]);
  posix::Fd theirs(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0)
    return fail(posix::errno_error(errno, "start a second process for", "the self test"));
  if (pid == 0) {
    // The socket tells of our parent's end as well; this is for when we are in a call that hangs.
    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Ctrl-C means our parent, which tidies up and then ends us.
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) (void)::signal(number, SIG_IGN);
    ours = posix::Fd();
    PairCollective ranks(std::move(theirs), 1, node);
    (void)guard([&]() -> Status {
      work(ranks);
      return {};
    });
    ::_exit(0);
  }
  return std::unique_ptr<SecondProcess>(
      new SecondProcess(pid, std::make_unique<PairCollective>(std::move(ours), 0, node)));
}

SecondProcess::~SecondProcess() {
  ranks_.reset();  // ends it as soon as it listens
  (void)::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace fvprefetch
