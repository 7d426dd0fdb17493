#include "transfer/engine.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "base/digest.h"
#include "base/try.h"
#include "base/url.h"
#include "transfer/retry.h"
#include "transfer/sniff.h"

namespace fvprefetch {
namespace {

using std::chrono::milliseconds;

// An answer that is no file is kept up to this for the words of its error.
constexpr std::size_t kMaxErrorBody = 64U << 10U;

// An attempt that brings a file further by this much shows that trying again is worth it: the count
// of its retries begins anew, or no long file would ever pass a connection that is cut each hour.
constexpr std::uint64_t kGoodPiece = 1U << 20U;

// The private file and the hash of what lies in it. Bytes are only ever appended, so that the hash
// keeps up and the file need not be read again. Removes the file unless it is handed out.
class Partial {
 public:
  explicit Partial(std::string path) : path_(std::move(path)) {}
  ~Partial() {
    if (fd_) (void)posix::remove_file(path_);  // best effort: pruning finds an orphan later
  }
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;

  // Makes the file, or empties it. `size` is that of the whole, where it is known.
  Status restart(Digest::Kind kind, std::optional<std::uint64_t> size) {
    forget();
    if (!fd_) {
      auto made = posix::create_private(path_);
      if (!made) return tl::unexpected(std::move(made).error());
      fd_ = *std::move(made);
    } else if (auto status = posix::truncate(fd_, 0, path_); !status) {
      return status;
    }
    kind_ = kind;
    // Git hashes the length before the first byte; where nobody told it the file is read at the
    // end.
    if (kind == Digest::Kind::kSha256 || size) hasher_.emplace(kind, size.value_or(0));
    return {};
  }

  Status append(std::span<const std::byte> data) {
    if (auto status = posix::write_at(fd_, size_, data, path_); !status) return status;
    if (hasher_) hasher_->update(data);
    size_ += data.size();
    return {};
  }

  // What lies there is of no use any more.
  void forget() {
    size_ = 0;
    hasher_.reset();
  }

  // Hex digest of the whole; call once.
  Result<std::string> hash() {
    if (!hasher_) {  // a small file of a Hub that told no size
      FVP_TRY(HashedFile hashed, hash_file(path_, kind_, {}));
      return std::move(hashed.hex);
    }
    return std::exchange(hasher_, std::nullopt)->finish();
  }

  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] posix::Fd hand_out() { return std::move(fd_); }

 private:
  std::string path_;
  posix::Fd fd_;
  std::uint64_t size_ = 0;
  Digest::Kind kind_ = Digest::Kind::kSha256;
  std::optional<Hasher> hasher_;
};

// "bytes 100-199/200"; `total` is empty for "*".
struct ContentRange {
  std::uint64_t first = 0;
  std::optional<std::uint64_t> total;
};

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc() || stopped != end) return std::nullopt;
  return value;
}

std::optional<ContentRange> content_range(std::string_view text) {
  constexpr std::string_view kUnit = "bytes ";
  if (!text.starts_with(kUnit)) return std::nullopt;
  text.remove_prefix(kUnit.size());
  const std::size_t dash = text.find('-');
  const std::size_t slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos) return std::nullopt;
  const auto first = number(text.substr(0, dash));
  const std::string_view total = text.substr(slash + 1);
  if (!first || (total != "*" && !number(total))) return std::nullopt;
  return ContentRange{*first, number(total)};
}

// An ETag that promises the same bytes; "W/..." promises only the same meaning.
bool is_strong(std::string_view etag) {
  return etag.size() >= 2 && etag.front() == '"' && etag.back() == '"';
}

std::string_view digest_name(Digest::Kind kind) {
  return kind == Digest::Kind::kSha256 ? "sha256" : "git object id";
}

// What an attempt came to.
struct Outcome {
  enum class Kind {
    kWhole,
    kAgain,        // transient
    kNextAddress,  // this address will not do
    kMismatch,     // what came is not the file
    kStop          // no address will do: the disk said no
  };
  Kind kind = Kind::kWhole;
  Error error;  // of all but kWhole
};

// One download over all its attempts: judges what comes and writes it down. When and where the next
// attempt is made is not decided here.
class File final : public BodySink {
 public:
  explicit File(Download download)
      : download_(std::move(download)), partial_(download_.partial), total_(spec().size) {}

  // --- the address ---

  [[nodiscard]] const std::string& address() const { return spec().urls[address_]; }
  [[nodiscard]] bool has_next_address() const { return address_ + 1 < spec().urls.size(); }
  void next_address() {
    ++address_;
    // Another server's ETag says little of these bytes: unless the digest will say the rest.
    if (!spec().digest) partial_.forget();
  }

  // --- one attempt ---

  // The request of the next attempt; it goes on where the last one ended when something is kept.
  Request begin(milliseconds stall_timeout) {
    phase_ = Phase::kHead;
    refusal_.reset();
    error_body_.clear();
    resumes_ = partial_.size() > 0;
    Request request;
    request.url = address();
    request.headers = download_.headers;
    request.credential = download_.credential;
    request.stall_timeout = stall_timeout;
    if (resumes_) {
      // If-Range: a file that has changed meanwhile comes whole, as a 200.
      request.headers.emplace_back("Range", "bytes=" + std::to_string(partial_.size()) + "-");
      request.headers.emplace_back("If-Range", etag_);
    }
    return request;
  }

  bool on_head(const ResponseHead& head) override {
    if (head.status < 200 || head.status > 299) {
      phase_ = Phase::kErrorBody;
      return true;
    }
    const std::string encoding = head.header("content-encoding");
    if (!encoding.empty() && encoding != "identity") {
      return refuse(mismatch("came encoded (" + encoding + "), which was not asked for"));
    }
    if (head.status == 206 && resumes_) return go_on(head);
    if (head.status != 200) {
      return refuse({Outcome::Kind::kNextAddress,
                     network_error("answered " + std::to_string(head.status) +
                                   " where 200 and the whole file were asked for")});
    }
    return start_over(head);
  }

  bool on_body(std::span<const std::byte> data) override {
    const auto* const text = reinterpret_cast<const char*>(data.data());
    switch (phase_) {
      case Phase::kHead:
        return false;  // a transport that breaks its contract
      case Phase::kErrorBody:
        error_body_.append(text, std::min(data.size(), kMaxErrorBody - error_body_.size()));
        return error_body_.size() < kMaxErrorBody;
      case Phase::kWrongSize:
        look_at(text, data.size());
        return beginning_.size() < kSniffBytes;
      case Phase::kFile:
        break;
    }
    bytes_received_ += data.size();
    if (spec().size && data.size() > *spec().size - partial_.size()) {
      return refuse(
          mismatch("has more than the expected " + std::to_string(*spec().size) + " bytes"));
    }
    if (partial_.size() < kSniffBytes) {
      look_at(text, data.size());
      if (beginning_.size() == kSniffBytes && is_unwelcome()) return refuse(mismatch({}));
    }
    if (auto status = partial_.append(data); !status) {
      return refuse({Outcome::Kind::kStop, std::move(status).error()});
    }
    return true;
  }

  // Judges the attempt that ended.
  Outcome conclude(const Completion& completion) {
    requests_ += completion.requests;
    Outcome outcome = judge(completion);
    switch (outcome.kind) {
      case Outcome::Kind::kWhole:
        break;
      case Outcome::Kind::kAgain:
        if (partial_.size() >= furthest_ + kGoodPiece) {
          furthest_ = partial_.size();
          retries = 0;
        }
        if (!is_strong(etag_)) partial_.forget();
        break;
      case Outcome::Kind::kMismatch:
        ++mismatches;
        partial_.forget();
        break;
      case Outcome::Kind::kNextAddress:
        if (!is_strong(etag_)) partial_.forget();
        break;
      case Outcome::Kind::kStop:
        partial_.forget();
        break;
    }
    return outcome;
  }

  // --- the end ---

  // After kWhole.
  Downloaded hand_out() {
    Downloaded downloaded;
    downloaded.size = partial_.size();
    downloaded.fd = partial_.hand_out();
    downloaded.sha256 = sha256_;
    downloaded.etag = etag_;
    downloaded.requests = requests_;
    downloaded.bytes_received = bytes_received_;
    return downloaded;
  }

  [[nodiscard]] Error network_error(const std::string& what) const {
    Error error;
    error.code = ErrorCode::kNetwork;
    error.subject = redact(address());
    error.message = error.subject + " " + what;
    return error;
  }

  [[nodiscard]] std::uint64_t bytes_there() const { return partial_.size(); }
  [[nodiscard]] std::optional<std::uint64_t> total() const { return total_; }
  [[nodiscard]] std::uint64_t requests() const { return requests_; }
  [[nodiscard]] std::uint64_t bytes_received() const { return bytes_received_; }

  // The scheduler's notes.
  std::optional<TransferId> transfer;  // runs
  Clock::TimePoint embargo{};          // else: not before
  int retries = 0;                     // of this address
  int mismatches = 0;                  // of all addresses
  std::vector<Error> given_up;         // one for each address

 private:
  enum class Phase {
    kHead,
    kErrorBody,  // words of an answer that is not the file
    kWrongSize,  // the length is wrong; a look at the body may tell why
    kFile
  };

  [[nodiscard]] const FileSpec& spec() const { return download_.spec; }
  [[nodiscard]] Digest::Kind digest_kind() const {
    return spec().digest ? spec().digest->kind : Digest::Kind::kSha256;
  }

  bool refuse(Outcome outcome) {
    refusal_ = std::move(outcome);
    return false;
  }

  // Without `what` the impostor is all there is to say.
  Outcome mismatch(const std::string& what) const {
    const Impostor impostor = sniff(beginning_);
    const std::string came(describe(impostor));
    Outcome outcome;
    outcome.kind = Outcome::Kind::kMismatch;
    outcome.error.code = ErrorCode::kIntegrity;
    outcome.error.subject = redact(address());
    outcome.error.hint = hint(impostor);
    outcome.error.message = outcome.error.subject;
    outcome.error.message += what.empty() ? ": " : " " + what + (came.empty() ? "" : "; ");
    outcome.error.message += came;
    return outcome;
  }

  Outcome wrong_size(std::uint64_t actual) const {
    return mismatch("has " + std::to_string(actual) + " bytes, expected " +
                    std::to_string(*spec().size));
  }

  bool start_over(const ResponseHead& head) {
    beginning_.clear();
    partial_.forget();
    etag_ = head.header("etag");
    const auto length = head.content_length();
    if (spec().size && length && *length != *spec().size) {
      // Told before a byte is written. A page in place of the file is the usual reason and has to
      // be named, so its beginning is let in (and, when it is shorter, its end is awaited).
      phase_ = Phase::kWrongSize;
      announced_ = *length;
      return true;
    }
    phase_ = Phase::kFile;
    total_ = spec().size ? spec().size : length;
    if (auto status = partial_.restart(digest_kind(), total_); !status) {
      return refuse({Outcome::Kind::kStop, std::move(status).error()});
    }
    return true;
  }

  bool go_on(const ResponseHead& head) {
    const auto range = content_range(head.header("content-range"));
    const std::string etag = head.header("etag");
    const bool fits = range && range->first == partial_.size() &&
                      (!range->total || !total_ || *range->total == *total_) &&
                      (etag.empty() || etag == etag_);
    if (!fits) {
      const std::uint64_t offset = partial_.size();
      partial_.forget();
      return refuse(
          {Outcome::Kind::kAgain, network_error("answered with `" + head.header("content-range") +
                                                "` where the bytes from " + std::to_string(offset) +
                                                " on were asked for")});
    }
    phase_ = Phase::kFile;
    return true;
  }

  void look_at(const char* text, std::size_t size) {
    beginning_.append(text, std::min(size, kSniffBytes - beginning_.size()));
  }

  // Where a digest is expected it decides alone.
  [[nodiscard]] bool is_unwelcome() const {
    return !spec().digest && !may_be(sniff(beginning_), spec().path);
  }

  Outcome judge(const Completion& completion) {
    if (phase_ == Phase::kWrongSize) return wrong_size(announced_);  // now with its beginning
    if (refusal_) return *std::exchange(refusal_, std::nullopt);

    const bool answered = completion.failure == TransportFailure::kNone ||
                          (completion.failure == TransportFailure::kRefusedBySink &&
                           phase_ == Phase::kErrorBody);  // we have read enough of it
    const retry::Attempt attempt{answered ? TransportFailure::kNone : completion.failure,
                                 completion.head.status, std::nullopt};
    switch (retry::classify(attempt)) {
      case retry::Verdict::kDone:
        return verify();
      case retry::Verdict::kAgain:
        return {Outcome::Kind::kAgain, explain(completion, answered)};
      case retry::Verdict::kNextMirror:
        if (completion.head.status == 416 && resumes_) {
          partial_.forget();  // there is less than we have: from the first byte
          return {Outcome::Kind::kAgain, explain(completion, answered)};
        }
        // The address that it led to was signed and is over: led there again, we get a new one.
        if (answered && is_refusal(completion.head.status) && is_elsewhere(completion.head)) {
          return {Outcome::Kind::kAgain, explain(completion, answered)};
        }
        return {Outcome::Kind::kNextAddress, explain(completion, answered)};
      case retry::Verdict::kStop:
        break;
    }
    return {Outcome::Kind::kStop, explain(completion, answered)};
  }

  static bool is_refusal(int status) {
    return status == 400 || status == 401 || status == 403 || status == 410;
  }

  // A redirect led to another server, whose words are not those of the one that was asked.
  [[nodiscard]] bool is_elsewhere(const ResponseHead& head) const {
    const auto asked = parse_url(address());
    const auto answered = parse_url(head.url);
    return asked && answered && asked->origin() != answered->origin();
  }

  Error explain(const Completion& completion, bool answered) const {
    if (!answered || !download_.explain || is_elsewhere(completion.head)) {
      Completion plain = completion;
      if (answered) plain.failure = TransportFailure::kNone;
      return retry::to_error(plain);
    }
    Error error = download_.explain(Response{completion.head, error_body_});
    if (!error.retry_after) error.retry_after = retry::wait_asked(completion.head);
    return error;
  }

  // All has come that will come.
  Outcome verify() {
    if (spec().size && partial_.size() != *spec().size) return wrong_size(partial_.size());
    if (is_unwelcome()) return mismatch({});
    auto actual = partial_.hash();
    if (!actual) return {Outcome::Kind::kStop, std::move(actual).error()};
    if (spec().digest && !agrees(*spec().digest, *actual)) {
      const std::string name(digest_name(digest_kind()));
      const bool prefix = spec().digest->hex.size() < actual->size();
      return mismatch("has " + name + " " + *actual + ", expected " +
                      (prefix ? "one that begins with " : "") + spec().digest->hex);
    }
    if (digest_kind() == Digest::Kind::kSha256) sha256_ = *actual;
    return {};
  }

  Download download_;
  Partial partial_;
  std::optional<std::uint64_t> total_;  // of the whole, as far as anybody told
  std::size_t address_ = 0;
  std::string etag_;  // of the bytes in partial_
  std::string sha256_;
  std::uint64_t furthest_ = 0;
  std::uint64_t requests_ = 0;
  std::uint64_t bytes_received_ = 0;

  // Of the attempt that runs.
  Phase phase_ = Phase::kHead;
  bool resumes_ = false;
  std::optional<Outcome> refusal_;
  std::uint64_t announced_ = 0;  // kWrongSize: by Content-Length
  std::string beginning_;        // the first bytes of the file, up to kSniffBytes
  std::string error_body_;
};

// The first address's error, with the others' behind it.
Error sum_up(std::vector<Error> given_up) {
  Error error = std::move(given_up.front());
  for (auto other = given_up.begin() + 1; other != given_up.end(); ++other) {
    error.message += "; then " + other->message;
  }
  return error;
}

}  // namespace

struct Engine::Impl {
  Impl(Transport& transport, Clock& clock, EngineOptions options, std::mt19937& random)
      : transport_(transport), clock_(clock), options_(options), random_(random) {}

  ~Impl() {
    // The transport outlives us and must not call sinks of ours.
    for (const auto& [id, file] : files_) {
      if (file->transfer) transport_.cancel(*file->transfer);
    }
  }

  // Begins what is due; files wait as a time in their notes, nobody sleeps for them.
  void start_due() {
    const Clock::TimePoint now = clock_.now();
    for (const auto& [id, file] : files_) {
      if (file->transfer || file->embargo > now) continue;
      file->transfer = transport_.start(file->begin(options_.stall_timeout), *file);
    }
  }

  [[nodiscard]] bool any_runs() const {
    return std::any_of(files_.begin(), files_.end(),
                       [](const auto& entry) { return entry.second->transfer.has_value(); });
  }

  // When a waiting file or the deadline wants attention; `until` at the latest.
  [[nodiscard]] Clock::TimePoint next_wake(Clock::TimePoint until) const {
    Clock::TimePoint wake = std::min(until, options_.deadline);
    for (const auto& [id, file] : files_) {
      if (!file->transfer) wake = std::min(wake, file->embargo);
    }
    return wake;
  }

  void settle(const Completion& completion) {
    const auto found = std::find_if(files_.begin(), files_.end(), [&](const auto& entry) {
      return entry.second->transfer == completion.id;
    });
    if (found == files_.end()) return;  // not ours
    const auto& [id, file] = *found;
    file->transfer.reset();
    Outcome outcome = file->conclude(completion);
    switch (outcome.kind) {
      case Outcome::Kind::kWhole:
        return finish(id, file->hand_out());
      case Outcome::Kind::kStop:
        return finish(id, tl::unexpected(std::move(outcome.error)));
      case Outcome::Kind::kNextAddress:
        return give_up_address(id, std::move(outcome.error));
      case Outcome::Kind::kMismatch: {
        // Once more from somewhere else, or else from the same place: bits flip on the way, too.
        const bool once_more = !file->has_next_address() && file->mismatches == 1;
        if (once_more && wait(id, retry::delay(1, std::nullopt, random_), outcome.error)) return;
        return give_up_address(id, std::move(outcome.error));
      }
      case Outcome::Kind::kAgain: {
        const bool once_more = ++file->retries <= options_.retries;
        if (once_more && wait(id, retry::delay(file->retries, outcome.error.retry_after, random_),
                              outcome.error)) {
          return;
        }
        return give_up_address(id, std::move(outcome.error));
      }
    }
  }

  // False when the deadline comes before the end of the wait.
  bool wait(DownloadId id, milliseconds delay, const Error& why) {
    const Clock::TimePoint now = clock_.now();
    if (delay >= options_.deadline - now) return false;
    files_.at(id)->embargo = now + delay;
    retried_.push_back({id, why.message, delay});
    return true;
  }

  void give_up_address(DownloadId id, Error error) {
    File& file = *files_.at(id);
    file.given_up.push_back(std::move(error));
    if (file.has_next_address()) {
      file.next_address();
      file.retries = 0;
      if (wait(id, milliseconds(0), file.given_up.back())) return;
    }
    finish(id, tl::unexpected(sum_up(std::move(file.given_up))));
  }

  // Ends everything when the deadline is over. (What waits never waits beyond it.)
  void end_overdue() {
    if (clock_.now() < options_.deadline) return;
    while (!files_.empty()) {
      const auto& [id, file] = *files_.begin();
      if (file->transfer) transport_.cancel(*file->transfer);
      Error error = file->network_error(
          "was not there when the deadline came: " + std::to_string(file->bytes_there()) + " of " +
          (file->total() ? std::to_string(*file->total()) : "?") + " bytes");
      error.hint = "raise --deadline";
      finish(id, tl::unexpected(std::move(error)));
    }
  }

  void finish(DownloadId id, Result<Downloaded> result) {
    const auto found = files_.find(id);
    const File& file = *found->second;
    if (result) finished_bytes_ += result->size;
    Finished finished;
    finished.id = id;
    finished.requests = file.requests();
    finished.bytes_received = file.bytes_received();
    finished.result = std::move(result);
    finished_.push_back(std::move(finished));
    files_.erase(found);  // removes the partial unless it was handed out
  }

  Transport& transport_;
  Clock& clock_;
  EngineOptions options_;
  std::mt19937& random_;
  DownloadId next_ = 1;
  std::map<DownloadId, std::unique_ptr<File>> files_;  // not yet finished
  std::vector<Finished> finished_;
  std::vector<Retried> retried_;
  std::uint64_t finished_bytes_ = 0;
};

Engine::Engine(Transport& transport, Clock& clock, EngineOptions options, std::mt19937& random)
    : impl_(std::make_unique<Impl>(transport, clock, options, random)) {}

Engine::~Engine() = default;

DownloadId Engine::add(Download download) {
  const DownloadId id = impl_->next_++;
  const bool has_address = !download.spec.urls.empty();
  const std::string path = download.spec.path;
  impl_->files_.emplace(id, std::make_unique<File>(std::move(download)));
  if (!has_address) {
    impl_->finish(id, fail(ErrorCode::kInternal, "no address to fetch " + path + " from"));
  }
  return id;
}

void Engine::cancel(DownloadId id) {
  const auto found = impl_->files_.find(id);
  if (found == impl_->files_.end()) return;
  if (found->second->transfer) impl_->transport_.cancel(*found->second->transfer);
  impl_->files_.erase(found);
}

std::vector<Finished> Engine::poll(Clock::TimePoint until, const std::stop_token& stop) {
  const std::size_t retried_before = impl_->retried_.size();
  for (;;) {
    impl_->end_overdue();
    const bool something = !impl_->finished_.empty() || impl_->retried_.size() > retried_before;
    if (something || impl_->files_.empty() || stop.stop_requested()) break;
    impl_->start_due();
    const Clock::TimePoint wake = impl_->next_wake(until);
    if (impl_->any_runs()) {
      for (const Completion& completion : impl_->transport_.poll(wake, stop)) {
        impl_->settle(completion);
      }
    } else {
      impl_->clock_.sleep_until(wake, stop);
    }
    if (impl_->clock_.now() >= until) break;
  }
  return std::exchange(impl_->finished_, {});
}

std::vector<Retried> Engine::take_retried() {
  return std::exchange(impl_->retried_, {});
}

std::size_t Engine::active() const {
  return impl_->files_.size() + impl_->finished_.size();
}

std::uint64_t Engine::bytes_done() const {
  std::uint64_t bytes = impl_->finished_bytes_;
  for (const auto& [id, file] : impl_->files_) bytes += file->bytes_there();
  return bytes;
}

std::optional<std::uint64_t> Engine::size_of(DownloadId id) const {
  const auto found = impl_->files_.find(id);
  return found == impl_->files_.end() ? std::nullopt : found->second->total();
}

}  // namespace fvprefetch
