// A directory of a test's own, removed at its end.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>  // mkdtemp

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace fvprefetch::testing {

class TempDir {
 public:
  TempDir() {
    std::string path = (std::filesystem::temp_directory_path() / "fvprefetch-test.XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) ADD_FAILURE() << "cannot make " << path;
    path_ = std::filesystem::canonical(path).string();
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::string& path() const { return path_; }
  /// The path of `relative` in it.
  [[nodiscard]] std::string operator/(std::string_view relative) const {
    return path_ + "/" + std::string(relative);
  }

  /// Writes a file, making its directories, and returns its path.
  std::string write(std::string_view relative, std::string_view text) const {
    const std::filesystem::path file = *this / relative;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
    return file.string();
  }
  void append(std::string_view relative, std::string_view text) const {
    std::ofstream(*this / relative, std::ios::binary | std::ios::app) << text;
  }
  /// The bytes of a file, or "<missing>".
  [[nodiscard]] std::string read(std::string_view relative) const {
    std::ifstream file(*this / relative, std::ios::binary);
    if (!file) return "<missing>";
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  /// Every file and link below `relative` (not the directories), as paths from there, sorted.
  [[nodiscard]] std::vector<std::string> files(std::string_view relative = "") const {
    const std::filesystem::path base = *this / relative;
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(base)) {
      if (!entry.is_directory() || entry.is_symlink()) {
        found.push_back(entry.path().lexically_relative(base).string());
      }
    }
    std::sort(found.begin(), found.end());
    return found;
  }

 private:
  std::string path_;
};

}  // namespace fvprefetch::testing
