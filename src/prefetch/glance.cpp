#include "prefetch/glance.h"

#include <span>

#include "base/posix.h"
#include "base/try.h"

namespace fvprefetch {
namespace {

/// The control file that a download manager keeps beside a file as long as it is not whole.
std::string unfinished_by(const std::string& path) {
  for (const char* suffix : {".aria2", ".st"}) {  // aria2c, axel
    const std::string control = path + suffix;
    const auto info = posix::lstat(control);
    if (info && *info && (*info)->regular) {
      return "is not whole: `" + control.substr(control.find_last_of('/') + 1) +
             "` beside it says that a download has not ended";
    }
  }
  return {};
}

constexpr std::size_t kMostFiles = 100;

void look_into_folder(const std::string& folder, int levels, std::size_t& looked,
                      std::vector<std::string>& faults) {
  const auto names = posix::list(folder);
  if (!names) return;
  for (const std::string& name : *names) {
    if (looked >= kMostFiles) return;
    const std::string path = folder + "/" + name;
    const auto info = posix::stat(path);
    if (!info || !*info) continue;
    if ((*info)->directory && levels > 1 && name != ".git") {
      look_into_folder(path, levels - 1, looked, faults);
    }
    const Asked asked = asked_as(name);
    if (!(*info)->regular || asked.wanted != Wanted::kWeights) continue;
    ++looked;
    if (const std::string fault = glance(path, asked).fault; !fault.empty()) {
      faults.push_back(path + " " + fault);
    }
  }
}

}  // namespace

Glance glance(const std::string& path, const Asked& asked) {
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
  if (seen.fault.empty()) seen.fault = unfinished_by(path);
  return seen;
}

bool is_pointer(const std::string& path) {
  const auto text = posix::read_small(path, kSniffBytes);  // more is none
  return text && *text && sniff(**text) == Impostor::kLfsPointer;
}

std::vector<std::string> faults_at_path(const std::string& path) {
  std::vector<std::string> faults;
  const auto info = posix::stat(path);
  if (!info || !*info) return faults;
  if ((*info)->regular) {
    Asked asked = asked_as(path);
    asked.may_be_empty = false;  // it is given as a checkpoint
    if (const std::string fault = glance(path, asked).fault; !fault.empty()) {
      faults.push_back(path + " " + fault);
    }
  } else if ((*info)->directory) {
    if (const auto names = posix::list(path); names && names->empty()) {
      faults.push_back("the folder " + path + " is empty");
    }
    std::size_t looked = 0;
    constexpr int kLevels = 3;
    look_into_folder(path, kLevels, looked, faults);
  }
  return faults;
}

}  // namespace fvprefetch
