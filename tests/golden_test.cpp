// The whole network against the public PyTorch model, on weights that are a function of their names
// (tests/data/goldens/README.md): checkpoint → import → weights file → plan → scores and boxes.

#include <doctest/doctest.h>

#include <cmath>

#include "engine/cpu/network.h"
#include "engine/detector.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/case_for_each.h"
#include "tests/compare.h"
#include "tests/golden_checkpoint.h"
#include "tests/golden_generator.h"
#include "tests/layer_errors.h"
#include "tests/skip.h"
#include "tests/temporary_folder.h"
#include "tests/wrong_elements.h"
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
    for (const std::string& wrong : {describe_wrong_anchors("scores", scores, kScoreTolerance),
                                     describe_wrong_anchors("boxes", boxes, kBoxTolerance)})
      if (!wrong.empty()) FAIL_CHECK(wrong);
  }
  // `found`: [2, anchors, values], each to be within the bound; empty when they are.
  std::string describe_wrong_anchors(const std::string& part, const std::vector<float>& found, double bound) const {
    const TensorView& golden = (*this)[part];
    const std::vector<float> expected = to_floats(golden);
    const int values = static_cast<int>(golden.shape.back());
    const Compared anchors{1, static_cast<int>(expected.size()) / kBatch / values, values};
    const std::string wrong = describe_wrong(anchors, found, std::vector<double>(expected.begin(), expected.end()),
                                             std::vector<double>(expected.size(), bound));
    return wrong.empty() ? "" : part + ", anchors as pixels: " + wrong;
  }

  test::TemporaryFolder folder;
  SafetensorsFile file;
};

constexpr const char* kLayerVariants[] = {"Ns", "T", "S"};

// Each convolution of a variant by itself, so that errors of the layers before it do not count.
void check_layers(const char* variant, const DetectorOptions& options, double bound) {
  constexpr int kSide = 64;
  const std::vector<std::uint8_t> images = golden_bytes("input", std::size_t{kSide} * kSide * 3);
  CAPTURE(variant);
  CAPTURE(name_of(options.precision));
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
  for (const auto& layer : errors) {
    CAPTURE(layer.first);
    CHECK(layer.second < bound);
  }
}

// What check_layers() checks on a GPU.
struct LayerRun {
  const char* variant;
  Precision precision;
  KernelSource kernels;
};

std::vector<LayerRun> layer_runs() {
  std::vector<LayerRun> runs;
  for (const KernelSource kernels : {KernelSource::Auto, KernelSource::Own})
    for (const Precision precision : {Precision::Bf16, Precision::Fp16})
      for (const char* variant : kLayerVariants) runs.push_back({variant, precision, kernels});
  return runs;
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

TEST_CASE_FOR_EACH(const ModelSpec& spec, released_variants(),
                   "gpu: fp32 scores and boxes of " + spec.variant + " are those of the PyTorch model") {
  SKIP_WITHOUT_GPU("runs the goldens on it");
  const Golden golden(spec);
  Detector detector(golden.weights(), {.device = "cuda", .precision = Precision::Fp32, .max_batch = kBatch});
  const RawOutput output = detector.forward(golden_images(), kBatch, kHeight, kWidth);
  golden.check(output.scores, output.boxes);
}

TEST_CASE_FOR_EACH(const ModelSpec& spec, released_variants(),
                   "gpu: bf16 scores and boxes of " + spec.variant +
                       " by our own kernels are near those of the PyTorch model") {
  SKIP_WITHOUT_GPU("runs the goldens on it");
  const Golden golden(spec);
  Detector detector(
      golden.weights(),
      {.device = "cuda", .precision = Precision::Bf16, .max_batch = kBatch, .kernels = KernelSource::Own});
  const RawOutput output = detector.forward(golden_images(), kBatch, kHeight, kWidth);
  // On a CPU they are below 0.01 and 0.003 for all variants.
  const double scores = relative_difference(to_floats(golden["scores"]), output.scores);
  if (!(scores < 0.02))
    FAIL_CHECK("relative difference ", scores, ": ", golden.describe_wrong_anchors("scores", output.scores, 0.02));
  const double boxes = relative_difference(to_floats(golden["boxes"]), output.boxes);
  if (!(boxes < 0.005))
    FAIL_CHECK("relative difference ", boxes, ": ", golden.describe_wrong_anchors("boxes", output.boxes, 2));
}

TEST_CASE("every convolution is near fp32 on the same inputs") {
  for (const char* variant : kLayerVariants) {
    check_layers(variant, {.device = "cpu", .precision = Precision::Fp32}, 1e-5);
    if (describe_cpu().bf16) check_layers(variant, {.device = "cpu", .precision = Precision::Bf16}, 1e-2);
  }
}

TEST_CASE_FOR_EACH(const LayerRun& run, layer_runs(),
                   std::string("gpu: every convolution of ") + run.variant + " in " +
                       std::string(name_of(run.precision)) +
                       (run.kernels == KernelSource::Own ? " by our own kernels" : "") +
                       " is near fp32 on the same inputs") {
  SKIP_WITHOUT_GPU("runs layers on it");
  check_layers(run.variant, {.device = "cuda", .precision = run.precision, .kernels = run.kernels}, 1e-2);
}
