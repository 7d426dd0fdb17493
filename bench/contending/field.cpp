#include "field.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/posix.h"
#include "base/try.h"
#include "contender.h"
#include "operations.h"

namespace fvprefetch::contending {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;
// Until everybody has the task in hand.
constexpr std::int64_t kLead = 30 * kMillisecond;

std::int64_t integer(const std::string& text) {
  return std::atoll(text.c_str());
}

void add_calls(std::vector<std::string>& lines, const std::map<std::string, int>& calls) {
  for (const auto& [name, count] : calls) {
    lines.push_back("calls " + name + " " + std::to_string(count));
  }
}

// One line of a contender, on rank 0's clock.
void digest(std::istringstream words, Outcome& outcome) {
  int who = 0;
  std::string verb;
  words >> who >> verb;
  if (verb == "had") {
    std::int64_t have = 0;
    std::int64_t published = 0;
    words >> have >> published;
    outcome.had.push_back(have);
    if (published != 0) {
      ++outcome.publications;
      outcome.published =
          outcome.published == 0 ? published : std::min(outcome.published, published);
    }
  } else if (verb == "turn") {
    Turn turn;
    turn.who = who;
    words >> turn.wanted >> turn.got >> turn.left;
    outcome.turns.push_back(turn);
  } else if (verb == "cpu") {
    std::int64_t ns = 0;
    words >> ns;
    outcome.cpu_s[who] = static_cast<double>(ns) / 1e9;
  } else if (verb == "calls") {
    std::string name;
    int count = 0;
    words >> name >> count;
    outcome.calls[name] += count;
    outcome.calls_of[who] += count;
  } else if (verb == "error") {
    std::string text;
    std::getline(words >> std::ws, text);
    outcome.errors.push_back(text);
  }
}

}  // namespace

Field::Field(Collective& ranks, MPI_Comm comm, std::string scratch, Caps caps)
    : ranks_(ranks), comm_(comm), scratch_(std::move(scratch)), caps_(caps) {
  if (auto told = ranks_.broadcast(scratch_)) scratch_ = *told;
  // Slots: the first rank of each node, then the second of each ...
  if (const auto nodes = ranks_.all_gather(ranks_.node())) {
    std::map<std::string, int> seen;
    std::map<std::string, int> order;
    std::vector<std::pair<std::pair<int, int>, int>> slots;
    for (std::size_t i = 0; i < nodes->size(); ++i) {
      const std::string& node = (*nodes)[i];
      const int number = order.try_emplace(node, static_cast<int>(order.size())).first->second;
      slots.push_back({{seen[node]++, number}, static_cast<int>(i)});
    }
    std::sort(slots.begin(), slots.end());
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (slots[i].second == ranks_.rank()) slot_ = static_cast<int>(i);
    }
  }
  set_clock();
}

int Field::share_of(int n) const {
  const int size = ranks_.size();
  return n / size + (slot_ < n % size ? 1 : 0);
}

void Field::set_clock() {
  offset_ = measure_offset(comm_);
  // As whole microseconds, rounded up, since that is what max() takes.
  const auto largest = ranks_.max(static_cast<int>((offset_.error + 999) / 1000));
  clock_error_ = std::int64_t{largest.value_or(0)} * 1000;
}

Result<std::optional<Field::Begin>> Field::begin(const Task& task, std::int64_t case_end) {
  std::string text;
  Begin begin;
  begin.folder = scratch_ + "/" + std::to_string(++number_);
  const std::int64_t now = now_ns();
  const bool capped = now >= caps_.end || now >= case_end || acquisitions_ >= caps_.acquisitions;
  if (first() && !capped && !stopping()) {
    FVP_CHECK_OK(posix::make_directories(begin.folder));
    if (task.warm) {
      FVP_CHECK_OK(
          posix::replace_text(begin.folder + "/temporary", begin.folder + "/file", "weights"));
    }
    text = std::to_string(now_ns() + kLead);
  }
  FVP_TRY(text, ranks_.broadcast(text));
  if (text.empty()) return std::nullopt;
  begin.start = integer(text);
  return begin;
}

std::string Field::on_first_clock(int who, const std::string& line) const {
  std::istringstream words(line);
  std::string verb;
  words >> verb;
  std::string text = std::to_string(who) + " " + verb;
  if (verb != "had" && verb != "turn") return std::to_string(who) + " " + line;
  for (std::int64_t time = 0; words >> time;) {
    text += " " + std::to_string(time == 0 ? 0 : time + offset_.ns);
  }
  return text;
}

Result<Outcome> Field::gather(const Begin& begin, const std::vector<std::string>& lines,
                              const Task& task) {
  std::string mine;
  for (const std::string& line : lines) mine += line + "\n";
  FVP_TRY(const std::vector<std::string> all, ranks_.all_gather(mine));
  Outcome outcome;
  outcome.done = true;
  outcome.start = begin.start;
  outcome.clock_error = 2 * clock_error_;  // of two ranks' times that are compared
  for (const std::string& text : all) {
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) digest(std::istringstream(line), outcome);
  }
  acquisitions_ += static_cast<std::int64_t>(outcome.turns.size() + outcome.had.size());
  if (first()) {
    if (task.verb == "turns") {
      long counted = 0;
      std::ifstream(begin.folder + "/count") >> counted;
      outcome.counted = counted;
    }
    std::error_code ignored;  // scratch is removed in the end
    std::filesystem::remove_all(begin.folder, ignored);
  }
  return outcome;
}

Result<Outcome> Field::run(Crew& crew, const Task& task, std::int64_t case_end) {
  FVP_TRY(const auto begun, begin(task, case_end));
  if (!begun) return Outcome{};
  std::optional<OperationCount> operations;
  std::int64_t start = begun->start - offset_.ns;
  std::vector<std::string> lines;
  if (task.count_operations) {
    // To attach takes as long as it takes; all begin when all are ready.
    operations.emplace(crew.pids(), posix::parent(scratch_) + "/" + ".fvp-strace." +
                                        std::to_string(ranks_.rank()));
    FVP_CHECK_OK(ranks_.quiet_wait());
    FVP_TRY(const std::string text, ranks_.broadcast(std::to_string(now_ns() + kLead)));
    start = integer(text) - offset_.ns;
    if (crew.size() > 0 && !operations->attached()) lines.push_back("0 error no strace");
  }
  const std::int64_t deadline = start + task.limit;
  for (int i = 0; i < crew.size(); ++i) {
    const int who = slot_ + i * ranks_.size();
    const bool holds_first = task.first_holds > 0 && who == 0;
    const std::int64_t delay = task.first_holds > 0 && !holds_first ? 50 * kMillisecond : 0;
    std::string text = task.verb + " " + task.primitive + " " + std::to_string(start + delay) +
                       " " + std::to_string(deadline);
    if (task.verb == "turns") {
      text += " " + std::to_string(task.count) + " " +
              std::to_string(holds_first ? task.first_holds : task.hold);
    }
    crew.tell(i, text + " " + begun->folder);
  }
  const std::vector<Answer> answers = crew.answers(deadline + 5'000 * kMillisecond);
  for (int i = 0; i < crew.size(); ++i) {
    const int who = slot_ + i * ranks_.size();
    const Answer& answer = answers[static_cast<std::size_t>(i)];
    for (const std::string& line : answer.lines) lines.push_back(on_first_clock(who, line));
    lines.push_back(std::to_string(who) + " cpu " + std::to_string(answer.cpu));
    if (answer.late) lines.push_back(std::to_string(who) + " error no answer in time");
  }
  if (operations) {
    std::vector<std::string> calls;
    add_calls(calls, operations->end(begun->folder));
    for (const std::string& line : calls) {
      lines.push_back(std::to_string(ranks_.rank()) + " " + line);
    }
  }
  return gather(*begun, lines, task);
}

Result<Outcome> Field::run(const Part& part, const Task& task, std::int64_t case_end) {
  FVP_TRY(const auto begun, begin(task, case_end));
  if (!begun) return Outcome{};
  std::vector<std::string> lines;
  if (part) {
    for (const std::string& line : part(begun->folder, begun->start - offset_.ns)) {
      lines.push_back(on_first_clock(ranks_.rank(), line));
    }
  }
  return gather(*begun, lines, task);
}

}  // namespace fvprefetch::contending
