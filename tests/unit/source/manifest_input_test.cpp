// Manifests that come by pipes, whose other end may take its time or never close.
#include "source/manifest_input.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <thread>

#include "support/matchers.h"
#include "support/temp_dir.h"

namespace fvprefetch {
namespace {

using namespace testing;

TEST(JsonEnd, IsWhereTheOutermostBracketCloses) {
  for (const char* whole : {"{}", " \n[1, [2]]\n", R"({"a": "}"})", R"({"a": "\"}", "b": {}})"}) {
    EXPECT_TRUE(JsonEnd().closed_after(whole)) << whole;
    const std::string text = whole;
    const std::size_t end = text.find_last_of("}]");
    EXPECT_FALSE(JsonEnd().closed_after(text.substr(0, end))) << whole;
    JsonEnd in_pieces;
    bool closed = false;
    for (const char c : text) closed = in_pieces.closed_after(std::string(1, c));
    EXPECT_TRUE(closed) << whole;
  }
  for (const char* other : {"", "  ", "version: 1", "\"}\""}) {
    EXPECT_FALSE(JsonEnd().closed_after(other)) << other;
  }
}

TEST(ManifestInput, StandardInputEndsWithTheDocumentAlsoWhenNobodyClosesIt) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const int before = ::dup(STDIN_FILENO);
  ASSERT_EQ(::dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
  const std::string text = R"([{"name": "a", "source": "/"}])";
  std::thread writer([&] {
    for (const char c : text) EXPECT_EQ(::write(ends[1], &c, 1), 1);
  });
  const auto read = read_manifest_text("-");
  writer.join();
  ::dup2(before, STDIN_FILENO);
  for (const int fd : {before, ends[0], ends[1]}) ::close(fd);
  ASSERT_TRUE(IsOk(read));
  EXPECT_EQ(*read, text);
}

TEST(ManifestInput, AFifoWithoutAWriterIsWaitedForUntilTheRunHasToEnd) {
  const TempDir dir;
  const std::string path = dir / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  int asked = 0;
  InputWait wait;
  wait.must_stop = [&]() -> std::optional<Error> {
    return ++asked < 3 ? std::nullopt : std::optional(interrupted(SIGINT));
  };
  EXPECT_TRUE(FailsWith(read_manifest_text(path, wait),
                        ErrorCode{static_cast<int>(ErrorCode::kSignalBase) + SIGINT}, ""));
}

TEST(ManifestInput, AFifoIsReadToTheEndOfItsWriter) {
  const TempDir dir;
  const std::string path = dir / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const std::string text = "[]   \n";
  std::thread writer([&] {
    const int fd = ::open(path.c_str(), O_WRONLY);
    EXPECT_EQ(::write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    ::close(fd);
  });
  const auto read = read_manifest_text(path);
  writer.join();
  ASSERT_TRUE(IsOk(read));
  EXPECT_EQ(*read, text);
}

TEST(ManifestInput, WhatIsNotThereAndWhatIsADirectoryAreToldAsSuch) {
  const TempDir dir;
  EXPECT_TRUE(FailsWith(read_manifest_text(dir / "none"), ErrorCode::kNotFound, "does not exist"));
  EXPECT_TRUE(FailsWith(read_manifest_text(dir.path()), ErrorCode::kUsage, "is a directory"));
}

}  // namespace
}  // namespace fvprefetch
