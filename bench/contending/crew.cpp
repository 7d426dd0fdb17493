#include "crew.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <sstream>

#include "contender.h"

extern char** environ;

namespace fvprefetch::contending {
namespace {

std::atomic<bool> signalled = false;

constexpr std::int64_t kSecond = 1'000'000'000;

// Its answer is whole when its last line is one of these.
bool complete(const std::string& text) {
  if (text.empty() || text.back() != '\n') return false;
  const std::size_t before = text.rfind('\n', text.size() - 2);
  const std::size_t begin = before == std::string::npos ? 0 : before + 1;
  return text.compare(begin, 5, "done ") == 0 || text.compare(begin, 5, "ready") == 0;
}

}  // namespace

void notice_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { signalled = true; };
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) (void)::sigaction(signal, &action, nullptr);
  (void)std::signal(SIGPIPE, SIG_IGN);
}

bool stopping() {
  return signalled;
}

Crew::Crew(std::vector<std::string> command, int count) : command_(std::move(command)) {
  members_.resize(static_cast<std::size_t>(count));
  bool all = true;
  for (Member& member : members_) all = start(member) && all;
  for (Member& member : members_) member.told = true;
  const auto ready = answers(now_ns() + 60 * kSecond);
  for (const Answer& answer : ready) {
    if (answer.late) all = false;
    if (answer.late && !answer.lines.empty()) why_empty_ = answer.lines.front();
  }
  if (!all) {
    for (Member& member : members_) end(member);
    members_.clear();
    if (why_empty_.empty()) why_empty_ = "it does not start";
  }
}

Crew::~Crew() {
  // Told to go by the end of their input, all of them, before the first one is waited for.
  for (Member& member : members_) member.to = posix::Fd();
  for (Member& member : members_) end(member);
}

std::vector<pid_t> Crew::pids() const {
  std::vector<pid_t> pids;
  for (const Member& member : members_) pids.push_back(member.pid);
  return pids;
}

bool Crew::start(Member& member) {
  std::array<int, 2> to{};
  std::array<int, 2> from{};
  if (::pipe2(to.data(), O_CLOEXEC) != 0) return false;
  posix::Fd to_read(to[0]);
  member.to = posix::Fd(to[1]);
  if (::pipe2(from.data(), O_CLOEXEC) != 0) return false;
  member.from = posix::Fd(from[0]);
  const posix::Fd from_write(from[1]);
  member.text.clear();
  member.gone = false;

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to_read.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, from_write.get(), STDOUT_FILENO);
  std::vector<char*> argv;
  for (std::string& word : command_) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int failed = posix_spawnp(&member.pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) member.pid = 0;
  return failed == 0;
}

void Crew::end(Member& member) {
  if (member.pid <= 0) return;
  member.to = posix::Fd();
  for (int i = 0; i < 200; ++i) {
    const pid_t gone = ::waitpid(member.pid, nullptr, WNOHANG);
    if (gone == member.pid || (gone < 0 && errno == ECHILD)) {
      member.pid = 0;
      return;
    }
    // Half a second to go by itself; then it is told. It may sit in a call to a server that cannot
    // be interrupted: then it is left to its parent's death.
    if (i == 50) (void)::kill(member.pid, SIGKILL);
    sleep_until_ns(now_ns() + kSecond / 100);
  }
  member.pid = 0;
}

void Crew::tell(int member, const std::string& task) {
  Member& who = members_[static_cast<std::size_t>(member)];
  who.told = true;
  who.text.clear();
  const std::string line = task + "\n";
  (void)!::write(who.to.get(), line.data(), line.size());  // shorter than a pipe
}

bool Crew::hear(std::int64_t deadline) {
  std::vector<pollfd> fds;
  std::vector<Member*> whose;
  for (Member& member : members_) {
    if (!member.told || member.gone || complete(member.text)) continue;
    fds.push_back({member.from.get(), POLLIN, 0});
    whose.push_back(&member);
  }
  if (fds.empty()) return false;
  const std::int64_t left = deadline - now_ns();
  if (left <= 0 || stopping()) return false;
  const int found =
      ::poll(fds.data(), fds.size(), static_cast<int>(std::min(left, kSecond) / 1'000'000 + 1));
  if (found < 0 && errno != EINTR) return false;
  std::array<char, 1U << 16U> piece;
  for (std::size_t i = 0; found > 0 && i < fds.size(); ++i) {
    if (fds[i].revents == 0) continue;
    const ssize_t got = ::read(fds[i].fd, piece.data(), piece.size());
    if (got > 0) whose[i]->text.append(piece.data(), static_cast<std::size_t>(got));
    if (got == 0) whose[i]->gone = true;  // it has ended, on its own
  }
  return true;
}

std::vector<Answer> Crew::answers(std::int64_t deadline) {
  while (hear(deadline)) {
  }
  std::vector<Answer> all(members_.size());
  for (std::size_t i = 0; i < members_.size(); ++i) {
    Member& member = members_[i];
    if (!std::exchange(member.told, false)) continue;
    Answer& answer = all[i];
    answer.late = !complete(member.text);
    std::istringstream text(std::exchange(member.text, {}));
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with("done ")) {
        answer.cpu = std::atoll(line.c_str() + 5);
      } else if (line != "ready") {
        answer.lines.push_back(line);
      }
    }
    if (answer.late && member.pid > 0) {
      (void)::kill(member.pid, SIGKILL);
      end(member);
      if (!stopping() && start(member)) member.told = true;
    }
  }
  // Those who were started anew are heard once: "ready".
  const std::int64_t soon = now_ns() + 20 * kSecond;
  while (hear(soon)) {
  }
  for (Member& member : members_) member.told = false;
  return all;
}

}  // namespace fvprefetch::contending
