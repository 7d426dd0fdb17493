// The Hub's HTTP API: revision -> commit, the list of a commit's files, addresses of files, and
// what its errors mean. Knows no disk. Contract: huggingface_hub (hf-contract.md sections 3, 6, 7,
// 13).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/url.h"
#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"
#include "transfer/transport.h"

namespace fvprefetch::hub {

enum class RepoType { kModel, kDataset, kSpace };

struct Repo {
  RepoType type = RepoType::kModel;
  std::string id;  ///< "org/name" or "name", valid (see valid_repo_id)
};

/// huggingface_hub's validate_repo_id, in ASCII.
[[nodiscard]] bool valid_repo_id(std::string_view id);
/// Exactly 40 lower-case hex digits.
[[nodiscard]] bool is_commit(std::string_view revision);
/// "model" (or ""), "dataset", "space".
[[nodiscard]] Result<RepoType> parse_repo_type(std::string_view text);

/// Why no cache can hold these files as one commit, as the end of a sentence; "": it can. That a
/// file is another one's folder as well, one digest under two sizes, more bytes than there are.
[[nodiscard]] std::string list_fault(const std::vector<RepoFile>& files);

/// Blob name, digest and size of an entry as the cache wants it. The address is not filled.
[[nodiscard]] FileSpec to_file_spec(const RepoFile& entry);

class Client {
 public:
  /// `endpoint` without trailing slash. `fetcher` is not owned.
  Client(Fetcher& fetcher, std::string endpoint, Secret token);

  /// One request. The 40-hex commit of a branch or tag.
  [[nodiscard]] Result<std::string> resolve_revision(const Repo& repo, const std::string& revision);
  /// One request per 1,000 entries. Files only, sorted by path; hostile paths and sizes are refused
  /// (kIntegrity), as is what list_fault() tells of.
  [[nodiscard]] Result<std::vector<RepoFile>> list_tree(const Repo& repo,
                                                        const std::string& commit);
  /// Address of a file at a commit.
  [[nodiscard]] std::string resolve_url(const Repo& repo, const std::string& commit,
                                        const std::string& path) const;
  /// Whether this token may have the file: its /resolve/ request up to the first answer that is
  /// no other place of the repository (the contract's redirect rule; `hops` must not follow
  /// redirects). The address to go on from: the redirect's target, which may be signed and expire,
  /// or resolve_url() where the file comes at once.
  [[nodiscard]] Result<std::string> open_file(Fetcher& hops, const Repo& repo,
                                              const std::string& commit,
                                              const std::string& path) const;
  /// The token and the origins that may see it: the endpoint's (also when it goes from http to
  /// https) and the Hub's own, to which a mirror may send us.
  [[nodiscard]] Credential credential() const;
  /// A final answer of the Hub that is not 2xx, in words: no token, bad token and licence not
  /// accepted are three messages.
  [[nodiscard]] Error explain(const Repo& repo, const std::string& what,
                              const Response& response) const;

 private:
  Fetcher& fetcher_;
  std::string endpoint_;
  Secret token_;
};

}  // namespace fvprefetch::hub
