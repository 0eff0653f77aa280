#include "weights/import.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/core/rounding.h"
#include "tests/file_bytes.h"
#include "tests/golden_generator.h"
#include "tests/temporary_folder.h"
#include "weights/recognise.h"
#include "weights/sha256.h"
#include "weights/weights_file.h"

using namespace damoyolo;

namespace {

// A model of T's family that is small enough to make and import in an instant.
ModelSpec tiny_structure(int classes) {
  ModelSpec spec = released_variant("T");
  spec.variant = "tiny";
  const std::vector<int> widths{8, 8, 16, 16, 24, 32};
  for (std::size_t i = 0; i < widths.size(); ++i) {
    BlockSpec& block = spec.backbone.blocks[i];
    block.in = i == 0 ? 3 : widths[i - 1];
    block.out = widths[i];
    if (i > 0) {
      block.bottleneck = 8;
      block.layers = 1;
    }
  }
  spec.neck.in = {16, 24, 32};
  spec.neck.out = spec.head.in = {16, 24, 32};
  spec.head.classes = classes;
  return spec;
}

struct FakeTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};
using FakeCheckpoint = std::map<std::string, FakeTensor>;

// A training checkpoint of the structure; every value is a function of its tensor's name.
FakeCheckpoint fake_checkpoint(const ModelSpec& spec) {
  FakeCheckpoint checkpoint;
  for (const ExpectedTensor& tensor : expected_tensors(build_model(spec, 1, 64, 64).sources, {})) {
    FakeTensor& fake = checkpoint[tensor.name];
    fake.shape = tensor.shape;
    std::size_t count = 1;
    for (const auto size : tensor.shape) count *= static_cast<std::size_t>(size);
    const bool positive = tensor.name.ends_with("running_var");
    for (std::size_t i = 0; i < count; ++i)
      fake.values.push_back(golden_uniform(fnv1a64(tensor.name), i) + (positive ? 0.1f : -0.4f));
  }
  return checkpoint;
}

void write(const std::string& path, const FakeCheckpoint& checkpoint) {
  Safetensors contents;
  for (const auto& [name, tensor] : checkpoint)
    contents.tensors[name] = {DType::F32, tensor.shape, std::as_bytes(std::span(tensor.values))};
  write_safetensors(path, contents);
}

std::vector<float> weights_of(const WeightsFile& file, const std::string& name) {
  return to_floats(file.tensor(name));
}

// The sources of the structure of one kind.
std::vector<ConvSource> sources_of(const ModelSpec& spec, ConvSource::Kind kind) {
  auto sources = build_model(spec, 1, 64, 64).sources;
  std::erase_if(sources, [&](const ConvSource& source) { return source.kind != kind; });
  return sources;
}

// x·factor + offset is what the BatchNorm at `module` does to channel `o`.
struct Norm {
  double factor = 0, offset = 0;
};
Norm norm_of(const FakeCheckpoint& checkpoint, const std::string& module, std::size_t o) {
  const auto at = [&](const char* part) { return double{checkpoint.at(module + part).values[o]}; };
  const double factor = at(".weight") / std::sqrt(at(".running_var") + 1e-3);
  return {factor, at(".bias") - at(".running_mean") * factor};
}

double dot(const float* weights, const std::vector<float>& input) {
  double sum = 0;
  for (std::size_t i = 0; i < input.size(); ++i) sum += double{weights[i]} * input[i];
  return sum;
}

// One import of the tiny structure with three score channels.
struct Imported {
  test::TemporaryFolder folder;
  ModelSpec structure = tiny_structure(3);
  FakeCheckpoint checkpoint = fake_checkpoint(structure);
  ImportOptions options;
  std::string in = folder.file("in.safetensors"), out = folder.file("out.safetensors");

  Imported() { options.structure = structure; }
  ImportReport run() {
    write(in, checkpoint);
    return import_checkpoint(in, out, options);
  }
  std::string refusal() {
    return test::error_of([&] { run(); });
  }
};

// Shapes without data: all that recognition looks at.
struct Shapes {
  std::deque<CheckpointTensor> tensors;
  TensorIndex index;

  explicit Shapes(const ModelSpec& spec) {
    for (const ExpectedTensor& tensor : expected_tensors(build_model(spec, 1, 64, 64).sources, {}))
      add(tensor.name, tensor.shape);
    add("head.integral.project", {spec.head.reg_max + 1});
    add("backbone.any.num_batches_tracked", {});
  }
  void add(const std::string& name, std::vector<std::int64_t> shape) {
    auto& tensor = tensors.emplace_back();
    tensor.name = name;
    tensor.shape = std::move(shape);
    index[tensor.name] = &tensor;
  }
};

}  // namespace

TEST_CASE("recognise: every released variant, with any class count, from its tensors alone") {
  for (ModelSpec spec : released_variants()) {
    CAPTURE(spec.variant);
    for (const int classes : {1, 80, 701}) {
      spec.head.classes = classes;
      const ModelSpec found = recognise(Shapes(spec).index, released_variants(), "c");
      CHECK(spec_to_json(found) == spec_to_json(spec));
    }
  }
}

TEST_CASE("recognise: what keeps a state dict from fitting is named") {
  const std::string first = "backbone.block_list.0.conv.conv.weight";
  const auto refusal = [](const Shapes& shapes) {
    return test::error_of([&] { recognise(shapes.index, released_variants(), "c"); });
  };
  Shapes shapes(released_variant("T"));
  shapes.index.erase(first);
  CHECK(refusal(shapes) ==
        "c: is nearly a state dict of structure T, but not quite; 1 missing: " + first + " (24x12x3x3)");
  shapes.add(first, {24, 12, 5, 5});
  CHECK(refusal(shapes) == "c: is nearly a state dict of structure T, but not quite; 1 misshapen: " + first +
                               " (24x12x5x5, expected 24x12x3x3)");
  shapes.add(first, {24, 12, 3, 3});
  for (int i = 0; i < 9; ++i) shapes.add("teacher." + std::to_string(i), {2});
  const std::string message = refusal(shapes);
  CHECK(test::contains(message, "9 extra: \"teacher.0\" (2), "));
  CHECK(test::contains(message, "\"teacher.7\" (2), …"));
  CHECK(!test::contains(message, "teacher.8"));
}

TEST_CASE("import: a file of other tensors is told apart") {
  const test::TemporaryFolder folder;
  const std::string message = test::error_of(
      [&] { import_checkpoint("tests/data/checkpoints/zip.pth", folder.file("out"), ImportOptions{}); });
  CHECK(test::contains(message, "zip.pth: is no DAMO-YOLO state dict"));
}

TEST_CASE("import: a weights file is told apart") {
  const test::TemporaryFolder folder;
  const std::string weights = "weights/demo/digits-ns.safetensors";
  CHECK(test::error_of([&] { import_checkpoint(weights, folder.file("out"), ImportOptions{}); }) ==
        weights + ": is a weights file already; use it as it is, or import the checkpoint that it was made from");
  CHECK_FALSE(std::filesystem::exists(folder.file("out")));
}

TEST_CASE("import: BatchNorm is folded") {
  Imported test;
  const ImportReport report = test.run();
  CHECK(report.warnings.empty());
  CHECK(report.model.variant == "tiny");
  CHECK(report.model.head.classes == 3);
  const WeightsFile file(test.out);
  const auto sources = sources_of(test.structure, ConvSource::Kind::ConvBn);
  CHECK(report.batch_norms_folded ==
        static_cast<int>(sources.size() + 2 * sources_of(test.structure, ConvSource::Kind::RepConv).size()));
  for (const ConvSource& source : sources) {
    CAPTURE(source.node);
    const auto weight = weights_of(file, source.node + ".weight"), bias = weights_of(file, source.node + ".bias");
    const auto& trained = test.checkpoint.at(source.conv + ".weight").values;
    REQUIRE(weight.size() == trained.size());
    const std::size_t taps = weight.size() / bias.size();
    double worst = 0;
    for (std::size_t i = 0; i < weight.size(); ++i) {
      const Norm norm = norm_of(test.checkpoint, source.bn, i / taps);
      worst = std::max(worst, std::abs(weight[i] - trained[i] * norm.factor));
      worst = std::max(worst, std::abs(bias[i / taps] - norm.offset));
    }
    CHECK(worst < 1e-6);
  }
}

TEST_CASE("import: a merged RepConv gives what its two branches gave") {
  Imported test;
  const ImportReport report = test.run();
  const WeightsFile file(test.out);
  const auto sources = sources_of(test.structure, ConvSource::Kind::RepConv);
  REQUIRE(!sources.empty());
  CHECK(report.rep_convs_merged == static_cast<int>(sources.size()));
  for (const ConvSource& source : sources) {
    CAPTURE(source.node);
    const auto inputs = static_cast<std::size_t>(source.in_per_group);
    std::vector<float> patch, centre;
    for (std::size_t i = 0; i < inputs * 9; ++i) patch.push_back(golden_uniform(fnv1a64("patch"), i) - 0.5f);
    for (std::size_t c = 0; c < inputs; ++c) centre.push_back(patch[c * 9 + 4]);
    const auto weight = weights_of(file, source.node + ".weight"), bias = weights_of(file, source.node + ".bias");
    const auto& dense = test.checkpoint.at(source.conv + ".rbr_dense.conv.weight").values;
    const auto& point = test.checkpoint.at(source.conv + ".rbr_1x1.conv.weight").values;
    for (std::size_t o = 0; o < bias.size(); ++o) {
      const Norm dense_norm = norm_of(test.checkpoint, source.conv + ".rbr_dense.bn", o);
      const Norm point_norm = norm_of(test.checkpoint, source.conv + ".rbr_1x1.bn", o);
      const double branches = dot(&dense[o * inputs * 9], patch) * dense_norm.factor + dense_norm.offset +
                              dot(&point[o * inputs], centre) * point_norm.factor + point_norm.offset;
      CHECK(dot(&weight[o * inputs * 9], patch) + bias[o] == doctest::Approx(branches).epsilon(1e-5));
    }
  }
}

TEST_CASE("import: the learned scale is multiplied into the box convolution") {
  Imported test;
  test.run();
  const WeightsFile file(test.out);
  const float scale = test.checkpoint.at("head.scales.1.scale").values[0];
  for (const char* part : {".weight", ".bias"}) {
    const auto found = weights_of(file, std::string("head.reg.1") + part);
    const auto& trained = test.checkpoint.at(std::string("head.gfl_reg.1") + part).values;
    REQUIRE(found.size() == trained.size());
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == trained[i] * scale);
  }
}

TEST_CASE("import: a deployed checkpoint gives the same weights as the one it was made from") {
  Imported test;
  test.run();
  const WeightsFile trained(test.out);
  FakeCheckpoint& checkpoint = test.checkpoint;
  const auto sources = sources_of(test.structure, ConvSource::Kind::RepConv);
  for (const ConvSource& source : sources) {
    std::erase_if(checkpoint, [&](const auto& entry) { return entry.first.starts_with(source.conv + ".rbr_"); });
    for (const char* part : {".weight", ".bias"}) {
      const TensorView& merged = trained.tensor(source.node + part);
      checkpoint[source.conv + ".rbr_reparam" + part] = {merged.shape, to_floats(merged)};
    }
  }
  const std::string first = test.out;
  test.out = test.folder.file("deployed.safetensors");
  const ImportReport report = test.run();
  CHECK(report.rep_convs_merged == 0);
  CHECK(report.rep_convs_deployed == static_cast<int>(sources.size()));
  const WeightsFile deployed(test.out);
  for (const ConvSource& source : build_model(test.structure, 1, 64, 64).sources)
    for (const char* part : {".weight", ".bias"})
      CHECK(weights_of(deployed, source.node + part) == weights_of(trained, source.node + part));
}

TEST_CASE("import: the class count decides whether the last score channel counts") {
  Imported test;
  test.options.class_names = {"a", "b", "c"};
  CHECK(!test.run().dropped_score_channel);
  const auto all = weights_of(WeightsFile(test.out), "head.cls.0.weight");

  test.options.class_names = {"a", "b"};
  const ImportReport report = test.run();
  CHECK(report.dropped_score_channel);
  CHECK(report.model.head.classes == 2);
  const WeightsFile file(test.out);
  CHECK(!file.model().head.legacy);
  CHECK(file.model().class_names == test.options.class_names);
  CHECK(file.tensor("head.cls.0.weight").shape == std::vector<std::int64_t>{2, 16, 3, 3});
  const auto kept = weights_of(file, "head.cls.0.weight");
  CHECK(std::equal(kept.begin(), kept.end(), all.begin()));

  test.options.class_names = {};
  test.options.legacy = true;
  CHECK(test.run().model.head.classes == 2);
  test.options.classes = 3;
  CHECK(test::contains(test.refusal(), "wrong class count: 3 given"));
  test.options = {.structure = test.structure, .classes = 7};
  CHECK(test::contains(test.refusal(), "wrong class count: 7 given, and the checkpoint has 3 score channels"));
  test.options.class_names = {"a", "b"};
  CHECK(test::contains(test.refusal(), "7 classes were asked for, and 2 class names given"));
}

TEST_CASE("import: the same input gives the same bytes, and says where they came from") {
  Imported test;
  test.options.size = {96, 128};
  const ImportReport report = test.run();
  const std::string first = test::read_file(test.out);
  test.run();
  CHECK(test::read_file(test.out) == first);
  CHECK(report.output_bytes == first.size());
  const WeightsFile file(test.out);
  CHECK(file.source_sha256() == sha256(test::as_bytes(test::read_file(test.in))));
  CHECK(spec_to_json(file.model()) == spec_to_json(report.model));
  CHECK(file.model().input_height == 96);
  CHECK(file.model().input_width == 128);
}

TEST_CASE("import: bf16 rounds the weights, those of pixels keeping their sums, and keeps the biases") {
  Imported test;
  test.run();
  const std::string full = test.out;
  test.out = test.folder.file("half.safetensors");
  test.options.dtype = DType::BF16;
  test.run();
  const WeightsFile exact(full), rounded(test.out);
  CHECK(exact.dtype() == DType::F32);
  CHECK(rounded.dtype() == DType::BF16);
  for (const ConvSource& source : build_model(test.structure, 1, 64, 64).sources) {
    auto weight = weights_of(exact, source.node + ".weight");
    if (source.node == "backbone.0") round_keeping_sums(weight, weight.size() / static_cast<std::size_t>(source.out));
    for (float& value : weight) value = float_from_bf16(bf16_from_float(value));
    CHECK(weights_of(rounded, source.node + ".weight") == weight);
    CHECK(rounded.tensor(source.node + ".bias").dtype == DType::F32);
    CHECK(weights_of(rounded, source.node + ".bias") == weights_of(exact, source.node + ".bias"));
  }
}

TEST_CASE("import: weights that are not finite are kept, with a warning") {
  Imported test;
  test.checkpoint.at("head.gfl_cls.2.bias").values[1] = std::numeric_limits<float>::quiet_NaN();
  const ImportReport report = test.run();
  REQUIRE(report.warnings.size() == 1);
  CHECK(test::contains(report.warnings[0], "1 of "));
  CHECK(test::contains(report.warnings[0], "NaN or infinite values: head.cls.2.bias"));
  CHECK(std::isnan(weights_of(WeightsFile(test.out), "head.cls.2.bias")[1]));
}

TEST_CASE("import: options and bins that cannot be used") {
  Imported test;
  for (const auto& size : {std::pair{100, 96}, std::pair{96, 0}, std::pair{-32, 96}, std::pair{96, 1 << 20}}) {
    test.options.size = size;
    CHECK(test::contains(test.refusal(), "multiples of 32"));
  }
  test.options = {.structure = test.structure, .dtype = DType::F16};
  CHECK(test::contains(test.refusal(), "cannot be stored as F16"));
  test.options = {.variant = "XXL"};
  CHECK(test::contains(test.refusal(), "XXL"));
  test.options = {.structure = test.structure};
  test.checkpoint["head.integral.project"] = {{2}, {0.f, 2.f}};
  CHECK(test::contains(test.refusal(), "head.integral.project is not 0, 1, …, 16"));
}

TEST_CASE("weights file: what is none is refused, and the import command named") {
  for (const char* sample : {"zip.pth", "legacy.pth"}) {
    const std::string path = std::string("tests/data/checkpoints/") + sample;
    CHECK(test::contains(test::error_of([&] { WeightsFile{path}; }), "damoyolo import " + path));
  }
  CHECK(test::contains(test::error_of([] { WeightsFile("tests/data/checkpoints/README.md"); }), "no weights file"));

  Imported test;
  test.run();
  CHECK(test::contains(test::error_of([&] { WeightsFile{test.in}; }), "damoyolo import"));

  const std::string content = test::read_file(test.out);
  const auto refusal_with = [&](std::string_view from, std::string_view to) {
    std::string patched = content;
    REQUIRE(from.size() == to.size());
    patched.replace(patched.find(from), from.size(), to);
    test::write_file(test.out, patched);
    return test::error_of([&] { WeightsFile{test.out}; });
  };
  CHECK(test::contains(refusal_with(R"("format_version":"1")", R"("format_version":"9")"), "version \"9\""));
  CHECK(
      test::contains(refusal_with(R"("head.cls.0.bias")", R"("head.cls.0.boas")"), "\"head.cls.0.bias\" is missing"));
  CHECK(test::contains(refusal_with(R"("shape":[3,16,3,3])", R"("shape":[16,3,3,3])"), "expected 3x16x3x3 of F32"));
}
