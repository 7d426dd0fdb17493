#include "cluster/attended.h"

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/clock.h"

namespace fvprefetch {
namespace {

std::atomic<int> threads_left_behind{0};

// What both threads use, for as long as one of them does.
struct Shared {
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;  // under mutex
  bool left = false;  // under mutex: the other thread has gone on
};

using SharedWork = std::shared_ptr<std::function<void()>>;

void run(const std::shared_ptr<Shared>& shared, SharedWork work) {
  (*work)();
  work.reset();  // what it owned is destroyed on this thread, before the other one goes on
  const std::lock_guard lock(shared->mutex);
  shared->done = true;
  if (shared->left) count_left_behind(-1);
  shared->ended.notify_all();
}

// Attends until the work has ended; its error when it does not.
Status attend(Shared& shared, Collective& ranks, const Attendance& attendance) {
  // Often enough for heartbeats and signals; the end of the work is noticed at once.
  constexpr std::chrono::milliseconds kTurn(50);
  std::optional<Clock::TimePoint> asked;
  for (;;) {
    {
      std::unique_lock lock(shared.mutex);
      if (shared.ended.wait_for(lock, kTurn, [&] { return shared.done; })) return {};
    }
    look_after(ranks, attendance.vigil);
    auto stop = attendance.must_stop ? attendance.must_stop() : std::nullopt;
    if (!stop) continue;
    const Clock::TimePoint now = real_clock().now();
    if (!asked) asked = now;
    if (now - *asked < kGrace) continue;
    const std::lock_guard lock(shared.mutex);
    if (shared.done) return {};
    shared.left = true;
    count_left_behind(1);
    return fail(*std::move(stop));
  }
}

}  // namespace

Status run_attended(Collective& ranks, const Attendance& attendance, std::function<void()> work) {
  const auto shared = std::make_shared<Shared>();
  auto owned = std::make_shared<std::function<void()>>(std::move(work));
  std::thread thread;
  try {
    thread = std::thread(run, shared, owned);
  } catch (const std::system_error&) {
    if (ranks.size() > 1) return fail(no_thread_left());
    (*owned)();
    return {};
  }
  owned.reset();
  Status attended = attend(*shared, ranks, attendance);
  if (attended) {
    thread.join();  // see within.h
  } else {
    thread.detach();
  }
  return attended;
}

Error no_thread_left() {
  return fail(ErrorCode::kNoSpace, "the system gives this process no further thread",
              "raise the limit of processes (`ulimit -u`, or pids.max of the job's cgroup)")
      .value();
}

void count_left_behind(int change) {
  threads_left_behind += change;
}

int left_behind() {
  return threads_left_behind;
}

// Between the work and what belongs to the caller.
struct OwnedOptions::Gate final : public Observer {
  explicit Gate(const Options& options)
      : observer(options.observer),
        stop_signal(options.stop_signal),
        environment(options.environment) {}

  void on_event(const Event& event) override {
    const std::lock_guard lock(observing);
    if (watched && observer != nullptr) observer->on_event(event);
  }
  int signal() {
    const std::lock_guard lock(mutex);
    if (open && stop_signal) last_signal = stop_signal();
    return last_signal;
  }
  std::optional<std::string> look_up(std::string_view name) {
    const std::lock_guard lock(mutex);
    return open ? environment(name) : std::nullopt;
  }

  // One lock each: an observer that takes its time must not hold up who asks for a signal.
  std::mutex observing;
  bool watched = true;  // under observing
  Observer* observer;   // under observing
  std::mutex mutex;
  bool open = true;  // under mutex, as is what follows
  std::function<int()> stop_signal;
  EnvironmentLookup environment;
  int last_signal = SIGTERM;
};

OwnedOptions::OwnedOptions(const Options& options)
    : gate_(std::make_shared<Gate>(options)), options_(options) {
  // Each copy of the options keeps the gate.
  options_.stop_signal = [gate = gate_] { return gate->signal(); };
  if (options.observer != nullptr) options_.observer = gate_.get();
  if (options.environment) {
    options_.environment = [gate = gate_](std::string_view name) { return gate->look_up(name); };
  }
}

void OwnedOptions::close() {
  {
    const std::lock_guard lock(gate_->observing);
    gate_->watched = false;
  }
  const std::lock_guard lock(gate_->mutex);
  gate_->open = false;
}

}  // namespace fvprefetch
