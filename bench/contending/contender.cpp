#include "contender.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>

#include "base/posix.h"
#include "way.h"

namespace fvprefetch::contending {
namespace {

Clock::TimePoint time_point(std::int64_t ns) {
  return Clock::TimePoint(std::chrono::nanoseconds(ns));
}

/// The number in <folder>/count. Between nodes it is read past the page cache: a client may keep
/// what it has read as long as the file's time, which is as coarse as a tick, has not changed.
class Counter {
 public:
  explicit Counter(const std::string& folder) {
    const std::string path = folder + "/count";
    const int beyond_the_cache = posix::is_local(folder) ? 0 : O_DIRECT;
    int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | beyond_the_cache, 0666);
    if (fd < 0) fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    fd_ = posix::Fd(fd);
  }
  void read() {
    block_.fill('\0');
    (void)!::pread(fd_.get(), block_.data(), block_.size(), 0);
    block_.back() = '\0';
  }
  void write_one_more() {
    const std::string text = std::to_string(std::atoll(block_.data()) + 1) + "\n";
    block_.fill(' ');
    std::copy(text.begin(), text.end(), block_.begin());
    (void)!::pwrite(fd_.get(), block_.data(), block_.size(), 0);
  }

 private:
  posix::Fd fd_;
  alignas(4096) std::array<char, 4096> block_{};
};

class Contender {
 public:
  void work_off(const std::string& line) {
    std::istringstream words(line);
    std::string task;
    std::string name;
    std::int64_t start = 0;
    std::int64_t deadline = 0;
    words >> task >> name >> start >> deadline;
    const auto which = primitive(name);
    if (!which || (task != "cold" && task != "turns")) {
      std::cout << "error no such task: " << line << "\ndone 0" << std::endl;
      return;
    }
    // A new one for each task, as each process of a job has: what it costs to begin is counted.
    std::unique_ptr<Way> way = make_way(*which);
    int count = 0;
    std::int64_t hold = 0;
    if (task == "turns") words >> count >> hold;
    std::string folder;
    std::getline(words >> std::ws, folder);

    answer_.clear();
    sleep_until_ns(start);
    const std::int64_t cpu = cpu_ns();
    const Status done =
        task == "cold" ? cold(*way, folder, deadline) : turns(*way, folder, deadline, count, hold);
    const std::int64_t used = cpu_ns() - cpu;
    way.reset();
    if (!done) answer_ += "error " + done.error().message + "\n";
    // At once and at the end: others are still contending.
    std::cout << answer_ << "done " << used << std::endl;
  }

 private:
  Status cold(Way& way, const std::string& folder, std::int64_t deadline) {
    const std::string file = folder + "/file";
    const auto hit = [&file] { return posix::exists(file); };
    std::int64_t published = 0;
    auto held = way.take(folder + "/x.lock", hit, time_point(deadline));
    if (!held) return fail(std::move(held).error());
    // Another node may have published it since the last look; this one must not go by memory.
    if (*held) posix::look_afresh(folder);
    if (*held && !hit()) {
      Status brought =
          posix::publish_text(folder + "/file." + posix::random_tag(), file, "weights");
      if (!brought) return brought;
      published = now_ns();
    }
    const std::int64_t have = now_ns();
    held->reset();
    if (!hit()) return fail(ErrorCode::kInternal, "the deadline");
    answer_ += "had " + std::to_string(have) + " " + std::to_string(published) + "\n";
    return {};
  }

  Status turns(Way& way, const std::string& folder, std::int64_t deadline, int count,
               std::int64_t hold) {
    Counter counter(folder);
    for (int i = 0; i < count; ++i) {
      const std::int64_t wanted = now_ns();
      auto held = way.take(
          folder + "/x.lock", [] { return false; }, time_point(deadline));
      if (!held) return fail(std::move(held).error());
      if (!*held) return fail(ErrorCode::kInternal, "the deadline");
      const std::int64_t got = now_ns();
      counter.read();
      sleep_until_ns(got + hold);
      counter.write_one_more();
      const std::int64_t left = now_ns();
      held->reset();
      answer_ += "turn " + std::to_string(wanted) + " " + std::to_string(got) + " " +
                 std::to_string(left) + "\n";
      if (left > deadline && i + 1 < count) return fail(ErrorCode::kInternal, "the deadline");
    }
    return {};
  }

  std::string answer_;
};

}  // namespace

std::int64_t now_ns() {
  timespec at{};
  ::clock_gettime(CLOCK_MONOTONIC, &at);
  return std::int64_t{at.tv_sec} * 1'000'000'000 + at.tv_nsec;
}

void sleep_until_ns(std::int64_t at) {
  const timespec until{at / 1'000'000'000, at % 1'000'000'000};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

std::int64_t cpu_ns() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto ns = [](const timeval& t) {
    return (std::int64_t{t.tv_sec} * 1'000'000 + t.tv_usec) * 1'000;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

int run_contender() {
  // Whatever becomes of the one who asks: a blocking call must not outlive him.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);  // for strace, which counts the operations
  Contender contender;
  std::cout << "ready" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) contender.work_off(line);
  return 0;
}

}  // namespace fvprefetch::contending
