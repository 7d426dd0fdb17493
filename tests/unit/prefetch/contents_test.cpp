// What shows of a file by a few of its bytes; and headers that lie, which must cost nothing.
#include "prefetch/contents.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>

#include "support/matchers.h"

namespace fvprefetch {
namespace {

using namespace std::string_literals;

std::string number(std::uint64_t value, std::size_t width) {
  std::string bytes;
  for (std::size_t i = 0; i < width; ++i, value >>= 8U) bytes += static_cast<char>(value & 0xFFU);
  return bytes;
}

/// The file, and how much of it was read.
struct Read {
  std::string fault;
  std::size_t reads = 0;
  std::size_t largest = 0;
};

Read look(const std::string& name, const std::string& bytes) {
  Read read;
  Contents contents;
  contents.size = bytes.size();
  contents.read = [&](std::uint64_t offset, std::size_t length) -> Result<std::string> {
    ++read.reads;
    read.largest = std::max(read.largest, length);
    if (offset > bytes.size()) ADD_FAILURE() << "reads at " << offset << ", behind the end";
    return offset < bytes.size() ? bytes.substr(static_cast<std::size_t>(offset), length) : "";
  };
  auto fault = fault_of(contents, asked_as(name));
  EXPECT_TRUE(testing::IsOk(fault));
  read.fault = fault.value_or("error");
  return read;
}

std::string safetensors(const std::string& header, std::size_t data) {
  return number(header.size(), 8) + header + std::string(data, '\x01');
}
const std::string kTensors =
    R"({"__metadata__":{"data_offsets":"no"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})";

/// One member and its directory.
std::string zip(const std::string& comment = "") {
  const std::string member = "PK\x03\x04" + std::string(50, '\x01');
  const std::string directory = "PK\x01\x02" + std::string(42, '\x01');
  return member + directory + "PK\x05\x06" + number(0, 4) + number(1, 2) + number(1, 2) +
         number(directory.size(), 4) + number(member.size(), 4) + number(comment.size(), 2) +
         comment;
}
std::string zip64(std::uint64_t length, std::uint64_t offset, std::uint64_t record) {
  const std::string member = "PK\x03\x04" + std::string(50, '\x01');
  const std::string directory = "PK\x01\x02" + std::string(42, '\x01');
  return member + directory + "PK\x06\x06" + std::string(28, '\0') + number(1, 8) +
         number(length, 8) + number(offset, 8) + "PK\x06\x07" + number(0, 4) + number(record, 8) +
         number(1, 4) + "PK\x05\x06" + number(0, 4) + number(0xFFFF, 2) + number(0xFFFF, 2) +
         number(0xFFFFFFFF, 4) + number(0xFFFFFFFF, 4) + number(0, 2);
}
/// Both end records, of which the second tells everything, too.
std::string pytorch_zip() {
  const std::string whole = zip64(46, 54, 100);
  const std::string plain = zip();
  return whole.substr(0, whole.size() - 22) + plain.substr(plain.size() - 22);
}
/// One tensor of so many 16-bit numbers, the name of which is as long as said.
std::string gguf(std::uint64_t elements, std::uint64_t name, std::size_t data) {
  std::string file = "GGUF" + number(3, 4) + number(1, 8) + number(2, 8);
  file += number(1, 8) + "a" + number(8, 4) + number(2, 8) + "bc";  // a string
  file +=
      number(1, 8) + "b" + number(9, 4) + number(4, 4) + number(2, 8) + number(0, 8);  // numbers
  file += number(name, 8) + "w0" + number(1, 4) + number(elements, 8) + number(1, 4) + number(0, 8);
  file.resize((file.size() + 31) / 32 * 32 + data, '\x01');
  return file;
}
std::string tar(std::size_t size) {
  std::string head(512, '\0');
  head.replace(0, 4, "name");
  head.replace(124, 11, "00000001000");  // 512
  head.replace(148, 8, "        ");
  head[156] = '0';
  unsigned sum = 0;
  for (const char c : head) sum += static_cast<unsigned char>(c);
  std::string digits;
  for (int i = 0; i < 6; ++i, sum /= 8) digits.insert(0, 1, static_cast<char>('0' + sum % 8));
  head.replace(148, 8, digits + "\0 "s);
  head.resize(size, '\x01');
  return head;
}
std::string hdf5(std::uint64_t end, std::size_t size) {
  std::string file = "\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0"s + std::string(8, '\0') +
                     number(0, 8) + number(UINT64_MAX, 8) + number(end, 8) + number(0, 8);
  file.resize(size, '\x01');
  return file;
}
std::string hdf5_v2(std::uint64_t end, std::size_t size) {
  std::string file = "\x89HDF\r\n\x1a\n\x02\x08\x08\0"s + number(0, 8) + number(UINT64_MAX, 8) +
                     number(end, 8) + number(0, 8);
  file.resize(size, '\x01');
  return file;
}
std::string npy(const std::string& header, std::size_t data) {
  return "\x93NUMPY\x01\0"s + number(header.size(), 2) + header + std::string(data, '\x01');
}
std::string random_like(std::size_t size) {
  std::string bytes;
  unsigned state = 1;
  while (bytes.size() < size)
    bytes += static_cast<char>((state = state * 1103515245U + 12345U) >> 16U);
  return bytes;
}

struct Row {
  std::string name;
  std::string file;
  std::string bytes;
  std::string says;  // a part of the fault; "" none
  friend void PrintTo(const Row& row, std::ostream* out) { *out << row.name; }
};

class FaultOf : public ::testing::TestWithParam<Row> {};

TEST_P(FaultOf, SaysWhatTheTableSays) {
  const Row& row = GetParam();
  const Read read = look(row.file, row.bytes);
  if (row.says.empty()) {
    EXPECT_EQ(read.fault, "");
  } else {
    EXPECT_NE(read.fault.find(row.says), std::string::npos) << read.fault;
  }
  EXPECT_LE(read.reads, 6U);
  EXPECT_LE(read.largest, 1U << 17U);
}

INSTANTIATE_TEST_SUITE_P(
    Any, FaultOf,
    ::testing::Values(
        Row{"Weights", "a.pth", random_like(5000), ""}, Row{"Empty", "a.pth", "", "is empty"},
        Row{"EmptyModule", "__init__.py", "", ""},
        Row{"Pointer", "a.pth", "version https://git-lfs.github.com/spec/v1\noid sha256:ab",
            "LFS pointer"},
        Row{"PointerAsText", "a.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:ab",
            "LFS pointer"},
        Row{"Page", "a.pth", "<html>", "an HTML page, which begins `<html>`"},
        Row{"PageAsJson", "config.json", "<html>", "HTML"},
        Row{"PageAsPage", "index.html", "<html>", ""},
        Row{"PageInRoomForMore", "a.pth", "<html>" + std::string(5000, '\0'), "HTML"},
        Row{"Text", "a.ckpt", "not found", "plain text"},
        Row{"TextAsText", "a.txt", "not found", ""},
        Row{"Zeros", "a.pth", std::string(5000, '\0'), "zeros"},
        Row{"ZerosInFront", "a.pth", std::string(2000, '\0') + random_like(3000), "zeros"},
        Row{"PlainNumbersMayBeginWithZeros", "a.bin", std::string(2000, '\0') + random_like(3000),
            ""},
        Row{"OnlyZerosAsPlainNumbers", "a.bin", std::string(9000, '\0'), "zeros"},
        Row{"OnlyZerosWithoutASuffix", "a", std::string(9000, '\0'), "zeros"},
        Row{"LegacyTorch", "a.pth", "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s, ""},
        Row{"Gguf", "a.gguf", gguf(50, 2, 100), ""},
        Row{"GgufCut", "a.gguf", gguf(51, 2, 100), "cut short"},
        Row{"GgufOverflows", "a.gguf", gguf(UINT64_MAX, 2, 100), "cut short"},
        Row{"GgufInItsHeader", "a.gguf", gguf(50, 2, 100).substr(0, 60), "GGUF header"},
        Row{"GgufNameBeyond", "a.gguf", gguf(50, UINT64_MAX, 100), "GGUF header"},
        Row{"GgufOfTheFuture", "a.gguf", "GGUF\x04\0\0\0"s + random_like(100), ""},
        Row{"Tar", "a.pt", tar(1024), ""}, Row{"TarAndMore", "a.tar", tar(9216), ""},
        Row{"TarCut", "a.pt", tar(1023), "cut short"},
        Row{"TarCutInAHead", "a.pt", tar(1500), "cut short"},
        Row{"TarCutInItsData", "a.tar", tar(512), "cut short"},
        Row{"NoGguf", "a.gguf", random_like(100), "no GGUF"},
        Row{"TensorFlow", "a.ckpt.data-00000-of-00001", "not found", "plain text"},
        Row{"Gzip", "a.tgz", "\x1f\x8b\x08\0"s + random_like(100), ""},
        Row{"NoGzip", "a.tar.gz", random_like(100), "no gzip"}),
    testing::row_name<Row>);

INSTANTIATE_TEST_SUITE_P(
    Zip, FaultOf,
    ::testing::Values(
        Row{"Whole", "a.pth", zip(), ""}, Row{"Comment", "a.npz", zip(std::string(3000, 'c')), ""},
        Row{"LongestComment", "a.npz", zip(std::string(0xFFFF, 'c')), ""},
        Row{"InFront", "a.zip", "#!/bin/sh\n\x01" + zip(), ""},
        Row{"Empty", "a.zip", "PK\x05\x06" + std::string(18, '\0'), ""},
        Row{"Cut", "a.pth", zip().substr(0, 60), "cut short"},
        Row{"CutInTheRecord", "a.pth", zip().substr(0, zip().size() - 3), "cut short"},
        Row{"OnlyAMagic", "a.pt", "PK\x03\x04", "cut short"},
        Row{"CutAsCkpt", "a.ckpt", zip().substr(0, 60), "cut short"},
        Row{"NoZip", "a.npz", random_like(500), "no zip"},
        Row{"DirectoryBeyond", "a.pth",
            "PK\x03\x04"
            "PK\x05\x06" +
                number(0, 4) + number(1, 2) + number(1, 2) + number(0xFFFFFFFE, 4) +
                number(0xFFFFFFFE, 4) + number(0, 2),
            "shorter"},
        Row{"DirectoryElsewhere", "a.pth",
            "PK\x03\x04" + std::string(100, '\x01') + "PK\x05\x06" + number(0, 4) + number(1, 2) +
                number(1, 2) + number(46, 4) + number(10, 4) + number(0, 2),
            "not where"},
        Row{"Zip64", "a.pth", zip64(46, 54, 100), ""},
        Row{"Zip64AsPyTorchWritesIt", "a.pth", pytorch_zip(), ""},
        Row{"Zip64AsPyTorchWritesItCut", "a.pth", pytorch_zip().substr(0, 150), "cut short"},
        Row{"Behind", "a.pth", zip() + "behind", "not its end"},
        Row{"BehindALongComment", "a.pth", zip(std::string(20'000, 'c')) + "x", "not its end"},
        Row{"CommentCut", "a.pth", zip("comment").substr(0, zip().size() + 3), "cut short"},
        Row{"CommentWithARecord", "a.pth", zip("PK\x05\x06" + std::string(60, 'c')), ""},
        Row{"Zip64LengthOverflows", "a.pth", zip64(UINT64_MAX, UINT64_MAX, 100), "shorter"},
        Row{"Zip64SumOverflows", "a.pth", zip64(50, UINT64_MAX - 10, 100), "shorter"},
        Row{"Zip64RecordBeyond", "a.pth", zip64(46, 54, UINT64_MAX), "shorter"},
        Row{"Zip64NoRecordThere", "a.pth", zip64(46, 54, 3), "shorter"}),
    testing::row_name<Row>);

INSTANTIATE_TEST_SUITE_P(
    Safetensors, FaultOf,
    ::testing::Values(
        Row{"Whole", "a.safetensors", safetensors(kTensors, 12), ""},
        Row{"NoTensors", "a.safetensors", safetensors("{}", 0), ""},
        Row{"Cut", "a.safetensors", safetensors(kTensors, 11), "cut short"},
        Row{"CutInTheHeader", "a.safetensors", safetensors(kTensors, 0).substr(0, 40), "cut short"},
        Row{"OnlyItsLength", "a.safetensors", number(100, 8), "no header"},
        Row{"TwoInOne", "a.safetensors", safetensors(kTensors, 24), "longer"},
        Row{"Other", "a.safetensors", random_like(500), "no header"},
        Row{"LengthOverflows", "a.safetensors", number(UINT64_MAX, 8) + "{\x01}", "no header"},
        Row{"LengthNearlyOverflows", "a.safetensors", number(UINT64_MAX - 7, 8) + "{\x01}",
            "no header"},
        Row{"LargestLength", "a.safetensors", number(100'000'000, 8) + "{}", "cut short"},
        Row{"OffsetsOverflow", "a.safetensors",
            safetensors(R"({"a":{"data_offsets":[0,18446744073709551615]}})", 12), "cut short"},
        Row{"OffsetsBeyondNumbers", "a.safetensors",
            safetensors(R"({"a":{"data_offsets":[0,99999999999999999999]}})", 12),
            "cannot be read"},
        Row{"OffsetsBackwards", "a.safetensors", safetensors(R"({"a":{"data_offsets":[8,0]}})", 8),
            "cannot be read"},
        Row{"OffsetsNegative", "a.safetensors", safetensors(R"({"a":{"data_offsets":[-8,8]}})", 8),
            "cannot be read"},
        Row{"OneOffset", "a.safetensors", safetensors(R"({"a":{"data_offsets":[8]}})", 8),
            "cannot be read"},
        Row{"NestedDeeply", "a.safetensors", safetensors("{\"a\":" + std::string(50'000, '['), 8),
            "cannot be read"},
        Row{"NoJson", "a.safetensors", safetensors("{nonsense", 8), "cannot be read"}),
    testing::row_name<Row>);

INSTANTIATE_TEST_SUITE_P(
    Hdf5AndNumPy, FaultOf,
    ::testing::Values(
        Row{"Hdf5", "a.h5", hdf5(2000, 2000), ""}, Row{"Hdf5Cut", "a.h5", hdf5(2001, 2000), "cut"},
        Row{"Hdf5V2", "a.hdf5", hdf5_v2(2000, 2000), ""},
        Row{"Hdf5V2Cut", "a.hdf5", hdf5_v2(UINT64_MAX - 1, 2000), "cut short"},
        Row{"Hdf5InItsHeader", "a.h5", hdf5(2000, 20), "cut short"},
        Row{"Hdf5BehindABlock", "a.mat", "MATLAB 7.3" + std::string(502, '\0') + hdf5(9000, 900),
            "cut short"},
        Row{"NoHdf5", "a.h5", random_like(9000), "no HDF5"},
        Row{"Npy", "a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24),
            ""},
        Row{"NpyCut", "a.npy",
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 23), "cut short"},
        Row{"NpyTimes", "a.npy", npy("{'descr': '<M8[ns]', 'shape': (2L,), }", 15), "cut short"},
        Row{"NpyStructure", "a.npy",
            npy("{'descr': [('a', '<f4'), ('b', '|S3')], 'shape': (2,), }", 13), "cut short"},
        Row{"NpyStructureWhole", "a.npy",
            npy("{'descr': [('a', '<f4'), ('b', '|S3')], 'shape': (2,), }", 14), ""},
        Row{"NpyStructureOfArrays", "a.npy",
            npy("{'descr': [('a', '<f4', (9,))], 'shape': (2,), }", 1), ""},
        Row{"NpyOtherQuotes", "a.npy", npy(R"({"descr": "<f4", "shape": (2,), })", 7), "cut short"},
        Row{"NpyDumped", "a.npy", "\x80\x03" + random_like(99), ""},
        Row{"KerasAsHdf5", "a.keras", hdf5(2000, 2000), ""},
        Row{"KerasAsHdf5Cut", "a.keras", hdf5(2001, 2000), "cut short"},
        Row{"Hdf5BehindWords", "a.h5", std::string(1024, 'U') + hdf5(2000, 2000), ""},
        Row{"Hdf5IsWords", "a.h5", std::string(3000, 'U'), "plain text"},
        Row{"Hdf5BehindZeros", "a.h5", std::string(1024, '\0') + hdf5(2000, 2000), ""},
        Row{"NpyScalar", "a.npy", npy("{'descr': '<f8', 'shape': (), }", 8), ""},
        Row{"NpyObjects", "a.npy", npy("{'descr': '|O', 'shape': (9,), }", 3), ""},
        Row{"NpyOverflows", "a.npy",
            npy("{'descr': '<f8', 'shape': (9999999999999, 9999999999999), }", 8), "cut short"},
        Row{"NpyHeaderBeyond", "a.npy", "\x93NUMPY\x02\0\xFF\xFF\xFF\xFF{}"s, "cut short"},
        Row{"NoNpy", "a.npy", random_like(99), "no NumPy"}),
    testing::row_name<Row>);

TEST(FaultOf, ACallerMaySayThatAFileOfAnyNameHasBytes) {
  Contents contents;
  contents.read = [](std::uint64_t, std::size_t) -> Result<std::string> { return ""; };
  Asked asked = asked_as("checkpoint");
  EXPECT_EQ(fault_of(contents, asked).value(), "");
  asked.may_be_empty = false;
  EXPECT_EQ(fault_of(contents, asked).value(), "is empty");
}

}  // namespace
}  // namespace fvprefetch
