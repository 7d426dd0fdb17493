#include "fvprefetch/checkpoint.h"

#include "base/environment.h"

namespace fvprefetch {

Result<std::string> ensure_checkpoint(const std::string& name, const std::string& source,
                                      const std::string& filename, const Options& options) {
  Manifest manifest;
  manifest.origin = "<arguments>";
  Entry entry;
  // The contract ignores `name` for Hub repos and paths; an entry needs one to be spoken of.
  entry.name = name.empty() ? source : name;
  entry.source = source;
  entry.filename = filename;
  manifest.entries.push_back(std::move(entry));

  Report report = prefetch(manifest, options);
  if (!report.entries.empty() && report.entries.front().error) {
    return fail(*std::move(report.entries.front().error));
  }
  if (report.error) return fail(*std::move(report.error));
  return std::move(report.entries.front().path);
}

std::string get_cache_dir(const Options& options) {
  return environment::eval_cache(environment::or_process(options.environment), options.cache_dir);
}

}  // namespace fvprefetch
