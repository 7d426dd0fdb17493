#include "source/entry_rules.h"

#include "base/digest.h"
#include "base/printable.h"
#include "base/relative_path.h"
#include "base/url.h"
#include "source/hub.h"
#include "source/wording.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>

namespace fvprefetch {
namespace {

constexpr std::size_t kSha256Digits = 64;
constexpr std::size_t kGitSha1Digits = 40;
constexpr auto kLargestFile =
    static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());  // off_t
/// A download lies beside its target as ".<name>.<8 hex>.fvprefetch-part" first, and that name must
/// fit into 255 bytes too.
constexpr std::string_view kPartialSuffix = ".fvprefetch-part";
constexpr std::string_view kUnpackSuffix = ".fvprefetch-unpack";
constexpr std::string_view kOwnSuffix = ".fvprefetch-";
constexpr std::size_t kLongestFileName = 255 - 10 - kPartialSuffix.size();

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

constexpr const char* kUnprintable = "has a character that is not shown or turns the text around";

std::string url_fault(const std::string& url) {
  if (parse_url(url)) return {};
  if (url.find(' ') == std::string::npos) return "is not a valid http(s) URL";
  return "has a blank, which is written %20 in an address";
}

bool has_segment(std::string_view path, std::string_view segment) {
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    if (path.substr(0, slash) == segment) return true;
    if (slash == std::string_view::npos) return false;
    path.remove_prefix(slash + 1);
  }
  return false;
}

std::string_view last_segment(std::string_view path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

class Checker {
 public:
  Checker(const Entry& entry, NameRule rule)
      : entry_(entry), rule_(rule), url_(is_url(entry.source)) {}

  std::vector<EntryProblem> run() {
    source();
    name();
    if (url_) {
      hub_fields_on_url();
      destination();
      mirrors();
    } else {
      url_fields_without_url();
      hub_fields();
      pinned_files();
    }
    if (!entry_.unpack && entry_.strip_components > 0) {
      problem("/strip_components", "is for entries with `unpack` only");
    }
    digest("/sha256", entry_.sha256, kSha256Digits);
    if (entry_.size) size("/size", *entry_.size);
    return std::move(problems_);
  }

 private:
  void problem(std::string field, std::string message) {
    problems_.push_back({std::move(field), std::move(message)});
  }

  void source() {
    if (entry_.source.empty()) {
      problem("/source", "must not be empty");
    } else if (has_control_character(entry_.source)) {
      problem("/source", "has a control character");
    } else if (const std::string fault = url_ ? url_fault(entry_.source) : ""; !fault.empty()) {
      problem("/source", fault);
    }
  }

  void name() {
    const bool becomes_file = url_ && entry_.dest.empty();
    if (rule_ == NameRule::kWhenUsed && !becomes_file) {
      if (has_control_character(entry_.name)) problem("/name", "has a control character");
      return;
    }
    if (entry_.name.empty()) {
      problem("/name", "must not be empty");
    } else if (const auto fault = relative_path_fault(entry_.name); !fault.empty()) {
      problem("/name", "\"" + printable(entry_.name) + "\" " + std::string(fault));
    } else if (!is_printable(entry_.name)) {
      problem("/name", "\"" + printable(entry_.name) + "\" " + kUnprintable);
    } else if (becomes_file) {
      file_name("/name", entry_.name);
    }
  }

  /// What a file of ours must not be called.
  void file_name(const std::string& field, std::string_view path) {
    if (has_segment(path, ".fvprefetch")) {
      problem(field, "\".fvprefetch\" is fvprefetch's own folder");
    } else if (path.ends_with(kPartialSuffix) || path.ends_with(kUnpackSuffix)) {
      problem(field, "names that end in \"" + std::string(path.substr(path.rfind(kOwnSuffix))) +
                         "\" are fvprefetch's own, for unfinished downloads");
    } else if (last_segment(path).size() > kLongestFileName) {
      problem(field, "expected a file name of at most " + std::to_string(kLongestFileName) +
                         " bytes, got " + std::to_string(last_segment(path).size()));
    }
  }

  void destination() {
    if (entry_.dest.empty()) return;
    constexpr std::string_view kPlaces = "models/..., torch/..., clip/... or <library>/...";
    if (const auto fault = relative_path_fault(entry_.dest); !fault.empty()) {
      problem("/dest", "\"" + printable(entry_.dest) + "\" " + std::string(fault));
    } else if (!is_printable(entry_.dest)) {
      problem("/dest", "\"" + printable(entry_.dest) + "\" " + kUnprintable);
    } else if (entry_.dest.find('/') == std::string::npos) {
      problem("/dest",
              "\"" + printable(entry_.dest) + "\" has no folder; expected " + std::string(kPlaces));
    } else if (entry_.dest.front() == '.') {
      problem("/dest", "\"" + printable(entry_.dest) + "\" begins with \".\"; expected " +
                           std::string(kPlaces));
    } else {
      file_name("/dest", entry_.dest);
    }
  }

  void mirrors() {
    for (std::size_t i = 0; i < entry_.mirrors.size(); ++i) {
      const std::string field = "/mirrors/" + std::to_string(i);
      const std::string& mirror = entry_.mirrors[i];
      if (has_control_character(mirror)) {
        problem(field, "has a control character");
      } else if (!is_url(mirror)) {
        problem(field, "expected an http(s) URL");
      } else if (const std::string fault = url_fault(mirror); !fault.empty()) {
        problem(field, fault);
      }
    }
  }

  void hub_fields_on_url() {
    const auto refuse = [this](bool given, const std::string& field) {
      if (given) problem(field, "is for Hub repos only, and the source is a URL");
    };
    refuse(!entry_.filename.empty(), "/filename");
    refuse(!entry_.revision.empty(), "/revision");
    refuse(!entry_.repo_type.empty(), "/repo_type");
    refuse(!entry_.include.empty(), "/include");
    refuse(!entry_.exclude.empty(), "/exclude");
    refuse(!entry_.files.empty(), "/files");
    refuse(!entry_.locked_from.empty(), "/locked_from");
  }

  void url_fields_without_url() {
    const auto refuse = [this](bool given, const std::string& field) {
      if (given) {
        problem(field, "is for URLs only, and the source does not begin with http:// or https://");
      }
    };
    refuse(!entry_.mirrors.empty(), "/mirrors");
    refuse(!entry_.dest.empty(), "/dest");
    refuse(entry_.unpack, "/unpack");
  }

  void hub_fields() {
    if (!entry_.filename.empty()) {
      if (const auto fault = relative_path_fault(entry_.filename); !fault.empty()) {
        problem("/filename", "\"" + printable(entry_.filename) + "\" " + std::string(fault));
      }
      const std::string with = "cannot be combined with `filename`, which names one file";
      if (!entry_.include.empty()) problem("/include", with);
      if (!entry_.exclude.empty()) problem("/exclude", with);
    }
    if (!entry_.revision.empty()) {
      // A revision names a file below refs/ in the cache, and git allows no ".." in it anyway.
      if (const auto fault = relative_path_fault(entry_.revision); !fault.empty()) {
        problem("/revision", "\"" + printable(entry_.revision) + "\" " + std::string(fault));
      } else if (entry_.revision.find("..") != std::string::npos) {
        problem("/revision", "\"" + printable(entry_.revision) + "\" has \"..\"");
      }
    }
    if (!hub::parse_repo_type(entry_.repo_type)) {
      problem("/repo_type", "expected \"model\", \"dataset\" or \"space\", got \"" +
                                printable(entry_.repo_type) + "\"");
    }
    patterns("/include/", entry_.include);
    patterns("/exclude/", entry_.exclude);
  }

  void patterns(const std::string& field, const std::vector<std::string>& patterns) {
    for (std::size_t i = 0; i < patterns.size(); ++i) {
      if (patterns[i].empty()) problem(field + std::to_string(i), "must not be empty");
    }
  }

  void pinned_files() {
    if (has_control_character(entry_.locked_from)) {
      problem("/locked_from", "has a control character");
    }
    if (entry_.files.empty()) {
      if (!entry_.locked_from.empty()) problem("/locked_from", "is for entries with `files` only");
      return;
    }
    // What a branch has may change; what a commit has may not.
    if (entry_.revision.empty()) {
      problem("/files", "needs a commit of 40 hex digits as `revision`");
    } else if (!hub::is_commit(entry_.revision)) {
      problem("/revision",
              "expected a commit of 40 lower-case hex digits, as there are `files`, "
              "got \"" +
                  printable(entry_.revision) + "\"");
    }
    const std::size_t before = problems_.size();
    std::map<std::string_view, std::size_t> first_of_path;
    for (std::size_t i = 0; i < entry_.files.size(); ++i) {
      const PinnedFile& file = entry_.files[i];
      const std::string here = "/files/" + std::to_string(i);
      pinned_file(here, file);
      if (file.path.empty()) continue;
      const auto [first, is_new] = first_of_path.emplace(file.path, i);
      if (!is_new) {
        problem(here + "/path", "\"" + printable(file.path) + "\" is the path of /files/" +
                                    std::to_string(first->second) + " already");
      } else if (file.path == entry_.filename) {
        agrees_with_entry(here, file);
      }
    }
    if (problems_.size() > before) return;  // of what is wrong by itself nothing can be said
    if (const std::string fault = hub::list_fault(listed(entry_.files)); !fault.empty()) {
      problem("/files", fault);
    }
  }

  static std::vector<RepoFile> listed(const std::vector<PinnedFile>& pinned) {
    std::vector<RepoFile> files;
    for (const PinnedFile& file : pinned) {
      RepoFile one;
      one.path = file.path;
      one.size = file.size;
      one.git_oid = lower_hex(file.git_sha1);
      one.lfs_sha256 = lower_hex(file.sha256);
      files.push_back(std::move(one));
    }
    return files;
  }

  void pinned_file(const std::string& here, const PinnedFile& file) {
    if (const auto fault = relative_path_fault(file.path); !fault.empty()) {
      problem(here + "/path", "\"" + printable(file.path) + "\" " + std::string(fault));
    }
    size(here + "/size", file.size);
    if (file.sha256.empty() && file.git_sha1.empty()) {
      problem(here + "/sha256", "is missing, and so is `git_sha1`");
    } else if (!file.sha256.empty() && !file.git_sha1.empty()) {
      problem(here + "/git_sha1", "cannot be combined with `sha256`, which is for LFS files");
    }
    digest(here + "/sha256", file.sha256, kSha256Digits);
    digest(here + "/git_sha1", file.git_sha1, kGitSha1Digits);
  }

  /// One file, pinned in two places.
  void agrees_with_entry(const std::string& here, const PinnedFile& file) {
    if (entry_.size && *entry_.size != file.size) {
      problem(here + "/size", "is " + std::to_string(file.size) + ", but `size` of the entry is " +
                                  std::to_string(*entry_.size));
    }
    if (!entry_.sha256.empty() && !file.sha256.empty() &&
        lower_hex(entry_.sha256) != lower_hex(file.sha256)) {
      problem(here + "/sha256", "is not the `sha256` of the entry");
    }
  }

  void digest(const std::string& field, const std::string& hex, std::size_t digits) {
    if (hex.empty()) return;
    const std::string expected = "expected " + std::to_string(digits) + " hex digits, got ";
    if (!is_hex(lower_hex(hex))) {
      problem(field, expected + "\"" + printable(hex) + "\"");
    } else if (hex.size() != digits) {
      problem(field, expected + std::to_string(hex.size()));
    }
  }

  void size(const std::string& field, std::uint64_t bytes) {
    if (bytes <= kLargestFile) return;
    problem(field, "expected at most 2^63-1 bytes, got " + std::to_string(bytes));
  }

  const Entry& entry_;
  NameRule rule_;
  bool url_;
  std::vector<EntryProblem> problems_;
};

}  // namespace

std::vector<EntryProblem> check_entry(const Entry& entry, NameRule rule) {
  return Checker(entry, rule).run();
}

bool is_url(std::string_view source) {
  return source.starts_with("http://") || source.starts_with("https://");
}

std::string lower_hex(std::string_view hex) {
  std::string lower(hex);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return lower;
}

}  // namespace fvprefetch
