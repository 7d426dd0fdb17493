#include "prefetch/keep.h"

#include <utility>

#include "base/posix.h"
#include "base/try.h"
#include "cache/hf_store.h"
#include "cache/receipt.h"

namespace fvprefetch {

Status keep_hub(const HubSource& source, const Survey& survey, const Session& session) {
  const HubStore store = session.store(source.repo);
  FVP_CHECK_OK(store.prepare(survey.commit));
  if (survey.tree) FVP_CHECK_OK(store.write_tree(survey.commit, *survey.tree));
  if (source.revision != survey.commit) {
    FVP_CHECK_OK(store.write_ref(source.revision, survey.commit));
  }
  Receipt receipt;
  receipt.source = source.repo.id;
  receipt.revision = source.revision;
  receipt.commit = survey.commit;
  receipt.resolved_at = survey.resolved_at;
  receipt.hashed = survey.all_hashed;
  for (const FileSpec& file : survey.files) {
    receipt.files.push_back({.path = file.path,
                             .size = file.size.value_or(0),
                             .blob = file.blob,
                             .sha256 = file.digest && file.digest->kind == Digest::Kind::kSha256
                                           ? file.digest->hex
                                           : source.sha256,  // checked besides git's digest
                             .mtime_ns = 0,
                             .link = {}});
  }
  return write_receipt(store.paths().temporary(posix::random_tag()),
                       store.paths().receipt(survey.commit, selection_of(source)),
                       std::move(receipt));
}

}  // namespace fvprefetch
