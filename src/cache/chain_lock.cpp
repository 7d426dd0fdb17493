// Several locks as one: FastVideo's, the kernel's, the lease.
#include <optional>
#include <utility>

#include "base/try.h"
#include "cache/lock.h"

namespace fvprefetch {
namespace {

using Need = ChainPart::Need;

class HeldChain final : public HeldLock {
 public:
  explicit HeldChain(std::vector<std::unique_ptr<HeldLock>> held) : held_(std::move(held)) {}
  HeldChain(const HeldChain&) = delete;
  HeldChain& operator=(const HeldChain&) = delete;
  ~HeldChain() override {
    // The innermost first: who gets the flock finds the lease free.
    while (!held_.empty()) held_.pop_back();
  }

  void tell() override {
    for (const auto& part : held_) part->tell();
  }
  [[nodiscard]] bool lost() override {
    bool any = false;
    for (const auto& part : held_) any = part->lost() || any;
    return any;
  }
  [[nodiscard]] std::optional<Error> expired() override {
    for (const auto& part : held_) {
      if (auto error = part->expired()) return error;
    }
    return std::nullopt;
  }

 private:
  std::vector<std::unique_ptr<HeldLock>> held_;
};

class Chain final : public Lock {
 public:
  Chain(std::vector<ChainPart> parts, Clock& clock) : parts_(std::move(parts)), clock_(clock) {}
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;
  ~Chain() override { let_go(); }

  [[nodiscard]] Result<std::unique_ptr<HeldLock>> try_acquire() override {
    while (next_ < parts_.size()) {
      ChainPart& part = parts_[next_];
      auto held = part.lock->try_acquire();
      if (held && *held == nullptr) {
        if (part.need != Need::kCourtesy) return nullptr;
        const Clock::TimePoint now = clock_.now();
        if (!courtesy_since_) courtesy_since_ = now;
        if (now - *courtesy_since_ < part.patience) return nullptr;
      }
      ++next_;
      if (held && *held != nullptr) {
        held_.push_back(*std::move(held));
        if (part.need != Need::kCourtesy) join(kind_, part.lock->kind());
      } else if (part.need == Need::kCourtesy) {
        continue;
      } else if (part.need == Need::kRequired) {
        let_go();
        return fail(std::move(held).error());
      } else {
        failed_.push_back(std::move(held).error());
      }
    }
    auto failed = std::exchange(failed_, {});
    if (kind_.empty() && !failed.empty()) {
      let_go();
      return fail(without_any(failed));
    }
    for (Error& error : failed) warnings_.push_back(std::move(error));
    last_kind_ = std::exchange(kind_, {});
    next_ = 0;
    return std::make_unique<HeldChain>(std::exchange(held_, {}));
  }

  [[nodiscard]] std::string describe_holder() const override {
    return parts_[next_ < parts_.size() ? next_ : 0].lock->describe_holder();
  }
  [[nodiscard]] bool knows_holder() const override {
    return parts_[next_ < parts_.size() ? next_ : 0].lock->knows_holder();
  }
  [[nodiscard]] std::uint64_t holder_progress() const override {
    return next_ < parts_.size() ? parts_[next_].lock->holder_progress() : 0;
  }
  [[nodiscard]] std::string kind() const override {
    if (!last_kind_.empty()) return last_kind_;
    std::string all;
    for (const ChainPart& part : parts_) {
      if (part.need != Need::kCourtesy) join(all, part.lock->kind());
    }
    return all;
  }
  [[nodiscard]] std::vector<Error> take_warnings() override { return std::exchange(warnings_, {}); }

 private:
  static void join(std::string& kinds, const std::string& kind) {
    kinds += (kinds.empty() ? "" : "+") + kind;
  }

  void let_go() {
    while (!held_.empty()) held_.pop_back();
    next_ = 0;
    kind_.clear();
    failed_.clear();
  }

  // A right that is missing, or space, is the user's to give; it must not read as "locks do not
  // work".
  [[nodiscard]] static Error without_any(const std::vector<Error>& failed) {
    for (const Error& error : failed) {
      if (error.code != ErrorCode::kInternal) return error;
    }
    Error all = failed.front();
    for (std::size_t i = 1; i < failed.size(); ++i) all.message += "; " + failed[i].message;
    return all;
  }

  std::vector<ChainPart> parts_;
  Clock& clock_;
  std::optional<Clock::TimePoint> courtesy_since_;  ///< waited for a lock that may be done without
  std::size_t next_ = 0;                            ///< the part that is wanted next
  std::vector<std::unique_ptr<HeldLock>> held_;     ///< those before it, as far as they work
  std::string kind_;
  std::string last_kind_;
  std::vector<Error> failed_;
  std::vector<Error> warnings_;
};

}  // namespace

std::unique_ptr<Lock> make_chain(std::vector<ChainPart> parts, Clock& clock) {
  return std::make_unique<Chain>(std::move(parts), clock);
}

}  // namespace fvprefetch
