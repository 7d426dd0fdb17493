#include "cli/console.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cmath>

#include "base/printable.h"
#include "cli/text.h"

namespace fvprefetch::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kLineEvery{30};
constexpr milliseconds kBarEvery{100};
constexpr seconds kRateWindow{15};
constexpr milliseconds kLeastRateTime{500};  // of a shorter time nothing is reckoned
constexpr std::size_t kLeastBar = 10;        // columns; a shorter one says nothing
constexpr std::size_t kMostBar = 40;
constexpr std::string_view kBarGap = "  ";
// Another file takes the bar's place for a file when it has so much more to do: of files that
// arrive side by side the first changes many times a second, and nobody could read its name.
constexpr double kMuchMore = 1.25;

// How long a line may wait for a reader.
constexpr milliseconds kBarPatience{0};
constexpr milliseconds kLinePatience{200};
constexpr milliseconds kErrorPatience{2000};

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

bool due(const std::optional<Clock::TimePoint>& last, Clock::TimePoint now,
         Clock::TimePoint::duration every) {
  return !last || now - *last >= every;
}

int percent(std::uint64_t part, std::uint64_t whole) {
  if (whole == 0) return 0;
  const double ratio = static_cast<double>(part) / static_cast<double>(whole);
  return std::min(100, static_cast<int>(ratio * 100));
}

// Empty where there is no end to be seen.
std::string left_text(std::uint64_t bytes, double per_second) {
  constexpr double kWorthTelling = 100 * 3600;  // a longer guess is none
  if (bytes == 0 || per_second < 1) return "";
  const double left = std::ceil(static_cast<double>(bytes) / per_second);
  if (left >= kWorthTelling) return "";
  constexpr double kMinute = 60;
  if (left < kMinute) return fmt::format("{} s left", static_cast<int>(left));
  return duration_text(seconds(static_cast<std::int64_t>(left))) + " left";
}

std::string rate_text(double per_second) {
  return bytes_text(static_cast<std::uint64_t>(per_second)) + "/s";
}

std::uint64_t left_of(const ArrivingFile& file) {
  const std::uint64_t total = file.bytes_total.value_or(0);
  return total > file.bytes_done ? total - file.bytes_done : 0;
}

// One whose size is known goes before one of which nobody knows what is left.
bool has_more_left(const ArrivingFile& file, const ArrivingFile& than) {
  if (left_of(file) != left_of(than)) return left_of(file) > left_of(than);
  return !file.bytes_total && !than.bytes_total && file.bytes_done > than.bytes_done;
}

// The last part of its path, in one line.
std::string short_name(const ArrivingFile& file) {
  std::string name = file.path.substr(file.path.find_last_of('/') + 1);
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return c < 0x20; }, '?');
  return name;
}

// Not ready within `patience` means that nobody reads. POLLOUT on a pipe promises room for PIPE_BUF
// bytes, so that a piece of that size does not block; O_NONBLOCK would be simpler, but it belongs
// to the open file description, which we share with the rest of the job.
bool write_soon(int fd, std::string_view text, milliseconds patience) {
  while (!text.empty()) {
    pollfd ready{fd, POLLOUT, 0};
    const int count = ::poll(&ready, 1, static_cast<int>(patience.count()));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0 || (ready.revents & POLLOUT) == 0) return false;
    const ssize_t written = ::write(fd, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

std::string wait_text(const LockWaited& event, std::size_t others) {
  std::string out = "waiting for ";
  out += event.entry.empty() ? std::string() : fmt::format("`{}`, ", event.entry);
  if (!event.path.empty() && event.path != event.entry) out += event.path + ", ";
  if (others > 0) out += fmt::format("and {} more, ", others);
  out += "held by " + (event.holder.empty() ? std::string("another program") : event.holder);
  if (event.bytes_total && *event.bytes_total > 0) {
    out += "; it has " + bytes_of_text(event.bytes_done, *event.bytes_total);
  } else if (event.bytes_done > 0) {
    out += "; it has " + bytes_text(event.bytes_done);
  }
  if (event.waited >= seconds(1)) out += "; waited " + duration_text(event.waited);
  return out;
}

std::string started_text(const FileStarted& event) {
  return fmt::format("`{}`: fetching {}{}", event.entry, event.path,
                     event.size ? ", " + bytes_text(*event.size) : "");
}

std::string finished_text(const FileFinished& event, std::string_view how) {
  return fmt::format("`{}`: {} is {}, {}", event.entry, event.path, how, bytes_text(event.bytes));
}

std::string retried_text(const FileRetried& event) {
  if (!event.address.empty()) {
    return fmt::format("`{}`: {}: {}; now from {}", event.entry, event.path, event.reason,
                       event.address);
  }
  return fmt::format("`{}`: {}: {}, again in {}", event.entry, event.path, event.reason,
                     duration_text(event.delay));
}

std::string done_text(const EntryDone& event) {
  std::string out = fmt::format("`{}`: {}", event.entry, event.state);
  if (!event.path.empty()) out += " " + event.path;
  if (event.error) out += ": " + describe(*event.error);
  return out;
}

// What a kind of work is called while it goes on, and when it is done; and one file of it.
struct Words {
  std::string doing;
  std::string done;
  std::string one_done;
};
Words words_for(Work work) {
  switch (work) {
    case Work::kFetching:
      return {"fetching", "fetched", "there"};
    case Work::kVerifying:
      return {"verifying", "verified", "ok"};
    case Work::kCopying:
      return {"copying to the nodes:", "copied to the nodes:", "there"};
  }
  return {};
}

}  // namespace

void RateMeter::add(Clock::TimePoint now, std::uint64_t bytes_done) {
  // Fewer bytes than before: an attempt was thrown away, and what it brought says nothing any more.
  if (!samples_.empty() && bytes_done < samples_.back().second) samples_.clear();
  samples_.emplace_back(now, bytes_done);
  while (samples_.size() > 2 && now - samples_[1].first >= kRateWindow) samples_.pop_front();
}

std::optional<double> RateMeter::bytes_per_second() const {
  if (samples_.size() < 2) return std::nullopt;
  const std::chrono::duration<double> time = samples_.back().first - samples_.front().first;
  if (time < kLeastRateTime) return std::nullopt;
  return static_cast<double>(samples_.back().second - samples_.front().second) / time.count();
}

Narrator::Speech Narrator::on_event(const Event& event, Clock::TimePoint now, std::size_t columns) {
  Speech speech;
  const auto verbosely = [&](std::string line) {
    if (manner_.verbose) speech.lines.push_back(std::move(line));
  };
  std::visit(
      Overloaded{
          [&](const FetchPlanned& e) { on(e, now, speech); },
          [&](const FileStarted& e) { verbosely(started_text(e)); },
          [&](const BytesArrived& e) { on(e, now, columns, speech); },
          [&](const FileFinished& e) { verbosely(finished_text(e, words_for(work_).one_done)); },
          [&](const FileRetried& e) {
            ++retries_;
            verbosely(retried_text(e));
          },
          [&](const LockWaited& e) { on(e, now, speech); },
          [&](const Waiting& e) { on(e, now, speech); },
          [&](const Warned& e) {
            std::string text =
                e.entry.empty() ? e.message : fmt::format("`{}`: {}", e.entry, e.message);
            if (warned_.insert(text).second) speech.lines.push_back("warning: " + text);
          },
          [&](const EntryDone& e) { verbosely(done_text(e)); },
      },
      event);
  const bool wait =
      std::holds_alternative<LockWaited>(event) || std::holds_alternative<Waiting>(event);
  if (manner_.quiet && !(manner_.waits && wait)) return {};
  return speech;
}

void Narrator::on(const FetchPlanned& event, Clock::TimePoint now, Speech& speech) {
  if (event.work != work_) {
    said_progress_.reset();
    rate_ = RateMeter();
  }
  work_ = event.work;
  bytes_exact_ = event.bytes_exact;
  progress_.bytes_total = event.bytes;
  progress_.files_total = event.files;
  if (manner_.progress != ProgressStyle::kLog || event.files == 0) return;
  if (!due(said_progress_, now, kLineEvery)) return;
  said_progress_ = now;
  std::string size;
  if (event.bytes_exact) {
    size = ", " + bytes_text(event.bytes);
  } else if (event.bytes > 0) {
    size = ", at least " + bytes_text(event.bytes);
  }
  speech.lines.push_back(words_for(work_).doing + " " + count_text(event.files, "file", "files") +
                         size);
}

void Narrator::on(const BytesArrived& event, Clock::TimePoint now, std::size_t columns,
                  Speech& speech) {
  progress_ = event;
  bytes_exact_ = event.bytes_exact;
  rate_.add(now, event.bytes_done);
  const bool tells_files = manner_.verbose && manner_.progress == ProgressStyle::kLog;
  if (tells_files) mark_files(now);
  if (manner_.progress == ProgressStyle::kBar && due(drew_bar_, now, kBarEvery)) {
    drew_bar_ = now;
    speech.bar = bar(columns);
  }
  if (manner_.progress != ProgressStyle::kLog) return;
  if (!said_progress_) {  // the first line comes after half a minute: a short run needs none
    said_progress_ = now;
  } else if (due(said_progress_, now, kLineEvery)) {
    said_progress_ = now;
    speech.lines.push_back(progress_line());
    if (!tells_files) return;
    for (const ArrivingFile& file : event.arriving) speech.lines.push_back(file_line(file, now));
    marks_.clear();
    mark_files(now);
  }
}

void Narrator::on(const LockWaited& event, Clock::TimePoint now, Speech& speech) {
  waiting_.insert(event.entry + "\n" + event.path);
  if (!manner_.verbose && !due(said_waiting_, now, kLineEvery)) return;
  said_waiting_ = now;
  speech.lines.push_back(wait_text(event, waiting_.size() - 1));
  waiting_.clear();
}

void Narrator::on(const Waiting& event, Clock::TimePoint now, Speech& speech) {
  if (!manner_.verbose && !due(said_other_waiting_, now, kLineEvery)) return;
  said_other_waiting_ = now;
  speech.lines.push_back(
      fmt::format("waiting for {}, for {} so far", event.what, duration_text(event.waited)));
}

// Of those that are new, of those that began again, and no longer of those that have ended.
void Narrator::mark_files(Clock::TimePoint now) {
  std::map<FileKey, Mark> marks;
  for (const ArrivingFile& file : progress_.arriving) {
    FileKey key(file.entry, file.path);
    const auto before = marks_.find(key);
    const bool keep = before != marks_.end() && before->second.bytes_done <= file.bytes_done;
    marks.emplace(std::move(key), keep ? before->second : Mark{now, file.bytes_done});
  }
  marks_ = std::move(marks);
}

Narrator::Totals Narrator::totals() const {
  Totals out;
  if (progress_.bytes_total == 0) {
    out.bytes = bytes_text(progress_.bytes_done);
  } else if (bytes_exact_) {
    out.bytes = bytes_of_text(progress_.bytes_done, progress_.bytes_total);
  } else {
    out.bytes = fmt::format("{} of at least {}", bytes_text(progress_.bytes_done),
                            bytes_text(progress_.bytes_total));
  }
  if (progress_.files_total > 1) {
    out.files = fmt::format("{} of {} files", progress_.files_done, progress_.files_total);
  }
  const auto rate = rate_.bytes_per_second();
  if (!rate) return out;
  out.rate = rate_text(*rate);
  if (bytes_exact_ && progress_.bytes_total > progress_.bytes_done) {
    out.left = left_text(progress_.bytes_total - progress_.bytes_done, *rate);
  }
  return out;
}

std::string Narrator::progress_line() const {
  const Totals said = totals();
  std::string out = words_for(work_).done + " ";
  if (bytes_exact_ && progress_.bytes_total > 0) {
    out += fmt::format("{} %, ", percent(progress_.bytes_done, progress_.bytes_total));
  }
  out += said.bytes;
  for (const std::string& field : {said.files, said.rate, said.left}) {
    if (!field.empty()) out += ", " + field;
  }
  if (retries_ > 0) out += ", " + count_text(retries_, "retry", "retries");
  return out;
}

std::string Narrator::file_line(const ArrivingFile& file, Clock::TimePoint now) const {
  std::string out = fmt::format("`{}`: {}, ", file.entry, file.path);
  out += file.bytes_total ? bytes_of_text(file.bytes_done, *file.bytes_total)
                          : bytes_text(file.bytes_done);
  const auto since = marks_.find(FileKey(file.entry, file.path));
  if (since == marks_.end()) return out;
  const std::chrono::duration<double> time = now - since->second.when;
  if (time < kLeastRateTime) return out;
  const double rate =
      static_cast<double>(file.bytes_done - since->second.bytes_done) / time.count();
  out += ", " + rate_text(rate);
  if (const std::string left = left_text(left_of(file), rate); !left.empty()) out += ", " + left;
  return out;
}

// The one with the most left to do, with what it has.
std::string Narrator::file_of_bar() {
  const auto& files = progress_.arriving;
  if (files.empty()) return "";
  const auto most = std::max_element(
      files.begin(), files.end(),
      [](const ArrivingFile& a, const ArrivingFile& b) { return has_more_left(b, a); });
  const auto shown = std::find_if(files.begin(), files.end(), [&](const ArrivingFile& file) {
    return in_bar_ == FileKey(file.entry, file.path);
  });
  const bool stays = shown != files.end() && static_cast<double>(left_of(*most)) <=
                                                 kMuchMore * static_cast<double>(left_of(*shown));
  const ArrivingFile& file = stays ? *shown : *most;
  in_bar_ = FileKey(file.entry, file.path);
  return short_name(file) + " " +
         (file.bytes_total ? fmt::format("{} %", percent(file.bytes_done, *file.bytes_total))
                           : bytes_text(file.bytes_done));
}

// Whole fields or none. Bytes that a percentage tells of already give way to the time left.
std::string Narrator::bar(std::size_t columns) {
  // The last column stays free: a character there makes some terminals wrap.
  const std::size_t room = columns > 1 ? columns - 1 : 0;
  const Totals said = totals();
  const bool has_end = bytes_exact_ && progress_.bytes_total > 0;
  const int done = has_end ? percent(progress_.bytes_done, progress_.bytes_total) : 0;

  std::array<std::string, 6> fields{has_end ? fmt::format("{:3}%", done) : said.bytes,
                                    has_end ? said.bytes : "",
                                    said.rate,
                                    said.left,
                                    said.files,
                                    file_of_bar()};
  constexpr std::array<std::size_t, 6> kByWeight{0, 2, 3, 1, 4, 5};
  std::size_t used = 0;
  bool fits = true;
  for (const std::size_t index : kByWeight) {
    std::string& field = fields[index];
    if (field.empty()) continue;
    const std::size_t more = field.size() + (used == 0 ? 0 : kBarGap.size());
    fits = fits && used + more <= room;
    if (fits) {
      used += more;
    } else {
      field.clear();
    }
  }

  const std::size_t drawing = kBarGap.size() + 2;  // "[" and "]"
  if (has_end && used + drawing + kLeastBar <= room) {
    const std::size_t width = std::min(room - used - drawing, kMostBar);
    const std::size_t filled = width * static_cast<std::size_t>(done) / 100;
    fields[0] += fmt::format("{}[{}{}]", kBarGap, std::string(filled, '='),
                             std::string(width - filled, ' '));
  }
  std::string text;
  for (const std::string& field : fields) {
    if (field.empty()) continue;
    if (!text.empty()) text += kBarGap;
    text += field;
  }
  return text;
}

Terminal probe_terminal(int fd, const EnvironmentLookup& env) {
  const auto set = [&](std::string_view name) {
    return env ? env(name).value_or("") : std::string();
  };
  Terminal terminal;
  const std::string term = set("TERM");
  terminal.interactive = ::isatty(fd) == 1 && !term.empty() && term != "dumb";
  terminal.color = terminal.interactive && set("NO_COLOR").empty();
  return terminal;
}

Console::Console(int fd, Terminal terminal, Manner manner, Clock& clock)
    : fd_(fd), terminal_(terminal), manner_(manner), clock_(clock), narrator_(manner) {}

Console::~Console() {
  clear_bar();
}

void Console::on_event(const Event& event) {
  const std::lock_guard lock(mutex_);
  const Narrator::Speech speech = narrator_.on_event(event, clock_.now(), columns());
  for (const std::string& text : speech.lines) {
    constexpr std::string_view kWarning = "warning: ";
    if (text.starts_with(kWarning)) {
      line(Tone::kWarning, kWarning, escaped(std::string_view(text).substr(kWarning.size())));
    } else {
      line(Tone::kPlain, "", escaped(text));
    }
  }
  if (speech.bar) draw(*speech.bar);
}

void Console::note(std::string_view text) {
  const std::lock_guard lock(mutex_);
  if (!manner_.quiet) line(Tone::kPlain, "", escaped(text));
}

void Console::speak_up() {
  const std::lock_guard lock(mutex_);
  if (!manner_.waits) return;  // --quiet, or it speaks already
  manner_.quiet = false;
  if (manner_.progress == ProgressStyle::kNone) manner_.progress = ProgressStyle::kLog;
  narrator_.set_manner(manner_);
}

void Console::failure(std::string_view text) {
  const std::lock_guard lock(mutex_);
  line(Tone::kPlain, "", escaped(text));
}

void Console::error(const Error& error) {
  const std::lock_guard lock(mutex_);
  // A manifest's mistakes stand each on a line; what is told of anything else is one.
  const std::string text = describe(error);
  line(Tone::kError,
       "error: ", error.code == ErrorCode::kUsage ? escaped_lines(text) : escaped(text));
  if (error.retry_after) {
    line(Tone::kHint, "hint: ",
         fmt::format("run the same command again in {}", duration_text(*error.retry_after)));
  } else if (const std::string_view remedy = hint(error); !remedy.empty()) {
    line(Tone::kHint, "hint: ", escaped(remedy));
  }
}

void Console::error_line(const Error& error, std::string_view who) {
  const std::lock_guard lock(mutex_);
  const std::string text = describe(error);
  line(Tone::kError,
       "error: ", escaped(fmt::format("{}: {}", who, text.substr(0, text.find('\n')))));
}

void Console::line(Tone tone, std::string_view label, std::string_view text) {
  clear_bar();
  constexpr std::string_view kReset = "\x1b[0m";
  const std::string_view color = tone == Tone::kError     ? "\x1b[31m"
                                 : tone == Tone::kWarning ? "\x1b[33m"
                                                          : "\x1b[36m";
  std::string out = tone == Tone::kHint ? "" : "fvprefetch: ";
  if (terminal_.color && !label.empty()) {
    out += std::string(color) + std::string(label) + std::string(kReset);
  } else {
    out += label;
  }
  out += text;
  out += '\n';
  (void)write_soon(fd_, out, tone == Tone::kError ? kErrorPatience : kLinePatience);
}

void Console::draw(const std::string& bar) {
  // Carriage return, text, erase to the end of the line.
  bar_shown_ = write_soon(fd_, "\r" + escaped(bar) + "\x1b[K", kBarPatience) || bar_shown_;
}

void Console::clear_bar() {
  const std::lock_guard lock(mutex_);
  if (!bar_shown_) return;
  (void)write_soon(fd_, "\r\x1b[K", kLinePatience);
  bar_shown_ = false;
}

std::size_t Console::columns() const {
  winsize size{};
  constexpr std::size_t kUsual = 80;
  if (!terminal_.interactive) return kUsual;
  return ::ioctl(fd_, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

}  // namespace fvprefetch::cli
