// From the bundled model and pictures to boxes, against what the PyTorch pipeline gave (tests/data/digits/README.md).

#include "engine/detector.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>

#include "engine/core/error.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "loader/coco_annotations.h"
#include "loader/coco_eval.h"
#include "loader/image.h"
#include "tests/case_for_each.h"
#include "tests/skip.h"
#include "tests/temporary_folder.h"
#include "weights/import.h"

using namespace damoyolo;

namespace {

constexpr const char* kDemo = "weights/demo/digits-ns.safetensors";  // bf16 weights
constexpr const char* kFolder = "tests/data/digits/";
const DetectParameters kEvaluation{0.05f, 0.7f, 500, {}};

// The checkpoint itself, imported without rounding its weights.
std::string exact_weights() {
  static const test::TemporaryFolder folder;
  static const std::string path = [] {
    std::string made = folder.file("digits-ns.safetensors");
    ImportOptions options;
    options.size = {256, 256};
    import_checkpoint("tests/data/digits/digits-ns.pth", made, options);
    return made;
  }();
  return path;
}

struct Scene {
  std::string name;
  Image image;
  std::vector<Detection> expected;
};

std::vector<Scene> scenes() {
  const nlohmann::json file = nlohmann::json::parse(std::ifstream(std::string(kFolder) + "expected.json"));
  std::vector<Scene> result;
  for (const auto& [name, rows] : file.at("images").items()) {
    const std::string path = std::string(kFolder) + "images/" + name;
    if (!std::ifstream(path)) continue;  // a part of the set is kept here
    Scene scene{name, read_image(path), {}};
    for (const auto& row : rows) scene.expected.push_back({{row[2], row[3], row[4], row[5]}, row[1], row[0]});
    result.push_back(std::move(scene));
  }
  return result;
}

double overlap(const Detection& a, const Detection& b) {
  const double width = std::min(a.box[2], b.box[2]) - std::max(a.box[0], b.box[0]);
  const double height = std::min(a.box[3], b.box[3]) - std::max(a.box[1], b.box[1]);
  if (width <= 0 || height <= 0) return 0;
  const auto area = [](const Detection& d) { return double{d.box[2] - d.box[0]} * (d.box[3] - d.box[1]); };
  return width * height / (area(a) + area(b) - width * height);
}

// How many of `wanted` with score > 0.1 have a partner of their own in `offered`.
std::pair<int, int> matched(const std::vector<Detection>& wanted, const std::vector<Detection>& offered) {
  std::vector<bool> taken(offered.size(), false);
  int total = 0, found = 0;
  for (const Detection& one : wanted) {
    if (one.score <= 0.1f) continue;
    ++total;
    for (std::size_t i = 0; i < offered.size(); ++i) {
      if (taken[i] || offered[i].class_id != one.class_id || std::abs(offered[i].score - one.score) > 5e-3f ||
          overlap(one, offered[i]) <= 0.99)
        continue;
      taken[i] = true;
      ++found;
      break;
    }
  }
  return {found, total};
}

std::optional<double> average_precision(const CocoAnnotations& truth, const std::vector<Scene>& images,
                                        const std::vector<std::vector<Detection>>& detections) {
  std::vector<CocoDetection> all;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto image = std::find_if(truth.images.begin(), truth.images.end(),
                                    [&](const CocoImage& known) { return known.file_name == images[i].name; });
    REQUIRE(image != truth.images.end());
    for (const Detection& found : detections[i])
      all.push_back(
          {image->id,
           found.class_id + 1,
           {found.box[0], found.box[1], double{found.box[2]} - found.box[0], double{found.box[3]} - found.box[1]},
           found.score});
  }
  return evaluate_coco(truth, all).ap;
}

// The ground truth of the scenes that are here.
CocoAnnotations ground_truth(const std::vector<Scene>& images) {
  CocoAnnotations truth = read_coco_annotations(std::string(kFolder) + "annotations.json");
  std::erase_if(truth.images, [&](const CocoImage& image) {
    return std::none_of(images.begin(), images.end(),
                        [&](const Scene& scene) { return scene.name == image.file_name; });
  });
  std::erase_if(truth.annotations, [&](const CocoAnnotation& annotation) {
    return std::none_of(truth.images.begin(), truth.images.end(),
                        [&](const CocoImage& image) { return image.id == annotation.image_id; });
  });
  return truth;
}

std::vector<std::vector<Detection>> detect_all(Detector& detector, const std::vector<Scene>& images) {
  std::vector<ImageView> views;
  for (const Scene& scene : images) views.emplace_back(scene.image);
  return detector.detect(views, kEvaluation);
}

bool same(const std::vector<Detection>& a, const std::vector<Detection>& b, float tolerance) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](const Detection& x, const Detection& y) {
    return x.class_id == y.class_id && std::abs(x.score - y.score) <= tolerance &&
           std::equal(x.box, x.box + 4, y.box, [&](float p, float q) { return std::abs(p - q) <= 100 * tolerance; });
  });
}

void check_finds_what_pytorch_finds(const std::string& device) {
  const std::vector<Scene> images = scenes();
  REQUIRE(images.size() == 20);
  Detector detector(exact_weights(), {.device = device, .precision = Precision::Fp32, .max_batch = 4});
  const auto detections = detect_all(detector, images);
  int found = 0, expected = 0, confirmed = 0, offered = 0;
  std::vector<std::vector<Detection>> reference;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto [hits, total] = matched(images[i].expected, detections[i]);
    found += hits;
    expected += total;
    const auto [known, all] = matched(detections[i], images[i].expected);
    confirmed += known;
    offered += all;
    reference.push_back(images[i].expected);
  }
  CHECK(expected > 100);
  CHECK(found >= 0.995 * expected);
  CHECK(offered - confirmed <= 0.005 * offered);

  const CocoAnnotations truth = ground_truth(images);
  const auto ap = average_precision(truth, images, detections);
  const auto reference_ap = average_precision(truth, images, reference);
  REQUIRE(ap.has_value());
  REQUIRE(reference_ap.has_value());
  CHECK(*reference_ap > 0.4);
  CHECK(std::abs(*ap - *reference_ap) < 0.001);
}

// Against fp32 with the weights as they were trained. 20 scenes; on whole sets the bound is 0.003.
void check_keeps_average_precision(const std::string& device, Precision precision,
                                   KernelSource kernels = KernelSource::Auto) {
  const std::vector<Scene> images = scenes();
  const CocoAnnotations truth = ground_truth(images);
  Detector exact(exact_weights(), {.device = "cpu", .precision = Precision::Fp32});
  Detector rounded(kDemo, {.device = device, .precision = precision, .kernels = kernels});
  const auto exact_ap = average_precision(truth, images, detect_all(exact, images));
  const auto rounded_ap = average_precision(truth, images, detect_all(rounded, images));
  REQUIRE(exact_ap.has_value());
  REQUIRE(rounded_ap.has_value());
  CHECK(std::abs(*exact_ap - *rounded_ap) < 0.01);
}

void check_batches(const std::string& device, int largest) {
  std::vector<Scene> images = scenes();
  while (images.size() < static_cast<std::size_t>(largest)) images.push_back(images[images.size() % 20]);
  Detector single(kDemo, {.device = device, .precision = Precision::Fp32, .max_batch = 1});
  const auto alone = detect_all(single, images);
  REQUIRE(alone.size() == images.size());
  Detector batched(kDemo, {.device = device, .precision = Precision::Fp32, .max_batch = largest});
  for (std::size_t count = 1; count <= static_cast<std::size_t>(largest); ++count) {
    CAPTURE(count);
    const std::vector<Scene> some(images.begin(), images.begin() + static_cast<std::ptrdiff_t>(count));
    const auto together = detect_all(batched, some);
    REQUIRE(together.size() == count);
    for (std::size_t i = 0; i < count; ++i) CHECK(same(alone[i], together[i], 1e-4f));
  }
}

bool same_bytes(const std::vector<std::vector<Detection>>& a, const std::vector<std::vector<Detection>>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return same(x, y, 0.f); });
}

constexpr Precision k16Bits[] = {Precision::Bf16, Precision::Fp16};
constexpr Mode kModes[] = {Mode::ReduceOverhead, Mode::Default};

}  // namespace

TEST_CASE("the demo model finds what the PyTorch pipeline finds") { check_finds_what_pytorch_finds("cpu"); }

TEST_CASE("gpu: the demo model finds what the PyTorch pipeline finds") {
  SKIP_WITHOUT_GPU("runs the demo model on it");
  check_finds_what_pytorch_finds("cuda");
}

TEST_CASE("16-bit weights and activations keep the average precision") {
  check_keeps_average_precision("cpu", Precision::Fp32);  // the weights alone
  if (describe_cpu().bf16) check_keeps_average_precision("cpu", Precision::Bf16);
}

TEST_CASE_FOR_EACH(const Precision& precision, k16Bits,
                   "gpu: " + std::string(name_of(precision)) + " keeps the average precision") {
  SKIP_WITHOUT_GPU("runs the demo model on it");
  check_keeps_average_precision("cuda", precision);
}

TEST_CASE_FOR_EACH(const Precision& precision, k16Bits,
                   "gpu: " + std::string(name_of(precision)) + " by our own kernels keeps the average precision") {
  SKIP_WITHOUT_GPU("runs the demo model on it");
  check_keeps_average_precision("cuda", precision, KernelSource::Own);
}

TEST_CASE("gpu: our own kernels give the same bytes again") {
  SKIP_WITHOUT_GPU("runs the demo model on it");
  const std::vector<Scene> images = scenes();
  Detector detector(kDemo,
                    {.device = "cuda", .precision = Precision::Bf16, .max_batch = 8, .kernels = KernelSource::Own});
  const auto expected = detect_all(detector, images);
  for (int run = 0; run < 3; ++run) CHECK(same_bytes(expected, detect_all(detector, images)));
}

TEST_CASE("a batch finds what its images give one by one, the last one smaller than the rest") {
  const std::vector<Scene> images = scenes();
  Detector single(kDemo, {.device = "cpu", .precision = Precision::Fp32, .max_batch = 1});
  Detector batched(kDemo, {.device = "cpu", .precision = Precision::Fp32, .max_batch = 3});
  const auto alone = detect_all(single, images);
  const auto together = detect_all(batched, images);
  REQUIRE(alone.size() == images.size());
  REQUIRE(together.size() == images.size());
  for (std::size_t i = 0; i < images.size(); ++i) CHECK(same(alone[i], together[i], 1e-4f));
}

TEST_CASE("gpu: a batch of any size from 1 to 33 finds what its images give one by one") {
  SKIP_WITHOUT_GPU("runs batches on it");
  check_batches("cuda", 33);
}

TEST_CASE("gpu: a captured graph gives the bytes that launching one by one gives, time after time") {
  SKIP_WITHOUT_GPU("captures a graph on it");
  const std::vector<Scene> images = scenes();
  Detector launched(kDemo, {.device = "cuda", .precision = Precision::Bf16, .max_batch = 8, .mode = Mode::Default});
  Detector captured(kDemo,
                    {.device = "cuda", .precision = Precision::Bf16, .max_batch = 8, .mode = Mode::ReduceOverhead});
  const auto expected = detect_all(launched, images);
  for (int run = 0; run < 3; ++run) CHECK(same_bytes(expected, detect_all(captured, images)));
}

TEST_CASE_FOR_EACH(const Mode& mode, kModes,
                   "gpu: a thousand runs in mode " + std::string(name_of(mode)) + " take no more memory than one") {
  SKIP_WITHOUT_GPU("replays a graph on it");
  const std::vector<Scene> images = scenes();
  Detector detector(kDemo, {.device = "cuda", .max_batch = 2, .mode = mode});
  const std::vector<ImageView> views{images[0].image, images[1].image};
  const auto first = detector.detect(views, kEvaluation);
  const std::int64_t bytes = detector.memory_bytes();
  CHECK(bytes > 0);
  for (int run = 0; run < 1000; ++run) detector.detect(views, kEvaluation);
  CHECK(detector.memory_bytes() == bytes);
  CHECK(same_bytes(detector.detect(views, kEvaluation), first));
}

TEST_CASE("gpu: images of different sizes in one batch find what they give one by one") {
  SKIP_WITHOUT_GPU("runs the demo model on it");
  const std::vector<Image> images{read_image("weights/demo/house.png"), read_image("weights/demo/clock.png"),
                                  read_image("weights/demo/scene-1.png"), read_image("weights/demo/keypad.png")};
  const std::vector<ImageView> views(images.begin(), images.end());
  Detector single(kDemo, {.device = "cuda", .precision = Precision::Fp32, .max_batch = 1});
  Detector batched(kDemo, {.device = "cuda", .precision = Precision::Fp32, .max_batch = 4});
  const auto together = batched.detect(views, kEvaluation);
  for (std::size_t i = 0; i < views.size(); ++i) CHECK(same(single.detect(views[i], kEvaluation), together[i], 1e-3f));
}

TEST_CASE("gpu: two detectors in two threads do not disturb each other") {
  SKIP_WITHOUT_GPU("runs the demo model on it");
  const std::vector<Scene> images = scenes();
  const auto run = [&] {
    Detector detector(kDemo, {.device = "cuda", .precision = Precision::Bf16, .max_batch = 4});
    return detect_all(detector, images);
  };
  const auto expected = run();
  // Often enough that one ends, and gives its libraries back, while the other captures.
  const auto run_again = [&] {
    constexpr int kTimes = 3;
    for (int i = 0; i < kTimes; ++i)
      if (!same_bytes(expected, run())) return false;
    return true;
  };
  auto first = std::async(std::launch::async, run_again), second = std::async(std::launch::async, run_again);
  CHECK(first.get());
  CHECK(second.get());
}

TEST_CASE("detections lie inside the image, best first, and keep to the limits") {
  const std::vector<Scene> images = scenes();
  Detector detector(kDemo, {.device = "cpu", .precision = Precision::Fp32});
  DetectParameters parameters{0.05f, 0.7f, 3, {}};
  parameters.class_filter.assign(10, false);
  parameters.class_filter[0] = parameters.class_filter[3] = true;
  std::size_t total = 0;
  for (const Scene& scene : images) {
    const auto found = detector.detect(scene.image, parameters);
    CHECK(found.size() <= 3);
    total += found.size();
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK((found[i].class_id == 0 || found[i].class_id == 3));
      CHECK(found[i].score > 0.05f);
      if (i > 0) CHECK(found[i].score <= found[i - 1].score);
      CHECK(found[i].box[0] >= 0.f);
      CHECK(found[i].box[1] >= 0.f);
      CHECK(found[i].box[2] <= static_cast<float>(scene.image.width));
      CHECK(found[i].box[3] <= static_cast<float>(scene.image.height));
    }
  }
  CHECK(total > 0);
}

TEST_CASE("images of extreme shapes are handled") {
  Detector detector(kDemo, {.device = "cpu"});
  for (const auto& [width, height] : {std::pair{1, 1}, std::pair{20000, 10}, std::pair{3, 4000}}) {
    const Image image{
        width, height,
        std::vector<std::uint8_t>(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3, 90)};
    for (const Detection& found : detector.detect(image, kEvaluation)) {
      CHECK(found.box[2] <= static_cast<float>(width));
      CHECK(found.box[3] <= static_cast<float>(height));
    }
  }
  CHECK(detector.detect(std::span<const ImageView>{}, kEvaluation).empty());
}

TEST_CASE("the time of a network is told step by step and run by run") {
  Detector detector(kDemo, {.device = "cpu", .precision = Precision::Fp32});
  CHECK(detector.memory_bytes() == 0);
  const std::vector<StepTime> steps = detector.profile({.batch = 2, .repetitions = 1});
  Graph graph = build_model(detector.model(), 2, 256, 256).graph;
  optimize(graph);
  std::int64_t expected = 0, counted = 0;
  for (const Node& node : graph.nodes) expected += flops(graph, node);
  std::size_t convolutions = 0;
  for (const StepTime& step : steps) {
    CAPTURE(step.node);
    counted += step.flops;
    convolutions += step.operation == "conv";
    CHECK(step.seconds > 0);
    CHECK(step.bytes > 0);
    CHECK(step.out.n == 2);
    CHECK_FALSE(step.kernel.empty());
    CHECK((step.operation == "conv") == (step.flops > 0));
  }
  CHECK(counted == expected);
  CHECK(convolutions > 50);
  CHECK(steps.front().in == Shape{2, 256, 256, 3});
  // fp32 weights, and pictures on their way.
  CHECK(detector.memory_bytes() > (4 << 20));
  CHECK(detector.memory_bytes() < (400 << 20));

  const RunTimes times = detector.time_network(1, 3);
  CHECK(times.alone.size() == 3);
  CHECK(times.back_to_back.size() == 3);
  for (const double seconds : times.alone) CHECK(seconds > 0);
  CHECK_THROWS_AS(detector.time_network(0, 3), Error);
  CHECK_THROWS_AS(detector.profile({.batch = 1, .repetitions = 0}), Error);
}

TEST_CASE("what cannot be had is refused with a reason") {
  CHECK_THROWS_AS(Detector("tests/data/checkpoints/zip.pth"), Error);
  CHECK_THROWS_AS(Detector(kDemo, {.device = "tpu"}), Error);
  CHECK_THROWS_AS(Detector(kDemo, {.device = "cpu", .precision = Precision::Fp16}), Error);
  CHECK_THROWS_AS(Detector(kDemo, {.max_batch = 0}), Error);
  CHECK_THROWS_AS(precision_from_name("int8"), Error);
}
