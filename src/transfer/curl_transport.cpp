#include "transfer/curl_transport.h"

#include <curl/curl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <exception>
#include <map>
#include <mutex>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "base/ascii.h"
#include "base/posix.h"
#include "transfer/rate_bucket.h"

namespace fvprefetch {
namespace {

// How long a stop may go unnoticed.
constexpr std::chrono::milliseconds kSlice(100);

// More header than any server sends; without a bound a hostile one could fill the memory. (Newer
// versions of libcurl stop at 300 KB, and would call it a receive error.)
constexpr std::size_t kMaxHeadBytes = 256U << 10U;

// libcurl's largest receive buffer that is still a good cache citizen: fewer, larger writes.
constexpr long kReceiveBuffer = 256L << 10U;
// It is made anew for each request; of this size malloc has it at hand.
constexpr long kSmallReceiveBuffer = 32L << 10U;
// libcurl hands a body over by 16 KiB. Whoever writes it down pays for each piece by a system call,
// which is dearer than copying it once more.
constexpr std::size_t kDelivery = 256U << 10U;

// So many deliveries may be kept by those who got them: 8 MiB, however many transfers there are.
constexpr std::size_t kMostKept = 32;

using Block = std::vector<std::byte>;

/// Room for deliveries, used again and again. It comes back on any thread, and may do so after the
/// transport is gone.
class Blocks : public std::enable_shared_from_this<Blocks> {
 public:
  /// A block on loan: it comes back when nobody holds this any more.
  class Loan {
   public:
    Loan(std::shared_ptr<Blocks> owner, Block block)
        : owner_(std::move(owner)), block_(std::move(block)) {}
    ~Loan() { owner_->take_back(std::move(block_)); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    [[nodiscard]] std::span<const std::byte> data() const { return block_; }

   private:
    std::shared_ptr<Blocks> owner_;
    Block block_;
  };

  /// An empty one, with room for a delivery.
  [[nodiscard]] Block get() {
    Block block;
    {
      const std::lock_guard guard(mutex_);
      if (!spare_.empty()) {
        block = std::move(spare_.back());
        spare_.pop_back();
      }
    }
    block.reserve(kDelivery);
    return block;
  }

  [[nodiscard]] std::shared_ptr<const Loan> lend(Block block) {
    auto loan = std::make_shared<const Loan>(shared_from_this(), std::move(block));
    const std::lock_guard guard(mutex_);
    ++lent_;
    return loan;
  }

  /// Who gets what is lent may keep it.
  [[nodiscard]] bool may_be_kept() {
    const std::lock_guard guard(mutex_);
    return lent_ <= kMostKept;
  }

 private:
  void take_back(Block block) {
    block.clear();
    const std::lock_guard guard(mutex_);
    --lent_;
    if (spare_.size() < kMostKept) spare_.push_back(std::move(block));
  }

  std::mutex mutex_;  // guards what follows
  std::vector<Block> spare_;
  std::size_t lent_ = 0;
};

struct EasyDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct MultiDeleter {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct ShareDeleter {
  void operator()(CURLSH* share) const { curl_share_cleanup(share); }
};
struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Easy = std::unique_ptr<CURL, EasyDeleter>;
using Multi = std::unique_ptr<CURLM, MultiDeleter>;
using Share = std::unique_ptr<CURLSH, ShareDeleter>;
using List = std::unique_ptr<curl_slist, ListDeleter>;

template <typename Handle>
Handle made(Handle handle) {
  if (handle == nullptr) throw std::bad_alloc();
  return handle;
}

void check(CURLMcode code) {
  if (code != CURLM_OK) throw std::runtime_error(curl_multi_strerror(code));
}

template <typename Value>
void set(const Easy& easy, CURLoption option, Value value) {
  const CURLcode code = curl_easy_setopt(easy.get(), option, value);
  if (code == CURLE_OUT_OF_MEMORY) throw std::bad_alloc();
  if (code != CURLE_OK) throw std::logic_error(curl_easy_strerror(code));
}

void append(List& list, const std::string& line) {
  curl_slist* const longer = made(curl_slist_append(list.get(), line.c_str()));
  (void)list.release();  // libcurl's list has taken it over
  list.reset(longer);
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

// Assembles a ResponseHead from the lines that libcurl hands over one by one.
class HeadParser {
 public:
  enum class Line { kMore, kComplete, kTooLong };

  Line feed(std::string_view line, ResponseHead& head) {
    bytes_ += line.size();
    if (bytes_ > kMaxHeadBytes) return Line::kTooLong;
    if (line.starts_with("HTTP/")) {  // also: the real answer after a 1xx
      head.headers.clear();
      head.status = status_of(line);
      frames_ = !line.starts_with("HTTP/1.");
    } else if (trim(line).empty()) {
      head.ends_with_connection = !frames_ && !head.content_length() &&
                                  !lower(head.headers_of("transfer-encoding")).ends_with("chunked");
      return head.status >= 200 ? Line::kComplete : Line::kMore;
    } else if ((line.front() == ' ' || line.front() == '\t') && !head.headers.empty()) {
      head.headers.back().second.append(" ").append(trim(line));  // an old-style folded value
    } else if (const std::size_t colon = line.find(':'); colon != std::string_view::npos) {
      head.headers.emplace_back(lower(std::string(trim(line.substr(0, colon)))),
                                trim(line.substr(colon + 1)));
    }
    return Line::kMore;
  }

 private:
  static int status_of(std::string_view line) {
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos) return 0;
    const std::string_view digits = line.substr(space + 1, 3);
    int status = 0;
    (void)std::from_chars(digits.data(), digits.data() + digits.size(), status);
    return status;
  }

  std::size_t bytes_ = 0;
  bool frames_ = false;  // HTTP/2 and later tell where a body ends
};

struct Transfer {
  Transfer(TransferId transfer_id, const Request& request, BodySink& transfer_sink,
           Blocks& transfer_blocks)
      : id(transfer_id),
        sink(transfer_sink),
        blocks(transfer_blocks),
        stall_timeout(request.stall_timeout) {
    head.url = request.url;
  }

  TransferId id;
  BodySink& sink;
  Blocks& blocks;
  std::chrono::milliseconds stall_timeout;
  Clock::TimePoint last_byte = real_clock().now();
  // The body that came since `slow_since`, to tell a server that only pretends to send.
  Clock::TimePoint slow_since{};
  std::uint64_t slow_bytes = 0;
  RateBucket* bucket = nullptr;  // of all transfers
  bool paused = false;           // until the bucket has something again
  ResponseHead head;
  HeadParser parser;
  bool head_delivered = false;
  bool head_too_long = false;
  bool refused = false;
  int no_socket = 0;          // EMFILE or ENFILE
  std::exception_ptr thrown;  // by the sink; goes on from poll(), outside of libcurl's C frames
  std::array<char, CURL_ERROR_SIZE> words{};
  Block undelivered;  // of the body, in this turn of the loop
  List headers;
  Easy easy;  // last: goes first, since it points to all of the above
};

// Runs what a callback does; false ends the transfer. libcurl is C: nothing may be thrown through
// it, so an exception is parked.
template <typename F>
bool callback(Transfer& transfer, F&& consume) noexcept {
  try {
    const bool go_on = consume();
    // After the sink's work, not before: a slow disk is not a silent server.
    transfer.last_byte = real_clock().now();
    return go_on;
  } catch (...) {
    transfer.thrown = std::current_exception();
    return false;
  }
}

// What libcurl is answered: fewer than `bytes` ends the transfer.
std::size_t answer(bool go_on, std::size_t bytes) {
  return go_on ? bytes : 0;
}

std::size_t on_header(char* data, std::size_t size, std::size_t count, void* user) noexcept {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::size_t bytes = size * count;
  transfer.slow_bytes += bytes;
  const bool go_on = callback(transfer, [&] {
    if (transfer.head_delivered) return true;  // a trailer after a chunked body
    switch (transfer.parser.feed({data, bytes}, transfer.head)) {
      case HeadParser::Line::kMore:
        return true;
      case HeadParser::Line::kTooLong:
        transfer.head_too_long = true;
        return false;
      case HeadParser::Line::kComplete:
        break;
    }
    transfer.head_delivered = true;
    transfer.refused = !transfer.sink.on_head(transfer.head);
    return !transfer.refused;
  });
  return answer(go_on, bytes);
}

bool deliver(Transfer& transfer, const BodyPiece& piece) {
  transfer.refused = !transfer.sink.on_body(piece);
  return !transfer.refused;
}

bool deliver_collected(Transfer& transfer) {
  const auto loan = transfer.blocks.lend(std::exchange(transfer.undelivered, {}));
  return deliver(transfer, {loan->data(), transfer.blocks.may_be_kept() ? loan : nullptr});
}

bool take(Transfer& transfer, std::span<const std::byte> piece) {
  Block& collected = transfer.undelivered;
  if (collected.empty()) {
    // All that was read: there is nothing to put it together with.
    if (piece.size() < CURL_MAX_WRITE_SIZE) return deliver(transfer, {piece, nullptr});
    collected = transfer.blocks.get();
  }
  collected.insert(collected.end(), piece.begin(), piece.end());
  return collected.size() + CURL_MAX_WRITE_SIZE <= kDelivery || deliver_collected(transfer);
}

std::size_t on_body(char* data, std::size_t size, std::size_t count, void* user) noexcept {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::size_t bytes = size * count;
  if (bytes == 0) return 0;  // an empty body is no event; 0 of 0 bytes means well
  if (transfer.bucket != nullptr) {
    // libcurl keeps these bytes and reads no more.
    if (transfer.bucket->exhausted()) {
      transfer.paused = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    transfer.bucket->take(bytes);
  }
  transfer.slow_bytes += bytes;
  const auto piece = std::as_bytes(std::span(data, bytes));
  return answer(callback(transfer, [&] { return take(transfer, piece); }), bytes);
}

// As libcurl itself does; it does not tell why there is none.
curl_socket_t open_socket(void* user, curlsocktype /*purpose*/, curl_sockaddr* address) noexcept {
  const int socket = ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (socket < 0 && (errno == EMFILE || errno == ENFILE)) {
    static_cast<Transfer*>(user)->no_socket = errno;
  }
  return socket;
}

TransportFailure failure_of(CURLcode code, const Transfer& transfer) {
  if (transfer.refused) return TransportFailure::kRefusedBySink;
  if (transfer.head_too_long) return TransportFailure::kProtocol;
  switch (code) {
    case CURLE_OK:
      // libcurl does not complain of a head that ends before its empty line.
      return transfer.head_delivered ? TransportFailure::kNone : TransportFailure::kCut;
    case CURLE_COULDNT_RESOLVE_HOST:
      return TransportFailure::kResolve;
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:  // the only time limit that libcurl is given is on connecting
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_INTERFACE_FAILED:
      return TransportFailure::kConnect;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
      return TransportFailure::kTls;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_PROXY:
      return TransportFailure::kProxy;
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR: {
      // "CONNECT tunnel failed, response 407" is a receive error in libcurl's table.
      long connect_status = 0;
      (void)curl_easy_getinfo(transfer.easy.get(), CURLINFO_HTTP_CONNECTCODE, &connect_status);
      return connect_status >= 300 ? TransportFailure::kProxy : TransportFailure::kCut;
    }
    default:
      return TransportFailure::kProtocol;
  }
}

std::string detail_of(CURLcode code, const Transfer& transfer) {
  if (transfer.head_too_long) return "the head of the answer is too long";
  if (code == CURLE_OK && !transfer.head_delivered) {
    return "the connection ended before the head of the answer did";
  }
  const std::string words(transfer.words.data());
  // Some of libcurl's sentences quote the proxy's address, password and all.
  const bool may_quote = words.empty() || words.find("://") != std::string::npos ||
                         words.find('@') != std::string::npos;
  return may_quote ? curl_easy_strerror(code) : words;
}

// A line break in a header's value would begin a header of its own.
bool safe_headers(const Request& request) {
  const auto broken = [](const std::string& text) {
    return text.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos;
  };
  return !broken(request.credential.token.reveal()) &&
         std::none_of(request.headers.begin(), request.headers.end(), [&](const auto& header) {
           return broken(header.first) || broken(header.second);
         });
}

class CurlTransport final : public Transport {
 public:
  explicit CurlTransport(CurlOptions options) : options_(std::move(options)) {
    if (options_.limit_rate) bucket_.emplace(*options_.limit_rate, real_clock().now());
  }

  ~CurlTransport() override {
    for (const auto& [id, transfer] : transfers_) {
      (void)curl_multi_remove_handle(multi_.get(), transfer->easy.get());
    }
  }
  CurlTransport(const CurlTransport&) = delete;
  CurlTransport& operator=(const CurlTransport&) = delete;

  TransferId start(const Request& request, BodySink& sink) override {
    const TransferId id = next_++;
    if (const auto url = parse_url(request.url); !url || !safe_headers(request)) {
      Completion& completion = stillborn_.emplace_back();
      completion.id = id;
      completion.failure = TransportFailure::kUrl;
      completion.detail = url ? "a header has a line break" : url.error().message;
      completion.head.url = request.url;
      completion.requests = 0;
      return id;
    }
    open();
    auto transfer = std::make_unique<Transfer>(id, request, sink, *blocks_);
    if (bucket_) transfer->bucket = &*bucket_;
    transfer->easy.reset(made(curl_easy_init()));
    configure(*transfer, request);
    CURL* const easy = transfer->easy.get();
    const auto placed = transfers_.emplace(id, std::move(transfer)).first;
    if (const CURLMcode code = curl_multi_add_handle(multi_.get(), easy); code != CURLM_OK) {
      transfers_.erase(placed);
      check(code);
    }
    ++requests_;
    return id;
  }

  std::vector<Completion> poll(Clock::TimePoint until, const std::stop_token& stop) override {
    for (;;) {
      std::vector<Completion> completions = std::exchange(stillborn_, {});
      if (transfers_.empty()) return completions;

      // Silence is judged by the time before the sockets were read: a sink that took long must not
      // make the others, whose bytes wait in the kernel, look stalled.
      const Clock::TimePoint before = real_clock().now();
      if (bucket_) {
        const auto pause = bucket_->wait(before);
        if (pause.count() > 0) {
          // Nothing is read: the kernel's buffers fill, and the server is told to send no more.
          if (stop.stop_requested() || before >= until) return completions;
          real_clock().sleep_until(
              std::min({before + pause, until, Clock::TimePoint(before + kSlice)}), stop);
          forgive(real_clock().now() - before);
          continue;
        }
        go_on();
      }
      int running = 0;
      check(curl_multi_perform(multi_.get(), &running));
      deliver_rest(completions);
      collect(completions);
      end_stalled(before, completions);

      const Clock::TimePoint now = real_clock().now();
      if (!completions.empty() || stop.stop_requested() || now >= until) return completions;
      const auto wait = std::min<Clock::TimePoint::duration>(kSlice, until - now);
      const auto wait_ms = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
      check(curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(wait_ms), nullptr));
    }
  }

  void cancel(TransferId id) override {
    std::erase_if(stillborn_, [id](const Completion& c) { return c.id == id; });
    const auto found = transfers_.find(id);
    if (found == transfers_.end()) return;
    (void)curl_multi_remove_handle(multi_.get(), found->second->easy.get());
    transfers_.erase(found);
  }

  [[nodiscard]] std::uint64_t requests() const override { return requests_; }

 private:
  // The handles of libcurl, made by the first request: a multi handle alone opens descriptors.
  void open() {
    if (multi_ != nullptr) return;
    static std::once_flag once;
    std::call_once(once, [] {
      if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw std::bad_alloc();
    });
    share_.reset(made(curl_share_init()));
    // Connections and DNS are the multi handle's and shared anyway; TLS sessions are not.
    (void)curl_share_setopt(share_.get(), CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    multi_.reset(made(curl_multi_init()));
    if (options_.most_sockets > 0) {
      const auto most = static_cast<long>(options_.most_sockets);
      (void)curl_multi_setopt(multi_.get(), CURLMOPT_MAX_TOTAL_CONNECTIONS, most);
      (void)curl_multi_setopt(multi_.get(), CURLMOPT_MAXCONNECTS, most);
    }
  }

  void configure(Transfer& transfer, const Request& request) {
    const Easy& easy = transfer.easy;
    set(easy, CURLOPT_URL, request.url.c_str());
    set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    if (request.method == Request::Method::kHead) set(easy, CURLOPT_NOBODY, 1L);

    // HTTP/2 puts all bodies onto one connection: right for many small ones. libcurl stops reading
    // one stream of a connection by stopping all of them, so not with a rate to keep.
    const bool multiplex = request.small && !bucket_ && request.url.starts_with("https:");
    set(easy, CURLOPT_HTTP_VERSION,
        static_cast<long>(multiplex ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
    if (multiplex) set(easy, CURLOPT_PIPEWAIT, 1L);  // for a connection that may turn out to be one
    set(easy, CURLOPT_FOLLOWLOCATION, 0L);           // redirect.h
    set(easy, CURLOPT_NOSIGNAL, 1L);
    // Otherwise ending a transfer waits for getaddrinfo, half a minute where DNS is silent.
    set(easy, CURLOPT_QUICK_EXIT, 1L);
    set(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.connect_timeout.count()));
    set(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    set(easy, CURLOPT_BUFFERSIZE, receive_buffer(request.small));
    set(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);  // a proxy's 200 is not the answer
    set(easy, CURLOPT_SHARE, share_.get());
    if (!options_.user_agent.empty()) set(easy, CURLOPT_USERAGENT, options_.user_agent.c_str());
    trust(easy);
    // no_proxy counts here as well.
    if (!options_.http_proxy.empty() && request.url.starts_with("http:")) {
      set(easy, CURLOPT_PROXY, options_.http_proxy.c_str());
    }

    // As a header and not by CURLOPT_ACCEPT_ENCODING, which would decode what comes encoded all the
    // same: the engine must see that the bytes are not those of the file.
    append(transfer.headers, "Accept-Encoding: identity");
    for (const auto& [name, value] : request.headers) {
      append(transfer.headers, name + ": " + value);
    }
    if (may_see(request.credential, request.url)) {
      append(transfer.headers, "Authorization: Bearer " + request.credential.token.reveal());
    }
    set(easy, CURLOPT_HTTPHEADER, transfer.headers.get());
    set(easy, CURLOPT_COOKIEFILE, "");  // no file: cookies of this handle alone
    for (const std::string& cookie : request.cookies) {
      set(easy, CURLOPT_COOKIELIST, cookie.c_str());
    }

    set(easy, CURLOPT_ERRORBUFFER, transfer.words.data());
    set(easy, CURLOPT_HEADERFUNCTION, &on_header);
    set(easy, CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
    set(easy, CURLOPT_WRITEFUNCTION, &on_body);
    set(easy, CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
    set(easy, CURLOPT_OPENSOCKETFUNCTION, &open_socket);
    set(easy, CURLOPT_OPENSOCKETDATA, static_cast<void*>(&transfer));
    set(easy, CURLOPT_PRIVATE, static_cast<void*>(&transfer));
  }

  // A bundle that was named is all that is trusted; libcurl's own directory would add to it.
  void trust(const Easy& easy) const {
    const auto& [file, directory] = options_.trust;
    if (file.empty() && directory.empty()) return;
    const char* const file_name = file.empty() ? nullptr : file.c_str();
    const char* const directory_name = directory.empty() ? nullptr : directory.c_str();
    // Unchecked: not every TLS library of libcurl knows all four, and to trust less is safe.
    (void)curl_easy_setopt(easy.get(), CURLOPT_CAINFO, file_name);
    (void)curl_easy_setopt(easy.get(), CURLOPT_CAPATH, directory_name);
    (void)curl_easy_setopt(easy.get(), CURLOPT_PROXY_CAINFO, file_name);
    (void)curl_easy_setopt(easy.get(), CURLOPT_PROXY_CAPATH, directory_name);
  }

  // What came in this turn and was too little for a delivery of its own.
  void deliver_rest(std::vector<Completion>& completions) {
    for (auto next = transfers_.begin(); next != transfers_.end();) {
      Transfer& transfer = *(next++)->second;
      if (transfer.undelivered.empty()) continue;
      if (callback(transfer, [&] { return deliver_collected(transfer); })) continue;
      if (const std::exception_ptr thrown = transfer.thrown) {
        cancel(transfer.id);
        pass_on(thrown, completions);
      }
      finish(transfer, TransportFailure::kRefusedBySink, {}, completions);
    }
  }

  // Takes over what libcurl has finished.
  void collect(std::vector<Completion>& completions) {
    std::exception_ptr thrown;
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      void* user = nullptr;
      (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &user);
      Transfer& transfer = *static_cast<Transfer*>(user);
      if (transfer.thrown) {
        thrown = transfer.thrown;
        cancel(transfer.id);
        continue;
      }
      TransportFailure failure = failure_of(code, transfer);
      if (const int shortage = shortage_behind(failure, transfer)) {
        finish(transfer, TransportFailure::kDescriptors, std::generic_category().message(shortage),
               completions);
        continue;
      }
      if (failure == TransportFailure::kConnect && is_proxys(transfer)) {
        failure = TransportFailure::kProxy;
      }
      finish(transfer, failure,
             failure == TransportFailure::kNone ? std::string() : detail_of(code, transfer),
             completions);
    }
    if (thrown) pass_on(thrown, completions);
  }

  [[noreturn]] void pass_on(const std::exception_ptr& thrown,
                            std::vector<Completion>& completions) {
    stillborn_ = std::move(completions);  // for the next call
    std::rethrow_exception(thrown);
  }

  // EMFILE or ENFILE where it was the reason, else 0. libcurl has no code for it, and calls the
  // server's name, the server or its certificate unreachable.
  [[nodiscard]] static int shortage_behind(TransportFailure failure, const Transfer& transfer) {
    switch (failure) {
      case TransportFailure::kConnect:
        return transfer.no_socket;
      case TransportFailure::kResolve:
      case TransportFailure::kTls:
      case TransportFailure::kProxy:
        return transfer.no_socket != 0 ? transfer.no_socket : posix::descriptor_shortage();
      default:
        return 0;
    }
  }

  // libcurl tells a proxy that does not answer from a server that does not only by its words:
  // "Failed to connect to HOST port PORT after 1 ms: ...", of whichever of them it was.
  [[nodiscard]] bool is_proxys(const Transfer& transfer) const {
    constexpr std::string_view kBegin = "Failed to connect to ";
    const std::string_view words(transfer.words.data());
    const auto url = parse_url(transfer.head.url);
    if (!options_.may_use_proxy || !url || !words.starts_with(kBegin)) return false;
    std::string_view host = url->host;
    if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
    const std::string server =
        std::string(kBegin).append(host).append(" port ") + std::to_string(url->port) + " ";
    return !words.starts_with(server);
  }

  void end_stalled(Clock::TimePoint now, std::vector<Completion>& completions) {
    for (auto next = transfers_.begin(); next != transfers_.end();) {
      Transfer& transfer = *(next++)->second;
      const std::string period = std::to_string(transfer.stall_timeout.count() / 1000) + " s";
      if (now - transfer.last_byte >= transfer.stall_timeout) {
        finish(transfer, TransportFailure::kStalled, "no byte came for " + period, completions);
      } else if (is_slow(transfer, now)) {
        finish(transfer, TransportFailure::kStalled, "less than 1 KiB/s came for " + period,
               completions);
      }
    }
  }

  // Looked at once in each stall_timeout, from the first line of the answer on: a head trickles,
  // too.
  [[nodiscard]] static bool is_slow(Transfer& transfer, Clock::TimePoint now) {
    if (transfer.head.status == 0) return false;
    if (transfer.slow_since == Clock::TimePoint{}) {
      transfer.slow_since = now;
      transfer.slow_bytes = 0;
    }
    const auto passed = now - transfer.slow_since;
    if (passed < transfer.stall_timeout) return false;
    const double seconds = std::chrono::duration<double>(passed).count();
    const bool slow = static_cast<double>(transfer.slow_bytes) < kSlowest * seconds;
    transfer.slow_since = now;
    transfer.slow_bytes = 0;
    return slow;
  }

  // The bucket has something again.
  void go_on() {
    // Each time another one is the first, since the first may take all that there is.
    const auto middle = transfers_.upper_bound(went_first_);
    if (middle != transfers_.end()) went_first_ = middle->first;
    const auto unpause = [](Transfer& transfer) {
      if (!std::exchange(transfer.paused, false)) return;
      transfer.last_byte = real_clock().now();
      (void)curl_easy_pause(transfer.easy.get(), CURLPAUSE_CONT);  // delivers what was kept
    };
    for (auto next = middle; next != transfers_.end(); ++next) unpause(*next->second);
    for (auto next = transfers_.begin(); next != middle; ++next) unpause(*next->second);
    if (middle == transfers_.end()) went_first_ = 0;
  }

  // Time in which we did not read is nobody's silence.
  void forgive(Clock::TimePoint::duration pause) {
    for (const auto& [id, transfer] : transfers_) {
      transfer->last_byte += pause;
      if (transfer->slow_since != Clock::TimePoint{}) transfer->slow_since += pause;
    }
  }

  // With a limit, not much more in one turn of the loop than it allows in a tenth of a second.
  [[nodiscard]] long receive_buffer(bool small) const {
    constexpr std::uint64_t kSmallest = 16U << 10U;
    if (!options_.limit_rate) return small ? kSmallReceiveBuffer : kReceiveBuffer;
    return static_cast<long>(std::clamp(*options_.limit_rate / 10, kSmallest,
                                        static_cast<std::uint64_t>(kReceiveBuffer)));
  }

  void finish(Transfer& transfer, TransportFailure failure, std::string detail,
              std::vector<Completion>& completions) {
    Completion& completion = completions.emplace_back();
    completion.id = transfer.id;
    completion.failure = failure;
    completion.detail = std::move(detail);
    if (transfer.head.status / 100 == 3) completion.cookies = cookies_of(transfer.easy);
    completion.head = std::move(transfer.head);
    cancel(completion.id);
  }

  static std::vector<std::string> cookies_of(const Easy& easy) {
    curl_slist* first = nullptr;
    if (curl_easy_getinfo(easy.get(), CURLINFO_COOKIELIST, &first) != CURLE_OK) return {};
    const List list(first);
    std::vector<std::string> cookies;
    for (const curl_slist* line = first; line != nullptr; line = line->next) {
      cookies.emplace_back(line->data);
    }
    return cookies;
  }

  CurlOptions options_;
  std::optional<RateBucket> bucket_;
  TransferId went_first_ = 0;
  TransferId next_ = 1;
  std::uint64_t requests_ = 0;
  std::vector<Completion> stillborn_;  // completions that wait for the next poll
  Share share_;
  Multi multi_;  // after share_: goes first
  const std::shared_ptr<Blocks> blocks_ = std::make_shared<Blocks>();
  std::map<TransferId, std::unique_ptr<Transfer>> transfers_;  // after multi_ and blocks_
};

}  // namespace

std::unique_ptr<Transport> make_curl_transport(CurlOptions options) {
  return std::make_unique<CurlTransport>(std::move(options));
}

}  // namespace fvprefetch
