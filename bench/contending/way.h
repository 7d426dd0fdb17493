// How one contender takes the lock of a path, by one primitive. Ours wait as the product does: they
// look for the hit, try, and sleep until LockWait's next try or until a queued flock wakes them.
// The others are what a program does that has the kernel's lock and nothing else: one blocking
// call.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "cache/lock.h"

namespace fvprefetch::contending {

enum class Primitive { kFlock, kOfd, kLease, kAuto };
[[nodiscard]] std::optional<Primitive> primitive(std::string_view name);

class Way {
 public:
  virtual ~Way() = default;
  /// The lock of `lock`; nullptr: `hit` came true meanwhile, or it is `deadline`. (A blocking call
  /// knows neither; who started this process ends it.)
  [[nodiscard]] virtual Result<std::unique_ptr<HeldLock>> take(const std::string& lock,
                                                               const std::function<bool()>& hit,
                                                               Clock::TimePoint deadline) = 0;
};

[[nodiscard]] std::unique_ptr<Way> make_way(Primitive primitive);

}  // namespace fvprefetch::contending
