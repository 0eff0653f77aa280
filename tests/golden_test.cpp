// The whole network against the public PyTorch model, on weights that are a function of their names
// (tests/data/goldens/README.md): checkpoint → import → weights file → plan → scores and boxes.

#include <doctest/doctest.h>

#include <cmath>

#include "engine/cpu/network.h"
#include "engine/detector.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/compare.h"
#include "tests/golden_checkpoint.h"
#include "tests/golden_generator.h"
#include "tests/layer_errors.h"
#include "tests/skip.h"
#include "tests/temporary_folder.h"
#include "weights/import.h"
#include "weights/weights_file.h"

using namespace damoyolo;

namespace {

constexpr int kBatch = 2, kHeight = 192, kWidth = 256;
constexpr double kScoreTolerance = 2e-5, kBoxTolerance = 5e-3;  // DESIGN: fp32 on every backend

// The goldens' input is NCHW.
std::vector<std::uint8_t> golden_images() {
  constexpr std::size_t kPixels = std::size_t{kHeight} * kWidth;
  const std::vector<std::uint8_t> planes = golden_bytes("input", kBatch * 3 * kPixels);
  std::vector<std::uint8_t> images(planes.size());
  for (std::size_t n = 0; n < kBatch; ++n)
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t p = 0; p < kPixels; ++p) images[(n * kPixels + p) * 3 + c] = planes[(n * 3 + c) * kPixels + p];
  return images;
}

double largest_difference(const std::vector<float>& expected, const std::vector<float>& found) {
  REQUIRE(expected.size() == found.size());
  double largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(double{expected[i]} - found[i]);
    if (!(difference <= largest)) largest = difference;  // NaN is the largest
  }
  return largest;
}

// The goldens hold the first 8 channels of a feature map, NCHW; `map` is [n, h, w, c].
double feature_difference(const TensorView& golden, const std::vector<float>& map, const Shape& shape) {
  const std::vector<float> expected = to_floats(golden);
  const auto channels = static_cast<std::size_t>(golden.shape[1]);
  const auto pixels = static_cast<std::size_t>(shape.h) * static_cast<std::size_t>(shape.w);
  std::vector<float> found(expected.size());
  for (std::size_t n = 0; n < kBatch; ++n)
    for (std::size_t c = 0; c < channels; ++c)
      for (std::size_t p = 0; p < pixels; ++p)
        found[(n * channels + c) * pixels + p] = map[(n * pixels + p) * static_cast<std::size_t>(shape.c) + c];
  double scale = 0;
  for (const float value : expected) scale = std::max(scale, std::abs(double{value}));
  return largest_difference(expected, found) / scale;
}

// The weights file of a variant with the goldens' weights, and what PyTorch makes of them.
struct Golden {
  explicit Golden(const ModelSpec& spec) : file("tests/data/goldens/" + spec.variant + ".safetensors") {
    write_golden_checkpoint(spec, folder.file("golden.safetensors"));
    const ImportReport report = import_checkpoint(folder.file("golden.safetensors"), weights(), {});
    CHECK(report.model.variant == spec.variant);
  }
  std::string weights() const { return folder.file("weights.safetensors"); }
  const TensorView& operator[](const std::string& name) const { return file.contents().tensors.at(name); }

  void check(const std::vector<float>& scores, const std::vector<float>& boxes) const {
    CHECK(largest_difference(to_floats((*this)["scores"]), scores) <= kScoreTolerance);
    CHECK(largest_difference(to_floats((*this)["boxes"]), boxes) <= kBoxTolerance);
  }

  test::TemporaryFolder folder;
  SafetensorsFile file;
};

// Each convolution of some variants by itself, so that errors of the layers before it do not count.
void check_layers(const DetectorOptions& options, double bound) {
  constexpr int kSide = 64;
  const std::vector<std::uint8_t> images = golden_bytes("input", std::size_t{kSide} * kSide * 3);
  for (const char* variant : {"Ns", "T", "S"}) {
    CAPTURE(variant);
    CAPTURE(name_of(options.precision));
    CAPTURE(name_of(options.kernels));
    const Golden golden(released_variant(variant));
    Detector detector(golden.weights(), options);
    const WeightsFile& weights = detector.weights();
    Graph graph = build_model(weights.model(), 1, kSide, kSide).graph;
    optimize(graph);
    const auto probe = detector.probe(graph);
    probe->run(images);
    const auto errors = layer_errors(
        graph, [&](std::string_view name) -> const TensorView& { return weights.tensor(name); },
        [&](ValueId value) { return probe->read(value); });
    for (const auto& [name, error] : errors) {
      CAPTURE(name);
      CHECK(error < bound);
    }
  }
}

}  // namespace

TEST_CASE("fp32 scores, boxes and features of all variants are those of the PyTorch model") {
  const std::vector<std::uint8_t> images = golden_images();
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    const Golden golden(spec);
    const WeightsFile weights(golden.weights());
    Graph graph = build_model(weights.model(), kBatch, kHeight, kWidth).graph;
    optimize(graph);
    cpu::NetworkOptions options;
    options.plan.keep_values = true;
    cpu::Network network(
        graph, [&](std::string_view name) -> const TensorView& { return weights.tensor(name); }, options);
    network.run(images);

    const HeadMaps maps = network.head(spec.head.classes, spec.head.reg_max);
    const auto anchors = static_cast<std::size_t>(kBatch * maps.anchors());
    std::vector<float> scores(anchors * static_cast<std::size_t>(spec.head.classes)), boxes(anchors * 4);
    decode_all(maps, scores, boxes);
    golden.check(scores, boxes);
    for (std::size_t level = 0; level < 3; ++level) {
      const auto check = [&](const char* part, ValueId value) {
        CAPTURE(part);
        CAPTURE(level);
        const cpu::TensorId id = network.plan().values[static_cast<std::size_t>(value)];
        const Shape shape = network.plan().tensor(id).shape;
        CHECK(feature_difference(golden[part + std::to_string(level)], network.read(id), shape) < 2e-5);
      };
      check("backbone.", graph.backbone[level]);
      check("neck.", graph.neck[level]);
    }
  }
}

TEST_CASE("gpu: bf16 scores and boxes of all variants by our own kernels are near those of the PyTorch model") {
  SKIP_WITHOUT_GPU("runs the goldens on it");
  const std::vector<std::uint8_t> images = golden_images();
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    const Golden golden(spec);
    Detector detector(
        golden.weights(),
        {.device = "cuda", .precision = Precision::Bf16, .max_batch = kBatch, .kernels = KernelSource::Own});
    const RawOutput output = detector.forward(images, kBatch, kHeight, kWidth);
    // On a CPU they are below 0.01 and 0.003 for all variants.
    CHECK(relative_difference(to_floats(golden["scores"]), output.scores) < 0.02);
    CHECK(relative_difference(to_floats(golden["boxes"]), output.boxes) < 0.005);
  }
}

TEST_CASE("gpu: fp32 scores and boxes of all variants are those of the PyTorch model") {
  SKIP_WITHOUT_GPU("runs the goldens on it");
  const std::vector<std::uint8_t> images = golden_images();
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    const Golden golden(spec);
    Detector detector(golden.weights(), {.device = "cuda", .precision = Precision::Fp32, .max_batch = kBatch});
    const RawOutput output = detector.forward(images, kBatch, kHeight, kWidth);
    golden.check(output.scores, output.boxes);
  }
}

TEST_CASE("every convolution is near fp32 on the same inputs") {
  check_layers(DetectorOptions{.device = "cpu", .precision = Precision::Fp32}, 1e-5);
  if (describe_cpu().bf16) check_layers(DetectorOptions{.device = "cpu", .precision = Precision::Bf16}, 1e-2);
}

TEST_CASE("gpu: every convolution in bf16 and fp16 is near fp32 on the same inputs") {
  SKIP_WITHOUT_GPU("runs layers on it");
  for (const Precision precision : {Precision::Bf16, Precision::Fp16})
    for (const KernelSource kernels : {KernelSource::Auto, KernelSource::Own})
      check_layers(DetectorOptions{.device = "cuda", .precision = precision, .kernels = kernels}, 1e-2);
}
