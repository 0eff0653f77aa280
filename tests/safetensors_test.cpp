#include "weights/safetensors.h"

#include <doctest/doctest.h>

#include <array>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/file_bytes.h"
#include "tests/temporary_folder.h"

using namespace damoyolo;

namespace {

std::string file_of(const std::string& header, const std::string& data, std::uint64_t stated_size) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(stated_size >> (8 * i));
  return text + header + data;
}
std::string file_of(const std::string& header, const std::string& data = "") {
  return file_of(header, data, header.size());
}

std::string refusal(const std::string& content) {
  return test::error_of([&] { parse_safetensors(test::as_bytes(content), "s"); });
}

// A header with one tensor, "a".
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

}  // namespace

TEST_CASE("safetensors: what is written is read again, larger element types first") {
  const std::array<float, 3> floats{1.f, -2.f, std::numeric_limits<float>::quiet_NaN()};
  const std::array<std::uint16_t, 3> halves{0x3c00, 0xc000, 0x0001};
  const std::array<std::int64_t, 1> scalar{7};
  Safetensors contents;
  contents.metadata = {{"b", "2"}, {"a", "\"1\"\n"}};
  contents.tensors["a.half"] = {DType::F16, {3, 1}, std::as_bytes(std::span(halves))};
  contents.tensors["b.float"] = {DType::F32, {3}, std::as_bytes(std::span(floats))};
  contents.tensors["c.scalar"] = {DType::I64, {}, std::as_bytes(std::span(scalar))};
  contents.tensors["d.empty"] = {DType::F32, {0, 5}, {}};

  const test::TemporaryFolder folder;
  const std::string path = folder.file("t.safetensors");
  write_safetensors(path, contents);
  const SafetensorsFile file(path);
  CHECK(file.contents().metadata == contents.metadata);
  REQUIRE(file.contents().tensors.size() == 4);
  for (const auto& [name, tensor] : contents.tensors) {
    const TensorView& again = file.contents().tensors.at(name);
    CHECK(again.dtype == tensor.dtype);
    CHECK(again.shape == tensor.shape);
    CHECK(std::ranges::equal(again.bytes, tensor.bytes));
    CHECK(reinterpret_cast<std::uintptr_t>(again.bytes.data()) % size_of(again.dtype) == 0);
  }
  CHECK(to_floats(file.contents().tensors.at("a.half")) == std::vector<float>{1.f, -2.f, 0x1p-24f});
  CHECK(file.contents().tensors.at("d.empty").elements() == 0);

  const std::string first = test::read_file(path);
  write_safetensors(path, contents);
  CHECK(test::read_file(path) == first);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.file("")), {}) == 1);
}

TEST_CASE("safetensors: a file that cannot be written") {
  const test::TemporaryFolder folder;
  CHECK(test::contains(test::error_of([&] { write_safetensors(folder.file("no/such/folder"), {}); }),
                       "cannot be written"));
  std::filesystem::create_directory(folder.file("taken"));
  CHECK(test::contains(test::error_of([&] { write_safetensors(folder.file("taken"), {}); }), "cannot be written"));
  CHECK(std::distance(std::filesystem::directory_iterator(folder.file("")), {}) == 1);
  CHECK(test::contains(test::error_of([&] {
                         write_safetensors(folder.file("t"), {.tensors = {}, .metadata = {{"a", "\xff"}}});
                       }),
                       "UTF-8"));
}

TEST_CASE("safetensors: header lengths") {
  CHECK(test::contains(refusal(""), "cut short"));
  CHECK(test::contains(refusal("1234567"), "cut short"));
  CHECK(test::contains(refusal(file_of("{}", "", 3)), "cut short"));
  CHECK(test::contains(refusal(file_of("{}", "", 2147483648)), "header of 2147483648 bytes"));
  CHECK(test::contains(refusal(file_of("{}", "", ~0ull)), "header of 18446744073709551615 bytes"));
  CHECK(refusal(file_of("{}")) == "");
}

TEST_CASE("safetensors: headers that are not what they should be") {
  CHECK(test::contains(refusal(file_of("{")), "not valid JSON"));
  CHECK(test::contains(refusal(file_of("[]")), "no JSON object"));
  CHECK(test::contains(refusal(file_of(R"({"a":1})")), "described by no JSON object"));
  CHECK(test::contains(refusal(file_of(R"({"a":{}})")), "has no dtype"));
  CHECK(test::contains(refusal(file_of(R"({"__metadata__":[]})")), "__metadata__ that is no JSON object"));
  CHECK(test::contains(refusal(file_of(R"({"__metadata__":{"x":1}})")), "metadata \"x\" is no text"));
  CHECK(test::contains(refusal(file_of(R"({"a":{"dtype":{"x":{}}}})")), "nested too deeply"));
  CHECK(test::contains(refusal(file_of(std::string(1'000'000, '['))), "nested too deeply"));
  CHECK(test::contains(refusal(file_of(one("4", "[1]", "[0,4]"), "1234")), "has no dtype"));
  CHECK(test::contains(refusal(file_of(one("\"F9\"", "[1]", "[0,4]"), "1234")), "unknown dtype \"F9\""));
  CHECK(test::contains(refusal(file_of(one("\"F32\"", "1", "[0,4]"), "1234")), "no shape"));
  CHECK(test::contains(refusal(file_of(one("\"F32\"", "[1.0]", "[0,4]"), "1234")), "no shape"));
  CHECK(test::contains(refusal(file_of(one("\"F32\"", "[-1]", "[0,4]"), "1234")), "no shape"));
  CHECK(test::contains(refusal(file_of(one("\"F32\"", "[1]", "[\"0\",4]"), "1234")), "no data_offsets"));
}

TEST_CASE("safetensors: a name twice") {
  const std::string entry = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  CHECK(test::contains(refusal(file_of(R"({"a":)" + entry + R"(,"a":)" + entry + "}", "x")), "\"a\" twice"));
  CHECK(test::contains(refusal(file_of(R"({"a":{"dtype":"U8","dtype":"F32"}})")), "\"dtype\" twice"));
}

TEST_CASE("safetensors: offsets outside the data, or not what the shape needs") {
  CHECK(refusal(file_of(one("\"F32\"", "[1]", "[0,4]"), "1234")) == "");
  for (const auto* offsets : {"[0,8]", "[4,0]", "[0,18446744073709551615]"})
    CHECK(refusal(file_of(one("\"F32\"", "[1]", offsets), "1234")) != "");
  CHECK(test::contains(refusal(file_of(one("\"F32\"", "[1]", "[0]"), "1234")), "outside"));
  CHECK(test::contains(refusal(file_of(one("\"F32\"", "[2]", "[0,4]"), "1234")), "shape and dtype"));
  CHECK(
      test::contains(refusal(file_of(one("\"F32\"", "[4611686018427387904,4]", "[0,4]"), "1234")), "shape and dtype"));
  CHECK(test::contains(refusal(file_of(one("\"F64\"", "[2305843009213693952]", "[0,0]"))), "shape and dtype"));
}

TEST_CASE("safetensors: tensors must cover the data, once") {
  const auto two = [](int begin) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[2],"data_offsets":[)" +
           std::to_string(begin) + "," + std::to_string(begin + 2) + "]}}";
  };
  CHECK(refusal(file_of(two(4), "123456")) == "");
  CHECK(test::contains(refusal(file_of(two(3), "123456")), "\"b\" begins at byte 3 of the data, inside"));
  CHECK(test::contains(refusal(file_of(two(5), "1234567")), "leaving a gap"));
  CHECK(test::contains(refusal(file_of(two(4), "1234567")), "7 bytes of data, of which its tensors cover 6"));
}
