#include "prefetch/ask_size.h"

#include "base/try.h"
#include "transfer/fetcher.h"
#include "transfer/retry.h"

namespace fvprefetch {

Result<std::optional<std::uint64_t>> ask_size(Session& session, const std::string& url) {
  Request request;
  request.method = Request::Method::kHead;
  request.url = url;
  FVP_TRY(const Response response, session.fetcher().fetch(request));
  const int status = response.head.status;
  // A signed address may be good for GET only, so that 403 says nothing about a fetch.
  if (status == 404 || status == 410) {
    Completion completion;
    completion.head = response.head;
    return fail(retry::to_error(completion));
  }
  return status == 200 ? response.head.content_length() : std::nullopt;
}

}  // namespace fvprefetch
