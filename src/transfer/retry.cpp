#include "transfer/retry.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/url.h"

namespace fvprefetch::retry {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// No server means more than this; it also keeps arithmetic on time points far from overflow.
constexpr seconds kLongestWait = std::chrono::hours(24 * 7);

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

// The part of `text` before `separator`, which is taken off it.
std::string_view take(std::string_view& text, char separator) {
  const std::size_t end = text.find(separator);
  const std::string_view part = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return trim(part);
}

std::optional<int> number(std::string_view text) {
  int value = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || stopped != end || value < 0) return std::nullopt;
  if (error == std::errc::result_out_of_range) return std::numeric_limits<int>::max();
  if (error != std::errc()) return std::nullopt;
  return value;
}

seconds bounded(seconds wait) {
  return std::clamp(wait, seconds(0), kLongestWait);
}

// Seconds; of "1.5" the next whole one.
std::optional<seconds> whole_seconds(std::string_view text) {
  const std::size_t point = text.find('.');
  const auto whole = number(text.substr(0, point));
  if (!whole || point == std::string_view::npos) {
    return whole ? std::optional(bounded(seconds(*whole))) : std::nullopt;
  }
  if (!number(text.substr(point + 1))) return std::nullopt;
  return bounded(seconds(*whole) + seconds(1));
}

// What a RateLimit header says of the limits of which nothing is left.
struct Exhausted {
  bool any = false;
  std::optional<seconds> wait;  // the longest
};

// `"api";r=0;t=55`, possibly several with commas between, or the older draft's single limit:
// `limit=10, remaining=0, reset=55`.
Exhausted exhausted(std::string_view header) {
  Exhausted found;
  const bool old = header.find("remaining=") != std::string_view::npos;
  while (!header.empty()) {
    std::string_view policy = old ? std::exchange(header, {}) : take(header, ',');
    std::optional<int> remaining;
    std::optional<int> reset;
    while (!policy.empty()) {
      const std::string_view parameter = take(policy, old ? ',' : ';');
      const std::string_view value = parameter.substr(parameter.find('=') + 1);
      if (parameter.starts_with("r=") || parameter.starts_with("remaining=")) {
        remaining = number(value);
      }
      if (parameter.starts_with("t=") || parameter.starts_with("reset=")) reset = number(value);
    }
    if (remaining != 0) continue;
    found.any = true;
    if (reset) found.wait = std::max(found.wait.value_or(seconds(0)), bounded(seconds(*reset)));
  }
  return found;
}

// Of the older headers for the same: "X-RateLimit-Remaining: 0", also of several limits ("0, 0").
bool nothing_remains(const ResponseHead& head) {
  for (const char* const name :
       {"x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining"}) {
    const std::string text = head.headers_of(name);
    for (std::string_view left = text; !left.empty();) {
      if (number(take(left, ',')) == 0) return true;
    }
  }
  return false;
}

// The three forms of RFC 9110: "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"
// and "Sun Nov  6 08:49:37 1994". By hand, since strptime reads months in the locale's language.
std::optional<std::chrono::sys_seconds> http_date(std::string_view text) {
  constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  // Its words: day of the week, then day, month, year and time in the order of the form.
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const std::size_t end = text.find_first_of(" ,-");
    if (end != 0) words.push_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  const bool asctime = words.size() == 5;
  if (!asctime && (words.size() != 6 || words[5] != "GMT")) return std::nullopt;
  const auto month = std::find(kMonths.begin(), kMonths.end(), words[asctime ? 1 : 2]);
  const auto day = number(words[asctime ? 2 : 1]);
  auto year = number(words[asctime ? 4 : 3]);
  const std::string_view time = words[asctime ? 3 : 4];
  if (time.size() != 8) return std::nullopt;
  const auto hour = number(time.substr(0, 2));
  const auto minute = number(time.substr(3, 2));
  const auto second = number(time.substr(6, 2));
  if (month == kMonths.end() || !day || !year || !hour || !minute || !second) return std::nullopt;
  if (*year > 9999 || *day > 31) return std::nullopt;
  if (*year < 100) *year += *year < 70 ? 2000 : 1900;
  const std::chrono::year_month_day date{
      std::chrono::year(*year),
      std::chrono::month(static_cast<unsigned>(month - kMonths.begin() + 1)),
      std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok() || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  return std::chrono::sys_days(date) + std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
         seconds(*second);
}

// "RateLimit-Reset: 55", or "X-RateLimit-Reset: 1790000000": some count seconds, some tell the
// time.
std::optional<seconds> reset_wait(const ResponseHead& head,
                                  std::optional<std::chrono::sys_seconds> now) {
  constexpr seconds kTimes = std::chrono::hours(24 * 365);  // nobody is sent away for that long
  for (const char* const name : {"ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset"}) {
    const auto reset = number(trim(head.header(name)));
    if (!reset || *reset == std::numeric_limits<int>::max()) continue;
    if (seconds(*reset) < kTimes) return bounded(seconds(*reset));
    if (now) return bounded(seconds(*reset) - now->time_since_epoch());
  }
  return std::nullopt;
}

// HTTP/1.1 servers send any words; ours are the same for all.
std::string status_text(int status) {
  struct Row {
    int status;
    std::string_view text;
  };
  constexpr std::array kRows = {
      Row{300, "Multiple Choices"},
      Row{304, "Not Modified"},
      Row{400, "Bad Request"},
      Row{401, "Unauthorized"},
      Row{403, "Forbidden"},
      Row{404, "Not Found"},
      Row{407, "Proxy Authentication Required"},
      Row{408, "Request Timeout"},
      Row{410, "Gone"},
      Row{416, "Range Not Satisfiable"},
      Row{420, "Enhance Your Calm"},
      Row{425, "Too Early"},
      Row{429, "Too Many Requests"},
      Row{451, "Unavailable For Legal Reasons"},
      Row{500, "Internal Server Error"},
      Row{501, "Not Implemented"},
      Row{502, "Bad Gateway"},
      Row{503, "Service Unavailable"},
      Row{504, "Gateway Timeout"},
  };
  const auto* const row = std::find_if(kRows.begin(), kRows.end(),
                                       [status](const Row& r) { return r.status == status; });
  return std::to_string(status) + (row == kRows.end() ? "" : " " + std::string(row->text));
}

ErrorCode code_of(const ResponseHead& head) {
  if (is_rate_limit(head)) return ErrorCode::kRateLimited;
  switch (head.status) {
    case 401:
    case 403:
      return ErrorCode::kAccess;
    case 404:
    case 410:
      return ErrorCode::kNotFound;
    default:
      return ErrorCode::kNetwork;
  }
}

ErrorCode code_of(TransportFailure failure) {
  switch (failure) {
    case TransportFailure::kUrl:
      return ErrorCode::kUsage;
    case TransportFailure::kDescriptors:
      return ErrorCode::kNoSpace;  // as of any other file
    default:
      return ErrorCode::kNetwork;
  }
}

std::string_view hint_of(TransportFailure failure) {
  switch (failure) {
    case TransportFailure::kResolve:
      return "check the host name; a node without DNS needs https_proxy";
    case TransportFailure::kTls:
      return "point SSL_CERT_FILE to the certificate bundle of this site";
    case TransportFailure::kProxy:
      return "check https_proxy, http_proxy, all_proxy and no_proxy, and the user and password "
             "there";
    case TransportFailure::kDescriptors:
      return kDescriptorHint;
    default:
      return {};
  }
}

std::string_view reason_of(TransportFailure failure) {
  switch (failure) {
    case TransportFailure::kResolve:
    case TransportFailure::kConnect:
    case TransportFailure::kTls:
    case TransportFailure::kStalled:
      return kUnreachable;
    case TransportFailure::kProxy:
      return kProxyFailed;
    case TransportFailure::kDescriptors:
      return kTooManyOpenFiles;
    default:
      return {};
  }
}

}  // namespace

Verdict classify(const Attempt& attempt) {
  switch (attempt.failure) {
    case TransportFailure::kNone:
      break;
    case TransportFailure::kResolve:
    case TransportFailure::kConnect:
    case TransportFailure::kProxy:
    case TransportFailure::kDescriptors:
    case TransportFailure::kStalled:
    case TransportFailure::kCut:
      return Verdict::kAgain;
    case TransportFailure::kTls:
    case TransportFailure::kProtocol:
    case TransportFailure::kUrl:
      return Verdict::kNextMirror;
    case TransportFailure::kRefusedBySink:
      return Verdict::kStop;
  }
  const int status = attempt.status;
  if (status >= 200 && status < 300) return Verdict::kDone;
  if (attempt.rate_limited || status == 408 || status == 425 || status == 429) {
    return Verdict::kAgain;
  }
  if (status == 501 || status == 505) return Verdict::kNextMirror;
  return status >= 500 && status < 600 ? Verdict::kAgain : Verdict::kNextMirror;
}

bool is_rate_limit(const ResponseHead& head) {
  if (head.status == 429) return true;
  return (head.status == 403 || head.status == 420) &&
         (!trim(head.header("retry-after")).empty() ||
          exhausted(head.headers_of("ratelimit")).any || nothing_remains(head));
}

std::optional<seconds> wait_asked(const ResponseHead& head) {
  if (const auto wait = exhausted(head.headers_of("ratelimit")).wait) return wait;

  const std::string text = head.header("retry-after");
  const std::string_view asked = trim(text);
  if (const auto after = whole_seconds(asked)) return after;
  // Two times of one clock, the server's, where it tells both: ours may be hours off.
  const auto at = http_date(asked);
  const auto now = http_date(head.header("date"));
  const auto ours = std::chrono::time_point_cast<seconds>(std::chrono::system_clock::now());
  if (at) return bounded(*at - now.value_or(ours));
  return nothing_remains(head) ? reset_wait(head, now) : std::nullopt;
}

milliseconds delay(int retry, std::optional<seconds> retry_after, std::mt19937& random) {
  constexpr milliseconds kFirst(500);
  constexpr milliseconds kLongest(30'000);
  constexpr int kDoublings = 6;  // 0.5 s * 2^6 is beyond the longest
  const milliseconds full =
      std::min(kFirst * (1 << std::clamp(retry - 1, 0, kDoublings)), kLongest);
  std::uniform_int_distribution<milliseconds::rep> jitter(full.count() / 2, full.count());
  return retry_after.value_or(seconds(0)) + milliseconds(jitter(random));
}

Error to_error(const Completion& completion) {
  const std::string address = redact(completion.head.url);
  Error error;
  error.subject = address;
  if (completion.failure == TransportFailure::kNone) {
    error.code = code_of(completion.head);
    error.message = status_text(completion.head.status) + " from " + address;
    error.retry_after = wait_asked(completion.head);
    error.reason = std::string(kHttpStatus) + std::to_string(completion.head.status);
    if (error.code == ErrorCode::kNotFound) {
      error.hint = "check the address; `mirrors` may name others of the same file";
    }
    if (error.code == ErrorCode::kAccess) {
      error.hint =
          "plain addresses are asked for without credentials: check the address, add a mirror, or "
          "name the Hub repository as source if it lies there";
    }
    if (completion.head.status == 407) {
      error.hint = hint_of(TransportFailure::kProxy);
      error.reason = kProxyFailed;
    }
    if (completion.head.status >= 500) {
      error.hint = "the server is in trouble: run the same command again later";
    }
  } else {
    error.code = code_of(completion.failure);
    error.message = "cannot fetch " + address + ": " + completion.detail;
    error.hint = hint_of(completion.failure);
    error.reason = reason_of(completion.failure);
  }
  return error;
}

}  // namespace fvprefetch::retry
