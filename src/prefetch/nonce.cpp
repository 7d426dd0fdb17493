#include "prefetch/nonce.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/posix.h"
#include "base/try.h"
#include "cache/receipt.h"
#include "cache/url_store.h"
#include "prefetch/extra.h"
#include "prefetch/lookup.h"
#include "prefetch/session.h"
#include "source/resolve.h"

namespace fvprefetch {

using nlohmann::json;

bool Nonce::is_here() const {
  if (id.empty()) return false;
  const auto same = [this] {
    const auto found = read_receipt(receipt);
    return found && found->id == id;
  };
  if (same()) return true;
  posix::look_afresh(posix::parent(receipt));
  return same();
}

bool Nonce::would_be_local() const {
  return posix::is_local(posix::existing_part(posix::parent(receipt)));
}

Result<std::vector<Nonce>> nonces_of(const Manifest& manifest, const Options& options,
                                     const Report& report) {
  const Session session(options, {});
  const ExtraCaches extras(options);
  std::vector<Nonce> nonces;
  for (std::size_t i = 0; i < report.entries.size() && i < manifest.entries.size(); ++i) {
    if (!succeeded(report.entries[i].state)) continue;
    // A site's cache is the site's on every node, or none at all.
    const auto extra = extras.find(manifest.entries[i], Hashing::kForbidden, session.offline());
    if (extra && extra->survey.path == report.entries[i].path) continue;
    FVP_TRY(const Source source, resolve(manifest.entries[i], session.env(), session.eval_cache()));
    Nonce nonce;
    if (const auto* url = std::get_if<UrlSource>(&source)) {
      nonce.receipt = UrlStore(url->root, url->relative).paths().receipt();
    } else if (const auto* hub = std::get_if<HubSource>(&source)) {
      nonce.receipt =
          session.store(hub->repo).paths().receipt(report.entries[i].commit, selection_of(*hub));
    } else {
      continue;
    }
    if (const auto receipt = read_receipt(nonce.receipt)) nonce.id = receipt->id;
    nonces.push_back(std::move(nonce));
  }
  return nonces;
}

std::string nonces_to_text(const std::vector<Nonce>& nonces) {
  json out = json::array();
  for (const Nonce& nonce : nonces) out.push_back({nonce.receipt, nonce.id});
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::vector<Nonce>> nonces_from_text(std::string_view text) {
  const json in = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!in.is_array()) return fail(ErrorCode::kInternal, "rank 0's nonces are not JSON");
  try {
    std::vector<Nonce> nonces;
    for (const json& one : in) {
      nonces.push_back({one.at(0).get<std::string>(), one.at(1).get<std::string>()});
    }
    return nonces;
  } catch (const json::exception& e) {
    return fail(ErrorCode::kInternal, std::string("rank 0's nonces: ") + e.what());
  }
}

}  // namespace fvprefetch
