// What a run tells people on stderr.
//
// Narrator decides what to say: events and time in, text out, pure. On a terminal it keeps one line
// up to date; elsewhere it says at most one line per 30 s about progress and as much about waiting,
// so that a job's log of ten minutes has some twenty lines; with --verbose a line for each file
// that is on its way follows. All rates and times left are reckoned here, from the events. Console
// knows the descriptor: whether it is a terminal, how wide, and how to write without ever being
// held up by it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"
#include "fvprefetch/progress.h"

namespace fvprefetch::cli {

enum class ProgressStyle { kBar, kLog, kNone };

struct Manner {
  ProgressStyle progress = ProgressStyle::kLog;
  bool quiet = false;    ///< nothing but errors
  bool verbose = false;  ///< a line for every file
  bool waits = false;    ///< quiet, but says for what it waits
};

/// Bytes per second over the last 15 s or so.
class RateMeter {
 public:
  void add(Clock::TimePoint now, std::uint64_t bytes_done);
  /// nullopt until there is something to measure.
  [[nodiscard]] std::optional<double> bytes_per_second() const;

 private:
  std::deque<std::pair<Clock::TimePoint, std::uint64_t>> samples_;
};

class Narrator {
 public:
  struct Speech {
    std::vector<std::string> lines;  ///< to stay, without newline
    std::optional<std::string> bar;  ///< replaces the bar
  };

  explicit Narrator(Manner manner) : manner_(manner) {}
  void set_manner(Manner manner) { manner_ = manner; }
  /// `columns`: of the terminal; for the bar only.
  [[nodiscard]] Speech on_event(const Event& event, Clock::TimePoint now, std::size_t columns);

 private:
  /// What is said of the total; a field that is not known is empty.
  struct Totals {
    std::string bytes;
    std::string files;
    std::string rate;
    std::string left;
  };
  /// Where a file stood at some time.
  struct Mark {
    Clock::TimePoint when;
    std::uint64_t bytes_done = 0;
  };
  using FileKey = std::pair<std::string, std::string>;  ///< entry and path

  void on(const FetchPlanned& event, Clock::TimePoint now, Speech& speech);
  void on(const BytesArrived& event, Clock::TimePoint now, std::size_t columns, Speech& speech);
  void on(const LockWaited& event, Clock::TimePoint now, Speech& speech);
  void on(const Waiting& event, Clock::TimePoint now, Speech& speech);
  [[nodiscard]] Totals totals() const;
  [[nodiscard]] std::string progress_line() const;
  [[nodiscard]] std::string file_line(const ArrivingFile& file, Clock::TimePoint now) const;
  [[nodiscard]] std::string bar(std::size_t columns);
  [[nodiscard]] std::string file_of_bar();
  void mark_files(Clock::TimePoint now);

  Manner manner_;
  RateMeter rate_;
  BytesArrived progress_;
  bool bytes_exact_ = true;
  Work work_ = Work::kFetching;
  std::uint64_t retries_ = 0;
  std::map<FileKey, Mark> marks_;  ///< at the last report, or when a file was first told of
  std::optional<FileKey> in_bar_;  ///< the file that the bar names
  std::set<std::string> warned_;
  std::set<std::string> waiting_;  ///< paths since the last line about waiting
  std::optional<Clock::TimePoint> said_progress_;
  std::optional<Clock::TimePoint> said_waiting_;
  std::optional<Clock::TimePoint> said_other_waiting_;  ///< than for locks
  std::optional<Clock::TimePoint> drew_bar_;
};

/// What standard error is.
struct Terminal {
  bool interactive = false;  ///< a terminal that can overwrite a line
  bool color = false;        ///< interactive, and NO_COLOR is not set
};
[[nodiscard]] Terminal probe_terminal(int fd, const EnvironmentLookup& env);

/// Any thread. Writes to a descriptor that nobody may be reading: a line that cannot be written
/// soon is dropped, for a full log pipe must not stop a download.
class Console final : public Observer {
 public:
  Console(int fd, Terminal terminal, Manner manner, Clock& clock);
  ~Console() override;  ///< clear_bar()
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  void on_event(const Event& event) override;
  /// Takes the bar away, for stdout may be the same terminal.
  void clear_bar();
  /// A line that --quiet leaves out.
  void note(std::string_view text);
  /// From now on not quiet, as far as `--quiet` allows: this process does the work after all.
  void speak_up();
  /// A line about something that failed. Always said.
  void failure(std::string_view text);
  /// "fvprefetch: error: ..." and "hint: ...". Always said.
  void error(const Error& error);
  /// One line that is always said and gives no hint: what a process says that is not the first.
  void error_line(const Error& error, std::string_view who);

 private:
  enum class Tone { kPlain, kWarning, kError, kHint };
  void line(Tone tone, std::string_view label, std::string_view text);
  void draw(const std::string& bar);
  [[nodiscard]] std::size_t columns() const;

  std::recursive_mutex mutex_;  ///< of all that follows: events come from the thread that works
  int fd_;
  Terminal terminal_;
  Manner manner_;
  Clock& clock_;
  Narrator narrator_;
  bool bar_shown_ = false;
};

}  // namespace fvprefetch::cli
