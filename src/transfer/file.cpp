#include "transfer/file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "base/ascii.h"
#include "base/digest.h"
#include "base/posix.h"
#include "base/url.h"
#include "transfer/retry.h"
#include "transfer/sniff.h"

namespace fvprefetch::engine {
namespace {

using std::chrono::milliseconds;

// An answer that is no file is kept up to this for the words of its error.
constexpr std::size_t kMaxErrorBody = 64U << 10U;

// An attempt that brings a file further by this much shows that trying again is worth it: the count
// of its retries begins anew, or no long file would ever pass a connection that is cut each hour.
constexpr std::uint64_t kGoodPiece = 64U << 10U;

// A content delivery network may refuse to send a very large file at once (the Hub's from some 400
// GB on, with a 400), and sends the same file in ranges.
constexpr std::uint64_t kLargestAnswer = std::uint64_t{4} << 30U;

// So much of a file, or what takes so long, is worth a connection of its own: the first bytes of
// one cost a handshake, at the Hub a redirect as well, and the time that it takes to come up to
// speed.
constexpr std::uint64_t kWorthAConnection = 1U << 20U;
constexpr double kSecondsWorthAConnection = 0.1;
// A smaller file comes over one, however slowly: what is on its way when an answer is cut short
// comes twice, and of a small file that is much.
constexpr std::uint64_t kWorthSeveral = 8U << 20U;

// A server that had too many connections is asked for one more after so much.
constexpr std::uint64_t kWorthAnotherTry = 64U << 20U;

// More than this is sent over a connection of its own.
constexpr std::uint64_t kSmallBody = 1U << 20U;

// "bytes 100-199/200"; `total` is empty for "*".
struct ContentRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
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
  if (dash == std::string_view::npos || slash == std::string_view::npos || slash < dash) {
    return std::nullopt;
  }
  const auto first = number(text.substr(0, dash));
  const auto last = number(text.substr(dash + 1, slash - dash - 1));
  const std::string_view total = text.substr(slash + 1);
  if (!first || !last || *last < *first || *last == kNoEnd) return std::nullopt;
  if (total != "*" && !number(total)) return std::nullopt;
  return ContentRange{*first, *last, number(total)};
}

// What codings a list names beside "identity", which is none.
std::vector<std::string> codings(std::string list) {
  std::vector<std::string> named;
  list = lower(std::move(list));
  for (std::size_t begin = 0; begin < list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    std::string one = list.substr(begin, end - begin);
    std::erase_if(one, [](char c) { return c == ' ' || c == '\t'; });
    if (!one.empty() && one != "identity") named.push_back(std::move(one));
    begin = end + 1;
  }
  return named;
}

// A file of this name is in this coding by itself: stock servers send x.tar.gz with
// `Content-Encoding: x-gzip` and mean the file as it lies there.
bool is_own_coding(std::string coding, const std::string& name) {
  struct Row {
    std::string_view coding;
    std::string_view suffix;
  };
  constexpr std::array kRows = {
      Row{"gzip", ".gz"},    Row{"gzip", ".tgz"}, Row{"bzip2", ".bz2"}, Row{"bzip2", ".tbz2"},
      Row{"xz", ".xz"},      Row{"xz", ".txz"},   Row{"zstd", ".zst"},  Row{"zstd", ".tzst"},
      Row{"compress", ".z"}, Row{"br", ".br"},    Row{"lz4", ".lz4"},   Row{"lzma", ".lzma"},
  };
  if (coding.starts_with("x-")) coding.erase(0, 2);
  const std::string text = lower(name);
  return std::any_of(kRows.begin(), kRows.end(), [&](const Row& row) {
    return coding == row.coding && text.ends_with(row.suffix);
  });
}

bool is_refusal(int status) {
  return status == 400 || status == 401 || status == 403 || status == 410;
}

std::string_view digest_name(Digest::Kind kind) {
  return kind == Digest::Kind::kSha256 ? "sha256" : "git object id";
}

}  // namespace

bool Stream::on_head(const ResponseHead& head) {
  return file_.on_head(*this, head);
}
bool Stream::on_body(const BodyPiece& piece) {
  return file_.on_body(*this, piece);
}

File::File(Download download, Partial::Workers workers, Clock& clock)
    : others(std::move(download.others)),
      download_(std::move(download)),
      partial_({download_.partial, download_.journal}, download_.spec, workers, clock),
      clock_(clock) {
  if (!spec().urls.empty()) origin_ = origin_of(address());
}

void File::go_to(std::size_t address_number) {
  address_ = address_number;
  origin_ = origin_of(address());
  serves_ranges_ = false;
  one_by_one_ = false;
  from_ranges_ = false;
  whole_only_ = false;
  asked_whole_ = false;
  has_sent_ranges_ = false;
  had_several_ = false;
  most_ = kNoLimit;
  led_to_.clear();
  // Another server's ETag says little of these bytes: unless the digest will say the rest.
  if (!spec().digest) partial_.forget();
}

bool File::come_back() {
  if (!postponed_ || last_round_) return false;
  last_round_ = true;
  go_to(*postponed_);
  return true;
}

void File::give_up(Error error) {
  if (given_up.size() <= address_) return given_up.push_back(std::move(error));
  given_up[address_] = std::move(error);
}

// --- streams -------------------------------------------------------------------------------------

std::vector<Range> File::busy() const {
  std::vector<Range> busy;
  for (const auto& stream : streams_) busy.push_back(stream->piece_);
  return busy;
}

void File::open() {
  streams_.push_back(std::make_unique<Stream>(*this, Range{0, total().value_or(kNoEnd)}));
}

bool File::open_another() {
  // Who has more than a piece leaves the rest to the others.
  for (const auto& stream : streams_) {
    Range& piece = stream->piece_;
    if (piece.size() > shares_.piece && piece.size() - shares_.piece > shares_.smallest) {
      piece.end = piece.begin + shares_.piece;
    }
  }
  const auto share = next_share(partial_.done(), *total(), busy(), shares_);
  if (!share) return false;
  if (share->taken_from) streams_[*share->taken_from]->piece_.end = share->range.begin;
  streams_.push_back(std::make_unique<Stream>(*this, share->range));
  had_several_ = true;
  return true;
}

bool File::give_more(Stream& stream) {
  std::vector<Range> others_busy;
  std::vector<Stream*> owners;
  for (const auto& other : streams_) {
    if (other.get() == &stream) continue;
    others_busy.push_back(other->piece_);
    owners.push_back(other.get());
  }
  ShareSizes sizes = alone() ? ShareSizes{} : shares_;
  if (!serves_ranges_) sizes.smallest = kNoEnd / 2;  // nothing is divided
  const auto share = next_share(partial_.done(), total().value_or(kNoEnd), others_busy, sizes);
  if (!share) return false;
  if (share->taken_from) owners[*share->taken_from]->piece_.end = share->range.begin;
  stream.piece_ = share->range;
  return true;
}

void File::close(const Stream& stream) {
  std::erase_if(streams_, [&](const auto& one) { return one.get() == &stream; });
}

void File::one_by_one() {
  one_by_one_ = true;
  serves_ranges_ = false;
  restore_whole();
}

bool File::ask_whole(const Stream& stream, const Outcome& outcome) {
  if (!stream.ranged_ || !outcome.refused() || asked_whole_) return false;
  if (has_next_address() && spec().digest) {  // which may go on where this one ended
    postpone();
    return false;
  }
  asked_whole_ = true;
  whole_only();
  return true;
}

void File::whole_only() {
  whole_only_ = true;
  one_by_one();
}

void File::restore_whole() {
  for (const auto& stream : streams_) {
    if (!stream->ranged_ && stream->phase_ == Stream::Phase::kFile) {
      stream->piece_.end = std::max(stream->piece_.end, stream->served_to_);
    }
  }
}

void File::at_most(int streams) {
  most_ = std::max(1, streams);
  one_more_at_ = bytes_there() + kWorthAnotherTry;
}

int File::most(std::optional<double> rate_of_one) const {
  const int now = static_cast<int>(streams_.size());
  if (!serves_ranges_ || !partial_.begun() || !total() || !partial_.resumable() || !rate_of_one ||
      *total() < kWorthSeveral) {
    return now;
  }
  const double worth =
      std::max(static_cast<double>(kWorthAConnection), *rate_of_one * kSecondsWorthAConnection);
  const double shares = static_cast<double>(*total() - bytes_there()) / worth;
  return std::max(now, std::min(most_, static_cast<int>(std::min(shares, 1000.0))));
}

bool File::may_grow() const {
  if (!alone()) return true;
  const bool unanswered = !streams_.empty() && !streams_.front()->delivers_;
  return !one_by_one_ && (serves_ranges_ || unanswered) &&
         total().value_or(kNoEnd) >= kWorthSeveral;
}

Request File::begin(Stream& stream, milliseconds stall_timeout) {
  stream.phase_ = Stream::Phase::kHead;
  stream.refusal_.reset();
  stream.enough_ = false;
  stream.begun_ = clock_.now();
  stream.error_body_.clear();
  const std::uint64_t end = total().value_or(kNoEnd);
  if (whole_only_) {  // what is there is written over when the whole comes, and not before
    stream.piece_ = {0, end};
  } else if (alone()) {  // it may have been left with anything
    const auto missing = partial_.done().missing({0, end});
    stream.piece_ = missing.empty() ? Range{0, end} : missing.front();
    from_ranges_ = from_ranges_ || (total() && *total() > kLargestAnswer);
  }
  stream.ranged_ = !whole_only_ && (partial_.done().bytes() > 0 || !alone() || from_ranges_);
  // Pieces of one file are known to be that by the digest, or by the validator.
  if (stream.ranged_ && total() && (spec().digest || (partial_.begun() && partial_.resumable()))) {
    stream.piece_.end = std::min(stream.piece_.end, stream.piece_.begin + kLargestAnswer);
  }
  stream.served_to_ = stream.piece_.end;
  ++requests_;
  Request request;
  // One file, one time to be led: a Hub counts its answers, and they cost the time of two.
  stream.led_ = stream.ranged_ && !led_to_.empty();
  request.url = stream.led_ ? led_to_ : address();
  request.headers = download_.headers;
  request.credential = download_.credential;
  request.stall_timeout = stall_timeout;
  if (has_next_address()) request.patience = kPatience;
  // Should HTTP/2 be what failed, it is not tried again.
  request.small = !stream.ranged_ && stream.retries == 0 && total().value_or(kNoEnd) <= kSmallBody;
  if (stream.ranged_) {
    std::string range = "bytes=" + std::to_string(stream.piece_.begin) + "-";
    if (stream.piece_.end < end) range += std::to_string(stream.piece_.end - 1);
    request.headers.emplace_back("Range", std::move(range));
    // A file that has changed meanwhile comes whole, as a 200. Where a digest decides it is not
    // asked so: each node of a content delivery network may have an ETag of its own.
    if (!spec().digest && is_strong(partial_.etag()) && partial_.came_from(address())) {
      request.headers.emplace_back("If-Range", partial_.etag());
    }
  }
  return request;
}

// --- what comes ----------------------------------------------------------------------------------

bool File::refuse(Stream& stream, Outcome outcome) {
  stream.refusal_ = std::move(outcome);
  return false;
}

bool File::on_head(Stream& stream, const ResponseHead& head) {
  if (head.status < 200 || head.status > 299) {
    stream.phase_ = Stream::Phase::kErrorBody;
    return true;
  }
  stream.latency_ = clock_.now() - stream.begun_;
  if (stream.piece_.begin == 0) content_type_ = head.header("content-type");
  // A node that was asked without what led to it may send something else.
  if (stream.led_ && head.status != 206) {
    return refuse(stream, {Outcome::Kind::kAskAnew, network_error("does not send a range again")});
  }
  if (is_elsewhere(head) && !head.by_cookies) led_to_ = head.url;
  if (auto refusal = refusal_of_coding(head)) return refuse(stream, *std::move(refusal));
  if (head.status == 206 && stream.ranged_) return go_on(stream, head);
  const bool all = is_all(head);
  if (head.status != 200 && !all && !(head.status == 203 && pinned())) {
    return refuse(stream, not_sent("answered " + std::to_string(head.status) +
                                   " where 200 and the whole file were asked for"));
  }
  if (!alone()) {
    return refuse(stream,
                  {Outcome::Kind::kNoRange,
                   network_error("answered with the whole file where a range was asked for")});
  }
  const std::string length = head.header("content-length");
  if (!pinned() && !all && !length.empty() && !head.content_length() &&
      head.header("transfer-encoding").empty()) {
    return refuse(stream, not_sent("told a length that is no number (" + length +
                                   "): where the file ends cannot be known"));
  }
  return start_over(stream, head, head.content_length());
}

// A 206 with the whole file. A total that is not told is left to the digest or the size.
bool File::is_all(const ResponseHead& head) const {
  const std::string told = head.header("content-range");
  if (head.status != 206 || told.empty()) return head.status == 206 && pinned();
  const auto range = content_range(told);
  return range && range->first == 0 && (range->total ? *range->total == range->last + 1 : pinned());
}

// A coding that was not asked for. With a digest or a size at hand it is only remembered, for the
// error that may come of it: the bytes decide.
std::optional<Outcome> File::refusal_of_coding(const ResponseHead& head) {
  const std::string coding = head.headers_of("content-encoding");
  const auto named = codings(coding);
  const bool coded = !named.empty();
  label_ = coded ? "`Content-Encoding: " + coding + "`" : "";
  if (head.status == 203) label_ = "the status 203 (changed by a proxy)";
  const auto url = parse_url(address());
  const bool own = named.size() == 1 && (is_own_coding(named.front(), spec().path) ||
                                         (url && is_own_coding(named.front(), url->path)));
  if (!coded || pinned() || own) {
    return std::nullopt;
  }
  Outcome outcome = mismatch("came with " + label_ + ", which was not asked for");
  outcome.error.hint =
      "the server, or a proxy before it, encodes what it sends or says so wrongly: with `sha256` "
      "or `size` in the manifest the bytes decide";
  return outcome;
}

Outcome File::not_sent(const std::string& what) const {
  Error error = network_error(what);
  error.hint =
      "the server, or a proxy or firewall before it, does not send the file: open the address in a "
      "browser; `mirrors` may name another";
  return {Outcome::Kind::kNextAddress, std::move(error)};
}

bool File::start_over(Stream& stream, const ResponseHead& head,
                      std::optional<std::uint64_t> length) {
  beginning_.clear();
  partial_.forget();
  if (spec().size && length && *length != *spec().size) {
    // Told before a byte is written. A page in place of the file is the usual reason and has to
    // be named, so its beginning is let in (and, when it is shorter, its end is awaited).
    stream.phase_ = Stream::Phase::kWrongSize;
    stream.announced_ = *length;
    return true;
  }
  stream.phase_ = Stream::Phase::kFile;
  stream.ranged_ = false;
  size_was_told_ = true;
  const auto size = spec().size ? spec().size : length;
  stream.piece_ = {0, size.value_or(kNoEnd)};
  stream.served_to_ = stream.piece_.end;
  stream.begun_at_ = 0;
  serves_ranges_ = !one_by_one_ && (head.status == 206 || head.header("accept-ranges") == "bytes");
  return begin_with(stream, head, size);
}

bool File::begin_with(Stream& stream, const ResponseHead& head, std::optional<std::uint64_t> size) {
  if (download_.space_check && !spec().size && size) {
    const std::string place = posix::parent(download_.partial);
    const auto free = posix::free_bytes(place);
    if (free && *free < *size) {
      const std::string needs = spec().path + " has " + std::to_string(*size) + " bytes";
      return refuse(stream, {Outcome::Kind::kStop, does_not_fit(needs, place, *free)});
    }
  }
  if (auto status = partial_.restart(address(), head.header("etag"), size); !status) {
    return refuse(stream, {Outcome::Kind::kStop, std::move(status).error()});
  }
  return true;
}

bool File::go_on(Stream& stream, const ResponseHead& head) {
  const auto range = content_range(head.header("content-range"));
  const bool other_size = range && range->total && spec().size && *range->total != *spec().size;
  const bool all = range && range->first == 0 && range->total == range->last + 1;
  if (!partial_.begun() && (all || other_size)) return start_over(stream, head, range->total);
  // Without a word of where its bytes belong: all that was asked for from the first one on.
  if (!partial_.begun() && alone() && head.header("content-range").empty() && is_all(head) &&
      stream.piece_.begin == 0 && head.content_length().value_or(0) == stream.piece_.end) {
    return start_over(stream, head, head.content_length());
  }
  const std::string etag = head.header("etag");
  // The digest tells whether it is the same file, and says so of all nodes of a network.
  const bool same = spec().digest || !partial_.begun() || etag.empty() || etag == partial_.etag() ||
                    !partial_.came_from(address());
  const bool fits = same && range && range->first == stream.piece_.begin &&
                    range->last < stream.served_to_ &&
                    (!range->total || *range->total > range->last) &&
                    (!range->total || !total() || *range->total == *total());
  if (!fits) {
    Error error =
        network_error("answered with `" + head.header("content-range") + "` where the bytes from " +
                      std::to_string(stream.piece_.begin) + " on were asked for");
    if (!alone()) return refuse(stream, {Outcome::Kind::kNoRange, std::move(error)});
    partial_.forget();
    return refuse(stream, {Outcome::Kind::kAgain, std::move(error)});
  }
  if (!partial_.begun()) {
    const auto size = range->total ? range->total : total();
    if (!begin_with(stream, head, size)) return false;
  }
  if (range->total && !total()) partial_.set_total(*range->total);
  if (total()) stream.piece_.end = std::min(stream.piece_.end, *total());
  stream.begun_at_ = range->first;
  stream.served_to_ = range->last + 1;
  stream.phase_ = Stream::Phase::kFile;
  serves_ranges_ = !one_by_one_;
  has_sent_ranges_ = true;
  return true;
}

bool File::on_body(Stream& stream, const BodyPiece& body) {
  const std::span<const std::byte> data = body.data;
  const auto* const text = reinterpret_cast<const char*>(data.data());
  switch (stream.phase_) {
    case Stream::Phase::kHead:
      return false;  // a transport that breaks its contract
    case Stream::Phase::kErrorBody: {
      std::string& words = stream.error_body_;
      words.append(text, std::min(data.size(), kMaxErrorBody - words.size()));
      return words.size() < kMaxErrorBody;
    }
    case Stream::Phase::kWrongSize:
      look_at(text, data.size());
      return beginning_.size() < kSniffBytes;
    case Stream::Phase::kFile:
      break;
  }
  bytes_received_ += data.size();
  stream.delivers_ = true;
  return write(stream, body);
}

bool File::write(Stream& stream, BodyPiece body) {
  Range& piece = stream.piece_;
  if (body.data.size() > piece.end - piece.begin) {
    if (!stream.ranged_ && spec().size == piece.end) {
      return refuse(stream, mismatch("has more than the expected " + std::to_string(*spec().size) +
                                     " bytes"));
    }
    body = body.part(0, piece.end - piece.begin);  // the rest is another stream's
  }
  const std::span<const std::byte> data = body.data;
  if (piece.begin == beginning_.size() && piece.begin < kSniffBytes) {
    look_at(reinterpret_cast<const char*>(data.data()), data.size());
    if (beginning_.size() == kSniffBytes && is_unwelcome()) return refuse(stream, mismatch({}));
  }
  // A byte that is there stays: the digest may have passed it.
  for (const Range& range : partial_.done().missing({piece.begin, piece.begin + data.size()})) {
    auto status = partial_.write(range.begin, body.part(range.begin - piece.begin, range.size()));
    if (!status) return refuse(stream, {Outcome::Kind::kStop, std::move(status).error()});
  }
  piece.begin += data.size();
  stream.brought_ += data.size();
  if (stream.brought_ >= kGoodPiece && bytes_there() > furthest_) {  // not the same bytes again
    furthest_ = bytes_there();
    stream.brought_ = 0;
    stream.retries = 0;
    if (most_ < kNoLimit && bytes_there() >= one_more_at_) at_most(most_ + 1);
  }
  // Its end was given to another stream. (One that ends by itself leaves its connection to the
  // next request.)
  stream.enough_ = piece.begin == piece.end ? piece.end < stream.served_to_ : complete();
  return !stream.enough_;
}

// --- judging -------------------------------------------------------------------------------------

Outcome File::conclude(Stream& stream, const Completion& completion) {
  requests_ += completion.requests - 1;  // begin() has counted one
  Outcome outcome = judge(stream, completion);
  stream.phase_ = Stream::Phase::kHead;
  const bool right = outcome.kind == Outcome::Kind::kWhole || outcome.kind == Outcome::Kind::kMore;
  if (!right) led_to_.clear();
  if (!alone()) return outcome;
  switch (outcome.kind) {
    case Outcome::Kind::kWhole:
    case Outcome::Kind::kMore:
      break;
    case Outcome::Kind::kAgain:
    case Outcome::Kind::kAskAnew:
    case Outcome::Kind::kNextAddress:
    case Outcome::Kind::kNoRange:
      if (!partial_.resumable()) partial_.forget();
      break;
    case Outcome::Kind::kStop:
      if (outcome.error.code == ErrorCode::kNoSpace && partial_.resumable()) break;
      partial_.forget();
      break;
    case Outcome::Kind::kMismatch:
      break;  // the engine's to judge: what an earlier run left may be the reason
  }
  return outcome;
}

Outcome File::judge(Stream& stream, const Completion& completion) {
  if (stream.phase_ == Stream::Phase::kWrongSize) {
    return wrong_size(stream.announced_);  // now with its beginning
  }
  if (stream.refusal_) return *std::exchange(stream.refusal_, std::nullopt);
  const bool is_file = stream.phase_ == Stream::Phase::kFile;
  // However the connection ended then.
  if (is_file && (stream.enough_ || stream.piece_.begin == stream.piece_.end)) return {};

  const bool answered = completion.failure == TransportFailure::kNone ||
                        (completion.failure == TransportFailure::kRefusedBySink &&
                         stream.phase_ == Stream::Phase::kErrorBody);  // we have read enough of it
  const int status = completion.head.status;
  const retry::Attempt attempt{answered ? TransportFailure::kNone : completion.failure, status,
                               answered && retry::is_rate_limit(completion.head)};
  switch (retry::classify(attempt)) {
    case retry::Verdict::kDone:
      // Only the end of a whole answer is the end of the file: a range may be shorter than asked.
      if (!stream.ranged_) {
        if (stream.piece_.end != kNoEnd) return wrong_size(stream.piece_.begin);
        size_was_told_ = spec().size || total() || !completion.head.ends_with_connection;
        partial_.set_total(stream.piece_.begin);
        return {};
      }
      if (stream.piece_.begin > stream.begun_at_ && partial_.resumable()) {
        return {Outcome::Kind::kMore, {}};
      }
      return {Outcome::Kind::kAgain, network_error("ended before the range that was asked for did"),
              status};
    case retry::Verdict::kAgain:
      return {Outcome::Kind::kAgain, explain(stream, completion, answered), answered ? status : 0,
              completion.failure == TransportFailure::kCut && status == 0};
    case retry::Verdict::kNextMirror:
      // The address that was remembered was signed and is over, or whatever else.
      if (stream.led_) {
        return {Outcome::Kind::kAskAnew, explain(stream, completion, answered), status};
      }
      // Too large to be sent at once; it is asked for in ranges.
      if (status == 400 && !stream.ranged_ && !asked_whole_ &&
          (!std::exchange(from_ranges_, true) || whole_only_)) {
        whole_only_ = false;
        asked_whole_ = true;
        return {Outcome::Kind::kAskAnew, explain(stream, completion, answered), status};
      }
      if (status == 416 && stream.ranged_ && alone()) {
        if (auto outcome = judge_refused_range(stream, completion.head)) return *outcome;
        return {Outcome::Kind::kAgain, explain(stream, completion, answered), status};
      }
      // The address that it led to was signed and is over: led there again, we get a new one.
      if (answered && is_refusal(status) && is_elsewhere(completion.head)) {
        return {Outcome::Kind::kAgain, explain(stream, completion, answered), status};
      }
      return {Outcome::Kind::kNextAddress, explain(stream, completion, answered), status};
    case retry::Verdict::kStop:
      break;
  }
  return {Outcome::Kind::kStop, explain(stream, completion, answered)};
}

// A 416: nothing lies behind what is there, or there is less. Without a value: all is asked anew.
std::optional<Outcome> File::judge_refused_range(Stream& stream, const ResponseHead& head) {
  constexpr std::string_view kUnit = "bytes */";
  const std::string text = head.header("content-range");
  const auto size =
      text.starts_with(kUnit) ? number(std::string_view(text).substr(kUnit.size())) : std::nullopt;
  from_ranges_ = false;
  const std::uint64_t there = partial_.done().bytes();
  if (size && there == *size && partial_.done().front() == there &&
      (!total() || *total() == *size)) {
    if (!partial_.begun() && !begin_with(stream, head, size)) {
      return std::exchange(stream.refusal_, std::nullopt);
    }
    partial_.set_total(*size);
    return Outcome{};
  }
  partial_.forget();
  return std::nullopt;
}

Error File::network_error(const std::string& what) const {
  Error error;
  error.code = ErrorCode::kNetwork;
  error.subject = redact(address());
  error.message = error.subject + " " + what;
  return error;
}

// Without `what` the impostor is all there is to say.
Outcome File::mismatch(const std::string& what) const {
  // A look at no byte tells nothing, unless that is all there was.
  const bool seen = what.empty() || !beginning_.empty();
  const Impostor impostor = seen ? this->impostor() : Impostor::kNone;
  std::string came = describe(impostor, beginning_);
  if (!came.empty()) came += " came in place of the file";
  Outcome outcome;
  outcome.kind = Outcome::Kind::kMismatch;
  outcome.error.code = ErrorCode::kIntegrity;
  outcome.error.subject = redact(address());
  outcome.error.hint = hint(impostor, address());
  outcome.error.message = outcome.error.subject;
  outcome.error.message += what.empty() ? ": " : " " + what + (came.empty() ? "" : "; ");
  outcome.error.message += came;
  if (!label_.empty() && pinned()) outcome.error.message += "; it was sent with " + label_;
  return outcome;
}

Outcome File::wrong_size(std::uint64_t actual) const {
  return mismatch("has " + std::to_string(actual) + " bytes, expected " +
                  std::to_string(spec().size ? *spec().size : total().value_or(0)));
}

void File::look_at(const char* text, std::size_t size) {
  beginning_.append(text, std::min(size, kSniffBytes - beginning_.size()));
}

// What its beginning shows, where that cannot be the file.
Impostor File::impostor() const {
  const Wanted wanted =
      download_.binary ? Wanted::kWeights : wanted_as(spec().path, spec().urls.front());
  const Impostor impostor = sniff(beginning_, content_type_);
  return may_be(impostor, wanted) ? Impostor::kNone : impostor;
}

// Where a digest is expected it decides alone.
bool File::is_unwelcome() const {
  return !spec().digest && impostor() != Impostor::kNone;
}

// A redirect led to another server, whose words are not those of the one that was asked.
bool File::is_elsewhere(const ResponseHead& head) const {
  if (head.url == address()) return false;
  const auto asked = parse_url(address());
  const auto answered = parse_url(head.url);
  return asked && answered && asked->origin() != answered->origin();
}

Error File::explain(const Stream& stream, const Completion& completion, bool answered) const {
  if (!answered || !download_.explain || is_elsewhere(completion.head)) {
    Completion plain = completion;
    if (answered) plain.failure = TransportFailure::kNone;
    return retry::to_error(plain);
  }
  Error error = download_.explain(Response{completion.head, stream.error_body_});
  if (!error.retry_after) error.retry_after = retry::wait_asked(completion.head);
  return error;
}

// --- the end -------------------------------------------------------------------------------------

bool File::complete() const {
  return total() && !partial_.copying() && partial_.begun() &&
         (*total() == 0 || partial_.done().has({0, *total()}));
}

std::optional<Outcome> File::verify() {
  const std::uint64_t size = *total();
  if (spec().size && size != *spec().size) return wrong_size(size);
  if (beginning_.size() < kSniffBytes) beginning_ = partial_.beginning(kSniffBytes);
  if (is_unwelcome()) return mismatch({});
  auto actual = partial_.digest(size);
  if (!actual) return std::nullopt;
  if (!*actual) return Outcome{Outcome::Kind::kStop, std::move(*actual).error()};
  if (spec().digest && !agrees(*spec().digest, **actual)) {
    const std::string name(digest_name(digest_kind()));
    const bool prefix = spec().digest->hex.size() < (*actual)->size();
    return mismatch("has " + name + " " + **actual + ", expected " +
                    (prefix ? "one that begins with " : "") + spec().digest->hex);
  }
  if (digest_kind() == Digest::Kind::kSha256) sha256_ = **actual;
  return Outcome{};
}

Downloaded File::hand_out() {
  Downloaded downloaded;
  downloaded.size = *total();
  downloaded.fd = partial_.hand_out();
  downloaded.sha256 = sha256_;
  downloaded.etag = partial_.etag();
  downloaded.requests = requests_;
  downloaded.bytes_received = bytes_received_;
  downloaded.resumed = partial_.adopted();
  downloaded.size_was_told = size_was_told_;
  downloaded.has_journal = partial_.recorded();
  return downloaded;
}

}  // namespace fvprefetch::engine
