#include "place.h"

#include <sys/utsname.h>

#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "base/posix.h"

namespace fvprefetch::contending {
namespace {

// The last mount of those above `folder` is the one that is seen.
//   36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/root rw,errors=continue
void find_mount(const std::string& folder, Place& place) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::size_t longest = 0;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string word;
    std::string point;
    std::string options;
    for (int i = 0; i < 4; ++i) words >> word;
    words >> point >> options;
    while (words >> word && word != "-") {
    }
    std::string type;
    std::string super;
    words >> type >> word >> super;
    const bool above = point == "/" || folder == point || folder.starts_with(point + "/");
    if (!above || point.size() < longest) continue;
    longest = point.size();
    place.file_system = type;
    place.options = options + "," + super;
  }
}

std::string without_names(const std::string& options) {
  std::istringstream words(options);
  std::string kept;
  std::vector<std::string> seen;
  for (std::string word; std::getline(words, word, ',');) {
    const bool names = word.find('/') != std::string::npos ||
                       word.find("addr=") != std::string::npos || word.starts_with("user");
    if (names || ("," + kept + ",").find("," + word + ",") != std::string::npos) continue;
    kept += (kept.empty() ? "" : ",") + word;
  }
  return kept;
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace

Place place_of(const std::string& folder) {
  Place place;
  find_mount(posix::real_path(folder), place);
  place.options = without_names(place.options);
  place.processor = processor();
  place.cores = static_cast<int>(std::thread::hardware_concurrency());
  utsname name{};
  if (::uname(&name) == 0) place.kernel = name.release;
  return place;
}

}  // namespace fvprefetch::contending
