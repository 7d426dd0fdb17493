// A Fetcher that answers from a script and records what was asked: for tests of what talks to a Hub
// without a socket. An address that the script does not know is an error, so that a test sees every
// request that it did not expect.
#pragma once

#include "fvprefetch/error.h"
#include "transfer/transport.h"

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace fvprefetch::test {

class ScriptedFetcher : public Fetcher {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;

  /// The next answer of `url`. Answers are used up in the order given; the last one stays.
  /// Header names in lower case, as a Transport has them.
  void answer(const std::string& url, int status, std::string body = {}, Headers headers = {}) {
    Response response;
    response.head.status = status;
    response.head.url = url;
    response.head.headers = std::move(headers);
    response.body = std::move(body);
    script_[url].emplace_back(std::move(response));
  }

  /// The next answer of `url` is no HTTP answer.
  void fail_with(const std::string& url, Error error) {
    script_[url].emplace_back(tl::unexpected<Error>(std::move(error)));
  }

  [[nodiscard]] Result<Response> fetch(const Request& request) override {
    requests_.push_back(request);
    const auto found = script_.find(request.url);
    if (found == script_.end()) {
      return fail(ErrorCode::kInternal, "not in the script: " + request.url);
    }
    std::deque<Result<Response>>& answers = found->second;
    Result<Response> answer = answers.front();
    if (answers.size() > 1) answers.pop_front();
    return answer;
  }

  /// All that was asked, in order.
  [[nodiscard]] const std::vector<Request>& requests() const { return requests_; }

  [[nodiscard]] std::vector<std::string> urls() const {
    std::vector<std::string> urls;
    for (const Request& request : requests_) urls.push_back(request.url);
    return urls;
  }

 private:
  std::map<std::string, std::deque<Result<Response>>> script_;
  std::vector<Request> requests_;
};

}  // namespace fvprefetch::test
