// The Hub's addresses and answers, as huggingface.co sends them (captured 2026-09): repository
// info, trees with pages, /resolve/ with its two kinds of redirect, the errors that clients tell
// apart by header, and the second host that LFS bytes come from.
//
// Who may what, by Authorization header:
//   none                  anonymous
//   Bearer hf_invalid...  a token the Hub does not know: 401 everywhere
//   Bearer <anything>     a user; one who may read a gated or private repository only when the
//                         token is the one in its .testhub.json
#pragma once

#include "file_reply.h"
#include "message.h"
#include "repo_store.h"
#include "stats.h"

#include <cstddef>
#include <functional>
#include <optional>
#include <string>

namespace fvprefetch::testhub {

class HubRoutes {
 public:
  /// `cdn_base` gives the second host's address for a request ("http://host:port").
  HubRoutes(RepoStore& store, std::size_t page_size,
            std::function<std::string(const Request&)> cdn_base)
      : store_(store), page_size_(page_size), cdn_base_(std::move(cdn_base)) {}

  Reply handle(const Request& request, Ranges ranges);

 private:
  struct Address;

  std::optional<Address> parse(const Request& request) const;
  Reply info(const Request& request, const Repo& repo, const std::string& revision);
  Reply tree(const Request& request, const Repo& repo, const Address& address);
  Reply paths_info(const Request& request, const Repo& repo, const std::string& revision);
  Reply refs(const Repo& repo);
  Reply resolve(const Request& request, const Repo& repo, const Address& address);
  Reply resolve_cache(const Request& request, const Repo& repo, const Address& address,
                      Ranges ranges);

  RepoStore& store_;
  const std::size_t page_size_;
  const std::function<std::string(const Request&)> cdn_base_;
};

/// The second host: /lfs/<types>/<id>/<sha256>?...&Signature=... . No request may carry a token.
class CdnRoutes {
 public:
  CdnRoutes(RepoStore& store, Stats& stats) : store_(store), stats_(stats) {}
  Reply handle(const Request& request, Ranges ranges);

 private:
  RepoStore& store_;
  Stats& stats_;
};

}  // namespace fvprefetch::testhub
