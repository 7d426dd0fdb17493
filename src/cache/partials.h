// Unfinished downloads of a target, as anybody can see them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fvprefetch {

/// Bytes of the largest partial of `target_name` in `directory`; 0 when there is none. What has not
/// been written yet does not count, though bytes behind it may have been.
[[nodiscard]] std::uint64_t largest_partial(const std::string& directory,
                                            const std::string& target_name);

/// What lies in directories of journals, each listed when it is first asked for: a run of thousands
/// of files lists them once. Who has waited for somebody else lists again.
class JournalNames {
 public:
  [[nodiscard]] const std::vector<std::string>& in(const std::string& directory);

 private:
  std::map<std::string, std::vector<std::string>> names_;
};

/// Tags of the partials of `stem` that have a journal in the directory `journals`; the others
/// cannot be gone on with. (The journals of a cache are few, the files beside a target may be
/// thousands.)
[[nodiscard]] std::vector<std::string> journal_tags(const std::string& journals,
                                                    const std::string& stem, JournalNames& names);

}  // namespace fvprefetch
