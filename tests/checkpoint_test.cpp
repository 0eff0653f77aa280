#include "weights/checkpoint.h"

#include <doctest/doctest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tests/file_bytes.h"
#include "tests/temporary_folder.h"
#include "weights/safetensors.h"

using namespace damoyolo;
using nlohmann::json;

namespace {

const std::string kSamples = "tests/data/checkpoints/";

const std::map<std::string, DType> kTorchTypes{{"float64", DType::F64}, {"float32", DType::F32},
                                               {"float16", DType::F16}, {"bfloat16", DType::BF16},
                                               {"int64", DType::I64},   {"uint8", DType::U8}};

void check_expected(const Checkpoint& checkpoint) {
  const json expected = json::parse(test::read_file(kSamples + "expected.json"));
  REQUIRE(checkpoint.tensors.size() == expected.size());
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    CAPTURE(tensor.name);
    REQUIRE(expected.contains(tensor.name));
    const json& entry = expected[tensor.name];
    CHECK(tensor.dtype == kTorchTypes.at(entry["dtype"]));
    CHECK(tensor.shape == entry["shape"].get<std::vector<std::int64_t>>());
    const auto values = entry["values"].get<std::vector<double>>();
    const auto floats = to_floats(tensor);
    REQUIRE(floats.size() == values.size());
    for (std::size_t i = 0; i < values.size(); ++i) CHECK(floats[i] == static_cast<float>(values[i]));
  }
}

Checkpoint parse(const std::string& content) { return parse_checkpoint(test::as_bytes(content), "c"); }
std::string refusal(const std::string& content) {
  return test::error_of([&] { parse(content); });
}

// The sample with one text replaced by another of the same length, `count` times.
std::string patched(const std::string& sample, std::string_view from, std::string_view to) {
  std::string content = test::read_file(kSamples + sample);
  REQUIRE(from.size() == to.size());
  const auto position = content.find(from);
  REQUIRE(position != content.npos);
  return content.replace(position, from.size(), to);
}

}  // namespace

TEST_CASE("checkpoint: every sample gives the expected tensors") {
  struct Sample {
    std::string file;
    CheckpointFormat format;
    std::string nesting, prefix;
  };
  for (const Sample& sample : {Sample{"zip.pth", CheckpointFormat::Zip, "model", ""},
                               Sample{"legacy.pth", CheckpointFormat::Pickle, "model", ""},
                               Sample{"state_dict_key.pth", CheckpointFormat::Zip, "state_dict", ""},
                               Sample{"top_level_module_prefix.pth", CheckpointFormat::Zip, "", "module."}}) {
    CAPTURE(sample.file);
    const CheckpointFile file(kSamples + sample.file);
    CHECK(file.contents().format == sample.format);
    CHECK(file.contents().nesting == sample.nesting);
    CHECK(file.contents().prefix == sample.prefix);
    check_expected(file.contents());
  }
}

TEST_CASE("checkpoint: the same tensors from safetensors, with both wrappers' prefixes") {
  const std::string content = test::read_file(kSamples + "zip.pth");
  std::map<std::string, std::vector<float>> values;
  Safetensors contents;
  for (const CheckpointTensor& tensor : parse(content).tensors) {
    if (tensor.dtype != DType::F32) continue;
    const auto& floats = values[tensor.name] = to_floats(tensor);
    contents.tensors["module.model." + tensor.name] = {
        .dtype = DType::F32, .shape = tensor.shape, .bytes = std::as_bytes(std::span(floats))};
  }
  const test::TemporaryFolder folder;
  write_safetensors(folder.file("a.pth"), contents);
  const CheckpointFile file(folder.file("a.pth"));
  CHECK(file.contents().format == CheckpointFormat::Safetensors);
  CHECK(file.contents().prefix == "module.model.");
  REQUIRE(file.contents().tensors.size() == values.size());
  for (const CheckpointTensor& tensor : file.contents().tensors) CHECK(to_floats(tensor) == values.at(tensor.name));
}

TEST_CASE("checkpoint: every prefix of a checkpoint is refused") {
  for (const auto* sample : {"zip.pth", "legacy.pth"}) {
    const std::string whole = test::read_file(kSamples + sample);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      CAPTURE(size);
      CHECK(refusal(whole.substr(0, size)) != "");
    }
  }
  CHECK(test::contains(refusal(test::read_file(kSamples + "truncated.pth")), "cut short"));
}

TEST_CASE("checkpoint: a pickle that would run a command is refused by name") {
  for (const auto* sample : {"evil.pth", "evil_legacy.pth"})
    CHECK(test::contains(refusal(test::read_file(kSamples + sample)), "\"posix.system\""));
}

TEST_CASE("checkpoint: files that are none") {
  CHECK(test::contains(refusal(""), "is empty"));
  CHECK(test::contains(refusal("hello, this is no checkpoint"), "not a checkpoint"));
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  CHECK(test::contains(refusal(tar), "before 0.1.10"));
  CHECK(test::contains(refusal(std::string("\x80\x02N.", 4)), "not one that torch.save wrote"));
  CHECK(test::error_of([] { CheckpointFile("tests/data"); }) == "tests/data: is not a regular file");
}

TEST_CASE("checkpoint: a storage that is not as long as its tensors say") {
  // "cpu" and its memo, then the count of elements: 24 of the first storage become 25.
  const std::string longer = patched("zip.pth", "cpuq\x09K\x18", "cpuq\x09K\x19");
  CHECK(test::contains(refusal(longer), "\"0\" has 96 bytes; expected 100"));
  const std::string legacy = patched("legacy.pth", "cpuq\x09K\x18", "cpuq\x09K\x19");
  CHECK(test::contains(refusal(legacy), "has 24 elements; its tensors expect 25"));
}

TEST_CASE("checkpoint: a tensor beyond its storage") {
  // The shape (4, 6) with strides (6, 1) of the first tensor.
  const std::string_view original("K\0K\4K\6\x86q\x0bK\6K\1\x86", 13);
  const auto with = [&](std::string_view replacement) { return refusal(patched("zip.pth", original, replacement)); };
  CHECK(test::contains(with({"K\1K\4K\6\x86q\x0bK\6K\1\x86", 13}), "\"f32\" reaches beyond its storage of 24"));
  CHECK(test::contains(with({"K\0K\5K\6\x86q\x0bK\6K\1\x86", 13}), "beyond its storage"));
  CHECK(test::contains(with({"K\0K\4K\6\x86q\x0bK\7K\1\x86", 13}), "beyond its storage"));
  CHECK(test::contains(with({"K\0K\xffK\xff\x86q\x0bK\0K\0\x86", 13}),
                       "beyond its storage"));  // 65025 times one element
  CHECK(with(original) == "");
}

TEST_CASE("checkpoint: sizes whose product overflows") {
  const std::string_view original("K\0K\2K\6\x86", 7);  // the shape (2, 6) of the parameter
  std::string content = test::read_file(kSamples + "legacy.pth");
  const auto position = content.rfind(original);
  REQUIRE(position != content.npos);
  const std::string huge("\x8a\x08\0\0\0\0\0\0\0\x40", 10);  // 2^62
  content.replace(position, original.size(), std::string("K\0", 2) + huge + huge + "\x86");
  CHECK(test::contains(refusal(content), "\"param\" reaches beyond its storage"));
  content.replace(position + 2 + 9, 1, "\xc0");  // the first size becomes negative
  CHECK(test::contains(refusal(content), "no sizes"));
}

TEST_CASE("checkpoint: a changed byte is found by its checksum") {
  std::string content = test::read_file(kSamples + "zip.pth");
  content[1540] ^= 1;  // inside the first storage
  const test::TemporaryFolder folder;
  test::write_file(folder.file("a.pth"), content);
  const std::string message = test::error_of([&] { CheckpointFile{folder.file("a.pth")}; });
  CHECK(test::contains(message, "\"zip/data/0\" does not have the checksum"));
}

TEST_CASE("checkpoint: big-endian tensors are refused") {
  const std::string content = patched("legacy.pth", "little_endianq\x02\x88", "little_endianq\x02\x89");
  CHECK(test::contains(refusal(content), "big-endian"));
}

TEST_CASE("checkpoint: a safetensors header of any length is not taken for a pickle") {
  // A length of 128 and some multiple of 256 begins with the byte that opens a pickle.
  for (const std::size_t length : {std::size_t{128}, std::size_t{0x280}}) {
    std::string header = R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    header.resize(length, ' ');
    std::string file(8, '\0');
    file[0] = static_cast<char>(length & 0xff);
    file[1] = static_cast<char>(length >> 8);
    file += header + std::string(4, '\0');
    const Checkpoint checkpoint = parse_checkpoint(test::as_bytes(file), "x.safetensors");
    CHECK(checkpoint.format == CheckpointFormat::Safetensors);
    CHECK(checkpoint.tensors.size() == 1);
  }
}
