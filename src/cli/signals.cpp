#include "cli/signals.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <system_error>

namespace fvprefetch::cli {
namespace {

constexpr std::array kStopSignals{SIGINT, SIGTERM, SIGHUP};

// nohup ignores SIGHUP, a shell ignores SIGINT for its background jobs: that is left as it is.
bool ignored(int number) {
  struct sigaction action {};
  return ::sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

sigset_t wanted_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : kStopSignals) {
    if (!ignored(number)) ::sigaddset(&set, number);
  }
  return set;
}

}  // namespace

SignalPolicy::Action SignalPolicy::on_signal(Clock::TimePoint now) {
  constexpr std::chrono::seconds kEcho{1};
  if (!first_) {
    first_ = now;
    return Action::kStop;
  }
  return now - *first_ < kEcho ? Action::kIgnore : Action::kExit;
}

Signals::Signals() : number_(SIGTERM) {
  (void)::signal(SIGPIPE, SIG_IGN);
  const sigset_t set = wanted_signals();
  signals_ = posix::Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  quit_ = posix::Fd(::eventfd(0, EFD_CLOEXEC));
  // Without descriptors the signals keep their default effect: the state on disk bears that, too.
  if (!signals_ || !quit_) {
    ::pthread_sigmask(SIG_BLOCK, nullptr, &before_);
    return;
  }
  ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  try {
    thread_ = std::thread([this] { listen(); });
  } catch (const std::system_error&) {  // as without descriptors
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
}

Signals::~Signals() {
  if (thread_.joinable()) {
    const std::uint64_t one = 1;
    (void)!::write(quit_.get(), &one, sizeof one);
    thread_.join();
  }
  // The result is known and the same everywhere. Under `srun -K1` the first rank to end with it
  // makes Slurm send SIGTERM to all others: it must not turn their code into 143 on the last
  // metres.
  for (const int number : kStopSignals) {
    if (::sigismember(&before_, number) == 0) (void)::signal(number, SIG_IGN);
  }
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void Signals::raise(int number) {
  if (stop_.stop_requested()) return;
  number_ = number;
  stop_.request_stop();
}

void Signals::listen() {
  SignalPolicy policy;
  while (true) {
    std::array<pollfd, 2> ready{pollfd{signals_.get(), POLLIN, 0}, pollfd{quit_.get(), POLLIN, 0}};
    if (::poll(ready.data(), ready.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if ((ready[1].revents & POLLIN) != 0) return;
    signalfd_siginfo info{};
    if (::read(signals_.get(), &info, sizeof info) != sizeof info) continue;
    const int number = static_cast<int>(info.ssi_signo);
    switch (policy.on_signal(real_clock().now())) {
      case SignalPolicy::Action::kStop:
        number_ = number;
        stop_.request_stop();
        break;
      case SignalPolicy::Action::kIgnore:
        break;
      case SignalPolicy::Action::kExit:
        ::_exit(128 + number);
    }
  }
}

}  // namespace fvprefetch::cli
