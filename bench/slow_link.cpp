// A far server on this machine: two network namespaces and between them a link with delay and loss,
// as `tc netem` makes it, for kernels without sch_netem. The packets are those of the kernel's own
// TCP, so that slow start, windows and retransmissions are real; only the wire is ours (two tun
// devices, MTU 1500). Needs root and /dev/net/tun; touches nothing outside its namespaces.
//
//   slow_link DELAY_MS LOSS     round trip in ms; share of the packets lost each way (0.001)
//
// Prints {"server": FILE, "client": FILE, "address": A}: `nsenter --net=FILE` enters, the server
// listens on A. Ends, and the namespaces with it, when its standard input does.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kServer = "192.0.2.1";  // TEST-NET-1, and only within the namespaces
constexpr const char* kClient = "192.0.2.2";

void need(bool ok, const char* what) {
  if (ok) return;
  std::perror(what);
  std::exit(1);
}

void bring_up(int socket, ifreq& request) {
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  need(::ioctl(socket, SIOCSIFFLAGS, &request) == 0, "bring a device up");
}

/// What most servers have, whatever this machine prefers: cubic, or where a namespace may not
/// choose that, reno, which cubic behaves like on a path as short as this one. The bench names the
/// one used.
void use_loss_based_congestion_control() {
  const int fd = ::open("/proc/sys/net/ipv4/tcp_congestion_control", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (::write(fd, "cubic", 5) < 0) (void)!::write(fd, "reno", 4);
  ::close(fd);
}

struct End {
  int name_space = -1;
  int tun = -1;
};

/// A new namespace, which this process is in from now on, with lo and one end of the link.
End make_end(const char* address) {
  End end;
  need(::unshare(CLONE_NEWNET) == 0, "make a network namespace");
  use_loss_based_congestion_control();
  end.name_space = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  end.tun = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  need(end.name_space >= 0 && end.tun >= 0, "/dev/net/tun");
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  bring_up(socket, request);
  request = {};
  std::strcpy(request.ifr_name, "wire");
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  need(::ioctl(end.tun, TUNSETIFF, &request) == 0, "make a tun device");
  sockaddr_in ip{};
  ip.sin_family = AF_INET;
  ::inet_pton(AF_INET, address, &ip.sin_addr);
  std::memcpy(&request.ifr_addr, &ip, sizeof ip);
  need(::ioctl(socket, SIOCSIFADDR, &request) == 0, "set an address");
  ::inet_pton(AF_INET, "255.255.255.0", &ip.sin_addr);
  std::memcpy(&request.ifr_netmask, &ip, sizeof ip);
  need(::ioctl(socket, SIOCSIFNETMASK, &request) == 0, "set a netmask");
  request.ifr_qlen = 10'000;  // a queue that overflows would be loss that nobody asked for
  need(::ioctl(socket, SIOCSIFTXQLEN, &request) == 0, "set a queue length");
  bring_up(socket, request);
  ::close(socket);
  return end;
}

/// One direction of the wire.
class Lane {
 public:
  Lane(int from, int to, Clock::duration delay, double loss)
      : from_(from), to_(to), delay_(delay), lost_(loss) {}

  void take() {
    std::array<char, 2048> packet;
    for (int i = 0; i < 64; ++i) {  // then the other lane's turn
      const ssize_t size = ::read(from_, packet.data(), packet.size());
      if (size <= 0) return;
      if (lost_(random_)) continue;
      under_way_.push_back({Clock::now() + delay_, {packet.data(), packet.data() + size}});
    }
  }
  void deliver() {
    while (!under_way_.empty() && under_way_.front().due <= Clock::now()) {
      const std::vector<char>& bytes = under_way_.front().bytes;
      (void)!::write(to_, bytes.data(), bytes.size());  // refused: lost, as on any wire
      under_way_.pop_front();
    }
  }
  [[nodiscard]] Clock::time_point next() const {
    return under_way_.empty() ? Clock::time_point::max() : under_way_.front().due;
  }

 private:
  struct Packet {
    Clock::time_point due;
    std::vector<char> bytes;
  };
  const int from_;
  const int to_;
  const Clock::duration delay_;
  std::bernoulli_distribution lost_;
  std::mt19937 random_{1};  // the same losses, as far as the same packets come
  std::deque<Packet> under_way_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::chrono::duration<double, std::milli> round_trip(std::atof(argv[1]));
  const double loss = std::atof(argv[2]);
  const End server = make_end(kServer);
  const End client = make_end(kClient);
  const auto one_way = std::chrono::duration_cast<Clock::duration>(round_trip / 2);
  Lane down(server.tun, client.tun, one_way, loss);
  Lane up(client.tun, server.tun, one_way, loss);
  std::printf(R"({"server": "/proc/%d/fd/%d", "client": "/proc/%d/fd/%d", "address": "%s"})"
              "\n",
              ::getpid(), server.name_space, ::getpid(), client.name_space, kServer);
  std::fflush(stdout);

  while (true) {
    pollfd events[] = {{.fd = server.tun, .events = POLLIN, .revents = 0},
                       {.fd = client.tun, .events = POLLIN, .revents = 0},
                       {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0}};
    const Clock::time_point next = std::min(down.next(), up.next());
    timespec wait{};
    if (next != Clock::time_point::max()) {
      const auto ns = std::max<std::int64_t>(
          0, std::chrono::duration_cast<std::chrono::nanoseconds>(next - Clock::now()).count());
      wait = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
    }
    const bool idle = next == Clock::time_point::max();
    if (::ppoll(events, 3, idle ? nullptr : &wait, nullptr) < 0 && errno != EINTR) return 1;
    if (events[2].revents != 0) return 0;
    down.take();
    up.take();
    down.deliver();
    up.deliver();
  }
}
