#include "cluster/scope.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/environment.h"
#include "base/try.h"
#include "prefetch/nonce.h"

namespace fvprefetch {
namespace {

// One letter, and the nonces.
std::string to_wire(Scope scope, const std::vector<Nonce>& nonces) {
  if (scope == Scope::kShared || nonces.empty()) return {};
  return (scope == Scope::kNode ? "n" : "a") + nonces_to_text(nonces);
}

Result<bool> is_apart(const std::string& wire) {
  FVP_TRY(const std::vector<Nonce> nonces, nonces_from_text(std::string_view(wire).substr(1)));
  const bool sure = wire[0] == 'n';
  return std::any_of(nonces.begin(), nonces.end(), [sure](const Nonce& nonce) {
    return !nonce.is_here() && (sure || nonce.would_be_local());
  });
}

Result<Report> run(Collective& ranks, Report report,
                   const std::function<const Manifest&()>& manifest, const Options& options,
                   StageOptions how) {
  const Attendance& attendance = how.attendance;
  std::string wire;
  if (ranks.rank() == 0) {
    // Best effort: without ids no node is taken to be apart, and one that sees nothing says so.
    wire = attended(ranks, attendance, [manifest, options, report]() -> Result<std::string> {
             FVP_TRY(const std::vector<Nonce> nonces, nonces_of(manifest(), options, report));
             return to_wire(options.scope, nonces);
           }).value_or("");
  }
  FVP_CHECK_OK(ranks.await_work(attendance.vigil));
  const WaitLimit limit(ranks, attendance.vigil.patience);
  FVP_TRY(const std::string received, ranks.broadcast(std::move(wire)));
  if (received.empty()) return report;
  // Rank 0's node has rank 0's caches.
  bool apart = false;
  if (ranks.node_leader() && ranks.rank() != 0) {
    apart = attended(ranks, attendance, [received] { return is_apart(received); }).value_or(false);
  }
  FVP_CHECK_OK(ranks.await_work(attendance.vigil));
  FVP_TRY(const int any, ranks.max(apart ? 1 : 0));
  if (any == 0) return report;

  how.takes = apart;
  const auto order = [manifest, options, report]() -> Result<std::optional<StageOrder>> {
    const EnvironmentLookup env = environment::or_process(options.environment);
    StageOrder filling;
    Place place{environment::hub_cache(env, options.hf_cache_dir),
                environment::eval_cache(env, options.cache_dir),
                environment::torch_home(env).value_or("")};
    FVP_TRY(filling.cargo, load_cargo(manifest(), options, report, std::move(place)));
    filling.required = true;
    return filling;
  };
  return stage(ranks, std::move(report), order, how);
}

}  // namespace

Report fill_own_caches(Collective& ranks, Report report,
                       const std::function<const Manifest&()>& manifest, const Options& options,
                       StageOptions how) {
  if (ranks.nodes() == 1 || (!report.ok() && report.code() != ErrorCode::kPartial)) return report;
  auto filled = guard([&] { return run(ranks, report, manifest, options, std::move(how)); });
  if (filled) return *std::move(filled);
  report.error = filled.error();
  return report;
}

}  // namespace fvprefetch
