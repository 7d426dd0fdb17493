#include "prefetch/glance.h"

#include <array>
#include <span>

#include "base/posix.h"
#include "base/try.h"

namespace fvprefetch {
namespace {

/// The file that a download manager keeps beside another as long as that is not whole.
std::string unfinished_by(const std::string& path) {
  // Each is a look at a name, which a busy file server makes one wait for.
  constexpr auto kSuffixes = std::to_array<const char*>({".aria2", ".st", ".part", ".crdownload"});
  for (const char* suffix : kSuffixes) {
    const std::string control = path + suffix;
    const auto info = posix::lstat(control);
    if (info && *info && (*info)->regular) {
      return "is not whole: `" + control.substr(control.find_last_of('/') + 1) +
             "` beside it says that a download has not ended";
    }
  }
  return {};
}

Glance look_into_file(const std::string& path, const Asked& asked) {
  Glance seen;
  const auto file = posix::open_with_info(path);
  if (!file) {
    seen.gone = file.error().code == ErrorCode::kNotFound;
    return seen;
  }
  Contents contents;
  contents.size = file->info.size;
  contents.read = [&](std::uint64_t offset, std::size_t length) -> Result<std::string> {
    std::string bytes(length, '\0');
    FVP_TRY(const std::size_t there,
            posix::read_fully_at(file->fd, offset, std::as_writable_bytes(std::span(bytes)), path));
    bytes.resize(there);
    return bytes;
  };
  if (auto fault = fault_of(contents, asked)) seen.fault = *std::move(fault);
  return seen;
}

/// A look into a folder and those in it, of bounded length whatever there is.
class FolderLook {
 public:
  explicit FolderLook(const StopCheck& must_stop) : must_stop_(must_stop) {}

  std::vector<std::string> run(const std::string& folder) {
    look_into(folder, kLevels);
    if (!any_file_ && !ended_ && names_ <= kMostNames) {
      const std::string what = names_ == 0 ? " is empty" : " has no file in it";
      faults_.insert(faults_.begin(), "the folder " + folder + what);
    }
    return std::move(faults_);
  }

 private:
  static constexpr int kLevels = 8;
  static constexpr std::size_t kMostNames = 10'000;
  static constexpr std::size_t kMostFiles = 100;  ///< that are opened
  static constexpr std::size_t kMostFaults = 20;

  void look_into(const std::string& folder, int levels) {
    const auto names = posix::list(folder);
    if (!names) {
      any_file_ = true;  // nobody knows
      return;
    }
    for (const std::string& name : *names) {
      ended_ = ended_ || faults_.size() >= kMostFaults || (must_stop_ && must_stop_());
      if (ended_ || ++names_ > kMostNames) return;
      const std::string path = folder + "/" + name;
      const auto info = posix::stat(path);
      if (info && !*info) faults_.push_back(path + " is a link that leads to no file");
      if (!info || !*info) {
        any_file_ = true;
      } else if ((*info)->directory) {
        if (levels == 1) any_file_ = true;
        if (levels > 1 && name != ".git") look_into(path, levels - 1);
      } else {
        any_file_ = true;
        look_at(path, asked_as(name), **info);
      }
    }
  }

  void look_at(const std::string& path, const Asked& asked, const posix::FileInfo& info) {
    if (!info.regular) return;
    if (asked.wanted == Wanted::kWeights && looked_ < kMostFiles) {
      ++looked_;
      const std::string fault = glance(path, asked).fault;
      if (!fault.empty()) faults_.push_back(path + " " + fault);
    } else if (info.size > 0 && info.size <= kSniffBytes && is_pointer(path)) {
      // It is small, whatever it is called.
      faults_.push_back(path + " is a Git LFS pointer");
    }
  }

  const StopCheck& must_stop_;
  std::vector<std::string> faults_;
  std::size_t names_ = 0;
  std::size_t looked_ = 0;
  bool any_file_ = false;
  bool ended_ = false;
};

}  // namespace

Glance glance(const std::string& path, const Asked& asked) {
  Glance seen = look_into_file(path, asked);
  if (!seen.gone && seen.fault.empty()) seen.fault = unfinished_by(path);
  return seen;
}

std::string contents_fault(const std::string& path, const Asked& asked) {
  return look_into_file(path, asked).fault;
}

bool is_pointer(const std::string& path) {
  const auto text = posix::read_small(path, kSniffBytes);  // more is none
  return text && *text && sniff(**text) == Impostor::kLfsPointer;
}

std::vector<std::string> faults_at_path(const PathSource& source, const StopCheck& must_stop) {
  const auto info = posix::stat(source.path);
  if (!info || !*info) return {};
  if ((*info)->directory) return faults_in_folder(source.path, must_stop);
  if (!(*info)->regular) return {};
  const std::string fault = glance(source.path, asked_of(source)).fault;
  return fault.empty() ? std::vector<std::string>() : std::vector{source.path + " " + fault};
}

std::vector<std::string> faults_in_folder(const std::string& folder, const StopCheck& must_stop) {
  return FolderLook(must_stop).run(folder);
}

}  // namespace fvprefetch
