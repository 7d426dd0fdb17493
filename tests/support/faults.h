// Faults that a running hub is told to have: which requests they hit, how often, and what they do
// to an answer. Thread-safe.
//
// The wire form (POST /_testhub/faults, a JSON array that replaces the previous one):
//   path       fnmatch pattern on the request path, "*" also matches "/"; tried on the path as sent
//              and decoded. Required.
//   kind       status | html | lfs_pointer | redirect_loop     instead of the answer
//              delay | no_ranges                               before the answer
//              cut | reset | stall | flip | throttle           in the body of a 2xx GET
//              no_length | wrong_length | gzip | other_etag    in the framing of a 2xx answer
//              wrong_range                                     in a 206
//   method     "GET", "HEAD"; default any
//   times      how many requests it hits; default all
//   skip       how many matching requests pass before; default 0
//   status     of "status" (default 500) and "redirect_loop" (default 302)
//   headers    added to the answer, replacing its own of the same name
//   body       text of "status"
//   after_bytes cut, reset, stall: bytes of this body that are still sent (default half; stall:
//              none); a reset takes with it what the client has not read yet. flip: offset in the
//              whole file (default its middle); wrong_length: the length that is announced and sent
//              (default half; longer than the file is zero-padded); wrong_range: where the range
//              that is sent, and truly announced, begins (default 0)
//   seconds    of "delay" (default 1)
//   bytes_per_second of "throttle", for each answer by itself (default 65536)
// Several rules may hit one request; of the first group the first in the list wins. A rule that
// could have no effect (cut beyond the end, a flip outside the range) is not used up.
#pragma once

#include "delivery.h"
#include "message.h"

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fvprefetch::testhub {

enum class FaultKind {
  kStatus,
  kHtml,
  kLfsPointer,
  kRedirectLoop,
  kDelay,
  kNoRanges,
  kCut,
  kReset,
  kStall,
  kFlip,
  kThrottle,
  kNoLength,
  kWrongLength,
  kGzip,
  kOtherEtag,
  kWrongRange,
};

struct Fault {
  std::string path;
  std::string method;
  FaultKind kind = FaultKind::kStatus;
  std::optional<int> status;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::optional<std::uint64_t> after_bytes;
  std::optional<std::uint64_t> times;
  std::uint64_t skip = 0;
  double seconds = 1;
  std::uint64_t bytes_per_second = 65536;
  std::uint64_t matched = 0;
  std::uint64_t hits = 0;
};

class Faults {
 public:
  /// Replaces all rules; throws std::invalid_argument that names the bad rule.
  void set(const std::string& json);
  void clear();
  /// The rules with how often each matched and hit.
  std::string to_json() const;

  /// Rules that act before the answer is known, or instead of it.
  std::vector<Fault> take_early(const Request& request);
  /// Rules that act on this very answer.
  std::vector<Fault> take_late(const Request& request, const Reply& reply);

 private:
  template <class Applies>
  std::vector<Fault> take(const Request& request, Applies applies);

  mutable std::mutex mutex_;  // guards rules_
  std::vector<Fault> rules_;
};

/// Takes the place of the answer when one of `faults` says so.
void replace_reply(const std::vector<Fault>& faults, const Request& request, Reply& reply);

/// Changes framing and body.
Delivery deliver_with(const std::vector<Fault>& faults, Reply& reply);

}  // namespace fvprefetch::testhub
