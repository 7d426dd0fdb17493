#include "stand_in.h"

#include "digest.h"
#include "gzip.h"

#include <zlib.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

namespace fvprefetch::testhub {

namespace fs = std::filesystem;

namespace {

// Not HTML, not an LFS pointer, not text: what a checkpoint of an unknown format looks like.
constexpr std::string_view kMagic =
    "\x89"
    "FVP stand-in\r\n\x1a\n";

// splitmix64: a GiB of stand-in should not take longer to make than to send.
class Noise {
 public:
  explicit Noise(const std::string& identity)
      : state_(std::stoull(sha256_hex(identity).substr(0, 16), nullptr, 16)) {}

  void fill(std::string& out, std::size_t count) {
    out.clear();
    while (out.size() < count) {
      state_ += 0x9E3779B97F4A7C15ULL;
      std::uint64_t word = state_;
      word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9ULL;
      word = (word ^ (word >> 27)) * 0x94D049BB133111EBULL;
      word ^= word >> 31;
      for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(word >> (8 * i)));
    }
    out.resize(count);
  }

 private:
  std::uint64_t state_;
};

// A file is a head that is written out and a tail of noise.
struct Content {
  std::string head;
  std::uint64_t noise = 0;
  std::uint64_t size() const { return head.size() + noise; }
};

void put_little(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

Content safetensors(std::uint64_t bytes) {
  constexpr std::uint64_t kHeader = 128;
  const std::uint64_t data = bytes > kHeader + 8 ? bytes - kHeader - 8 : 1;
  const std::string count = std::to_string(data);
  std::string header =
      R"({"stand_in":{"dtype":"U8","shape":[)" + count + R"(],"data_offsets":[0,)" + count + "]}}";
  header.resize(kHeader, ' ');
  Content content;
  put_little(content.head, kHeader, 8);
  content.head += header;
  content.noise = data;
  return content;
}

using Member = std::pair<std::string, std::string>;  // path, bytes

std::vector<Member> archive_members(const std::string& identity, std::uint64_t bytes) {
  std::string data;
  Noise(identity).fill(data, static_cast<std::size_t>(bytes));
  return {{"stand-in/README.md", "A stand-in for " + identity + "\n"},
          {"stand-in/hubconf.py", "dependencies = []\n"},
          {"stand-in/data/weights.bin", std::move(data)}};
}

std::string zip_of(const std::vector<Member>& members) {
  constexpr std::uint64_t kVersion = 20;
  constexpr std::uint64_t kDate = (46 << 9) | (1 << 5) | 1;  // 2026-01-01
  std::string out;
  std::string directory;
  for (const auto& [path, bytes] : members) {
    const uLong crc = ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
    std::string common;
    put_little(common, kVersion, 2);
    put_little(common, 0, 2);  // flags
    put_little(common, 0, 2);  // stored
    put_little(common, 0, 2);  // time
    put_little(common, kDate, 2);
    put_little(common, crc, 4);
    put_little(common, bytes.size(), 4);
    put_little(common, bytes.size(), 4);
    put_little(common, path.size(), 2);
    put_little(common, 0, 2);  // extra

    directory += "PK\x01\x02";
    put_little(directory, kVersion, 2);
    directory += common;
    directory.append(10, '\0');  // comment, disk, attributes
    put_little(directory, out.size(), 4);
    directory += path;

    out += "PK\x03\x04";
    out += common;
    out += path;
    out += bytes;
  }
  const std::size_t directory_at = out.size();
  out += directory;
  out += "PK\x05\x06";
  put_little(out, 0, 4);
  put_little(out, members.size(), 2);
  put_little(out, members.size(), 2);
  put_little(out, directory.size(), 4);
  put_little(out, directory_at, 4);
  put_little(out, 0, 2);
  return out;
}

std::string tar_of(const std::vector<Member>& members) {
  std::string out;
  for (const auto& [path, bytes] : members) {
    std::array<char, 512> header{};
    const auto put = [&](std::size_t at, const std::string& text) {
      std::memcpy(header.data() + at, text.data(), text.size());
    };
    const auto octal = [](std::uint64_t value) {
      std::string digits(11, '0');
      for (std::size_t i = digits.size(); i-- > 0; value /= 8) {
        digits[i] = static_cast<char>('0' + value % 8);
      }
      return digits;
    };
    put(0, path);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, octal(bytes.size()));
    put(136, octal(0));
    put(148, "        ");
    put(156, "0");
    put(257, std::string("ustar\0"
                         "00",
                         8));
    std::uint64_t sum = 0;
    for (const char c : header) sum += static_cast<unsigned char>(c);
    put(148, octal(sum).substr(5) + std::string("\0 ", 2));
    out.append(header.data(), header.size());
    out += bytes;
    out.append((512 - bytes.size() % 512) % 512, '\0');
  }
  return out.append(1024, '\0');
}

Content archive(const std::string& name, const std::string& identity, std::uint64_t bytes) {
  constexpr std::uint64_t kMost = 64 << 20;  // made in memory
  const auto members = archive_members(identity, std::min(bytes, kMost));
  const auto ends_with = [&](std::string_view suffix) { return name.ends_with(suffix); };
  if (ends_with(".tar")) return {tar_of(members), 0};
  if (ends_with(".tar.gz") || ends_with(".tgz")) return {gzip(tar_of(members)), 0};
  if (ends_with(".xz") || ends_with(".zst")) {
    throw std::runtime_error("no stand-in for " + name + ": only zip, tar and tar.gz are made");
  }
  return {zip_of(members), 0};  // also codeload.github.com/<repo>/zip/refs/heads/main
}

Content content_of(const std::string& name, const std::string& identity, std::uint64_t bytes) {
  const auto ends_with = [&](std::string_view suffix) { return name.ends_with(suffix); };
  if (ends_with(".safetensors")) return safetensors(bytes);
  if (ends_with("tokenizer.json")) {
    return {R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[],)"
            R"("model":{"type":"WordLevel","vocab":{"[UNK]":0},"unk_token":"[UNK]"}})"
            "\n",
            0};
  }
  if (ends_with(".json")) {
    return {R"({"model_type":"stand-in","architectures":["StandIn"],"stand_in_for":")" + identity +
                "\"}\n",
            0};
  }
  if (ends_with(".md") || ends_with(".txt")) return {"A stand-in for " + identity + "\n", 0};
  Content content{std::string(kMagic.substr(0, std::min<std::uint64_t>(bytes, kMagic.size()))), 0};
  content.noise = bytes - content.head.size();
  return content;
}

void write(const fs::path& file, const std::string& identity, const Content& content) {
  fs::create_directories(file.parent_path());
  fs::path temporary = file;
  temporary += "." + std::to_string(::getpid()) + ".tmp";
  std::ofstream out(temporary, std::ios::binary);
  out << content.head;
  Noise noise(identity);
  std::string piece;
  for (std::uint64_t left = content.noise; left > 0 && out; left -= piece.size()) {
    noise.fill(piece, static_cast<std::size_t>(std::min<std::uint64_t>(left, 1 << 20)));
    out << piece;
  }
  out.close();
  if (!out) throw std::runtime_error("cannot write " + temporary.string());
  fs::rename(temporary, file);
}

}  // namespace

std::uint64_t write_stand_in(const fs::path& file, const std::string& identity, std::uint64_t bytes,
                             std::uint64_t known_size, StandInForm form) {
  const std::string name = file.filename().string();
  const Content content = form == StandInForm::kArchive ? archive(name, identity, bytes)
                                                        : content_of(name, identity, bytes);
  std::error_code missing;
  const std::uintmax_t there = fs::file_size(file, missing);
  if (!missing && (there == content.size() || (known_size != 0 && there == known_size))) {
    return there;
  }
  write(file, identity, content);
  return content.size();
}

}  // namespace fvprefetch::testhub
