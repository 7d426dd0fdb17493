#include "fvprefetch/checkpoint.h"

#include "base/environment.h"
#include "prefetch/run.h"

namespace fvprefetch {

Manifest checkpoint_manifest(const std::string& name, const std::string& source,
                             const std::string& filename) {
  Manifest manifest;
  manifest.origin = "<arguments>";
  Entry entry;
  // The contract ignores `name` for Hub repos and paths; an entry needs one to be spoken of.
  entry.name = name.empty() ? source : name;
  entry.source = source;
  entry.filename = filename;
  manifest.entries.push_back(std::move(entry));
  return manifest;
}

Result<std::string> checkpoint_path(Report report) {
  if (!report.entries.empty() && report.entries.front().error) {
    return fail(*std::move(report.entries.front().error));
  }
  if (report.error) return fail(*std::move(report.error));
  if (report.entries.empty()) return fail(ErrorCode::kInternal, "the report names no path");
  return std::move(report.entries.front().path);
}

Result<std::string> ensure_checkpoint(const std::string& name, const std::string& source,
                                      const std::string& filename, const Options& options) {
  return checkpoint_path(prefetch(checkpoint_manifest(name, source, filename), options));
}

std::string get_cache_dir(const Options& options) {
  return environment::eval_cache(environment::or_process(options.environment), options.cache_dir);
}

}  // namespace fvprefetch
