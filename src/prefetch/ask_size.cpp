#include "prefetch/ask_size.h"

#include <charconv>
#include <utility>

#include "transfer/fetcher.h"
#include "transfer/retry.h"

namespace fvprefetch {

namespace {

// What an answer tells of the whole. A length of 0 is that of an answer that has no body, or of a
// file that nobody wants.
std::optional<std::uint64_t> size_told(const ResponseHead& head) {
  if (!head.header("content-encoding").empty()) return std::nullopt;
  std::optional<std::uint64_t> size;
  if (head.status == 200) size = head.content_length();
  if (head.status == 206) {
    const std::string range = head.header("content-range");  // bytes 0-0/1000
    const char* const end = range.data() + range.size();
    std::uint64_t total = 0;
    const std::size_t slash = range.find('/');
    if (slash == std::string::npos) return std::nullopt;
    const auto [stopped, error] = std::from_chars(range.data() + slash + 1, end, total);
    if (error == std::errc() && stopped == end) size = total;
  }
  return size == 0 ? std::nullopt : size;
}

bool is_gone(const ResponseHead& head) {
  return head.status == 404 || head.status == 410;
}

}  // namespace

Result<std::optional<std::uint64_t>> ask_size(Session& session, const std::string& url) {
  Request request;
  request.method = Request::Method::kHead;
  request.url = url;
  Result<Response> response = session.fetcher().fetch(request);
  std::optional<std::uint64_t> size = response ? size_told(response->head) : std::nullopt;
  const bool unreachable = !response && response.error().reason == kUnreachable;
  if (!size && !unreachable && !(response && is_gone(response->head))) {
    // Many servers, and addresses that are signed, know of GET only.
    request.method = Request::Method::kGet;
    request.headers.emplace_back("Range", "bytes=0-0");
    request.head_only = true;
    response = session.fetcher().fetch(request);
    if (response) size = size_told(response->head);
  }
  if (!response) return fail(std::move(response).error());
  if (!is_gone(response->head)) return size;
  Completion completion;
  completion.head = response->head;
  return fail(retry::to_error(completion));
}

}  // namespace fvprefetch
