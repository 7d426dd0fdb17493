#include "cluster/collective.h"

#include <algorithm>
#include <utility>

#include "base/try.h"
#include "fvprefetch/report.h"

namespace fvprefetch {
namespace {

class SelfCollective final : public Collective {
 public:
  explicit SelfCollective(std::string node) : node_(std::move(node)) {}

  int rank() const override { return 0; }
  int size() const override { return 1; }
  int leader() const override { return 0; }
  int nodes() const override { return 1; }
  const std::string& node() const override { return node_; }

  Status quiet_wait() override { return {}; }
  Result<std::string> broadcast(std::string bytes) override { return bytes; }
  Result<int> max(int value) override { return value; }
  Result<std::vector<std::string>> all_gather(const std::string& text) override {
    return std::vector<std::string>{text};
  }
  Result<std::unique_ptr<Collective>> leaders() override { return make_self_collective(node_); }

 private:
  std::string node_;
};

// An Error travels as the report that consists of it: one wire format, not two.
Result<Error> error_from_wire(std::string_view text) {
  FVP_TRY(Report report, report_from_json(text));
  if (!report.error) return fail(ErrorCode::kInternal, "a rank failed without saying why");
  return *std::move(report.error);
}

std::string place(const Collective& ranks) {
  return "on rank " + std::to_string(ranks.rank()) + " (" + ranks.node() + ")";
}

}  // namespace

Status Collective::await_work(const Vigil& /*vigil*/) {
  return quiet_wait();
}
const std::vector<std::string>& Collective::greetings() const {
  static const std::vector<std::string> kNone;
  return kNone;
}
int Collective::attend(const Vigil& /*vigil*/) {
  return 0;
}
std::chrono::milliseconds Collective::limit_waits(std::chrono::milliseconds /*limit*/) {
  return {};
}

Result<std::unique_ptr<Collective>> Collective::leaders() {
  return fail(ErrorCode::kInternal, "these ranks cannot be parted");
}
Result<std::unique_ptr<Pending>> Collective::send(int /*to*/, Mail /*kind*/,
                                                  std::span<const std::byte>) {
  return fail(ErrorCode::kInternal, "these ranks cannot send messages");
}
Result<std::unique_ptr<Pending>> Collective::receive(int /*from*/, Mail /*kind*/,
                                                     std::span<std::byte>) {
  return fail(ErrorCode::kInternal, "these ranks cannot send messages");
}

void look_after(Collective& ranks, const Vigil& vigil) {
  const int number = ranks.attend(vigil);
  if (number != 0 && vigil.on_signal) vigil.on_signal(number);
}

Error peer_lost(const std::string& whom, std::chrono::milliseconds patience) {
  Error error;
  error.code = ErrorCode::kNetwork;
  error.reason = kPeerLost;
  error.message = whom + " for " + std::to_string((patience.count() + 999) / 1000) + " s";
  error.hint =
      "a node may be down, or its file system not answer; run it again: what is complete stays";
  return error;
}

std::unique_ptr<Collective> make_self_collective(std::string node) {
  return std::make_unique<SelfCollective>(std::move(node));
}

Result<std::optional<Error>> first_failure(Collective& ranks, const std::optional<Error>& mine) {
  // The usual answer, nobody failed, costs one small reduction. Both branches below are taken by
  // all ranks alike, since they hang on `nearest` alone.
  FVP_TRY(const int nearest, ranks.max(mine ? ranks.size() - ranks.rank() : 0));
  if (nearest == 0) return std::optional<Error>();
  const int first = ranks.size() - nearest;

  // Only the first one's words travel; of the others one byte, to count them.
  std::string words;
  if (mine) {
    words = ranks.rank() != first ? "!"
            : ranks.size() == 1   ? to_json(failed_report(*mine))
                                  : to_json(failed_report(with_context(*mine, place(ranks))));
  }
  FVP_TRY(const std::vector<std::string> all, ranks.all_gather(words));

  FVP_TRY(Error error, error_from_wire(all[static_cast<std::size_t>(first)]));
  const auto failed =
      std::count_if(all.begin(), all.end(), [](const std::string& text) { return !text.empty(); });
  if (failed > 1) {
    error = with_context(std::move(error), std::to_string(failed) + " of " +
                                               std::to_string(ranks.size()) + " ranks failed");
  }
  return std::optional<Error>(std::move(error));
}

}  // namespace fvprefetch
