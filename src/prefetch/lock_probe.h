// What a lock can be made of, each tried on a name of its own in a directory that the self test has
// to itself (cluster/self_test):
//
//   flock   flock(2) on <dir>/flock, as Python's clients take it
//   OFD     fcntl(F_OFD_SETLK) on <dir>/ofd: never on a file that somebody takes flock() on, for
//           over NFS the two are one
//   link    <dir>/link is one more link to a file of ours: what a lease is
//   mkdir   <dir>/mkdir: what a lease is where hard links are refused
//
// A call may hang, over NFS even one that is said not to block; each has a deadline, after which
// nothing of it is waited for again.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "fvprefetch/error.h"

namespace fvprefetch {

enum class Primitive { kFlock, kOfd, kLink, kMkdir };
inline constexpr std::array kPrimitives{Primitive::kFlock, Primitive::kOfd, Primitive::kLink,
                                        Primitive::kMkdir};
/// "flock", "OFD", "link", "mkdir".
[[nodiscard]] std::string_view name(Primitive primitive);

struct Attempt {
  enum class Outcome { kTaken, kBusy, kRefused, kHung };
  Outcome outcome = Outcome::kRefused;
  int error = 0;  ///< kRefused: errno
  std::chrono::milliseconds took{0};
};

class LockProbe {
 public:
  virtual ~LockProbe() = default;  ///< lets go
  /// One try; never waits for a holder.
  [[nodiscard]] virtual Attempt take() = 0;
  virtual void let_go() = 0;
};

/// `who`: tells this process from all others that try in `directory`.
[[nodiscard]] std::unique_ptr<LockProbe> make_lock_probe(Primitive primitive,
                                                         const std::string& directory,
                                                         const std::string& who,
                                                         std::chrono::milliseconds patience);

/// <base>/doctor.<tag>.
[[nodiscard]] std::string probe_directory(const std::string& base, const std::string& tag);
/// Makes it, and `base` itself where that is not there.
[[nodiscard]] Status make_probe_directory(const std::string& base, const std::string& tag);
/// The directory of that name, and all that the probes have left in it; `base`, too, when it is
/// empty and `made_base`.
[[nodiscard]] Status remove_probe_directory(const std::string& base, const std::string& tag,
                                            bool made_base);
/// One that a killed `doctor` has left.
[[nodiscard]] Status remove_probes(const std::string& directory);

}  // namespace fvprefetch
