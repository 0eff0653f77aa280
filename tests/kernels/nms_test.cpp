#include "kernels/nms.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "engine/nms.h"
#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {
namespace {

constexpr int kNetWidth = 64, kNetHeight = 96;

struct Result {
  std::vector<int> counts;
  std::vector<Detection> detections;

  const Detection& at(std::size_t image, int i) const {
    return detections[image * kMaxDetections + static_cast<std::size_t>(i)];
  }
};

Result run(const std::vector<std::vector<Candidate>>& images, const std::vector<Image>& sizes,
           const DetectionParameters& parameters, int capacity) {
  std::vector<Candidate> all(images.size() * static_cast<std::size_t>(capacity), Candidate{{1, 1, 9, 9}, 2, -1});
  std::vector<int> found;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto stored = std::min<std::ptrdiff_t>(std::ssize(images[i]), capacity);
    std::copy_n(images[i].begin(), stored, all.begin() + static_cast<std::ptrdiff_t>(i) * capacity);
    found.push_back(static_cast<int>(images[i].size()));
  }
  const DeviceArray<Candidate> candidates(all);
  const DeviceArray<int> device_found(found);
  const DeviceArray<Image> device_images(sizes);
  const DeviceArray<DetectionParameters> device_parameters({parameters});
  const DeviceArray<Detection> detections(
      std::vector<Detection>(images.size() * kMaxDetections, Detection{{7, 7, 7, 7}, 7, 7}));
  const DeviceArray<int> counts(images.size());
  launch_nms({capacity, candidates.data(), device_found.data(), nullptr}, device_parameters.data(),
             device_images.data(), static_cast<int>(images.size()), kNetWidth, kNetHeight, detections.data(),
             counts.data(), {});
  return {counts.download(), detections.download()};
}

// Sorted by score; every second score is equal to the one before. Boxes may reach outside the network's area.
std::vector<Candidate> random_candidates(int count, int classes, float spread, unsigned seed) {
  const auto random = random_values(static_cast<std::size_t>(count) * 4, seed, spread);
  std::vector<Candidate> candidates;
  for (int i = 0; i < count; ++i) {
    const float* r = &random[static_cast<std::size_t>(i) * 4];
    const float x = 32 + r[0], y = 48 + r[1];
    const float score = 0.9f - static_cast<float>(i / 2) / static_cast<float>(count);
    candidates.push_back({{x, y, x + 20 + r[2] / 4, y + 20 + r[3] / 4}, score, i * 7 % classes});
  }
  return candidates;
}

void compare(const std::vector<std::vector<Candidate>>& images, const std::vector<Image>& sizes,
             const DetectionParameters& parameters, int capacity) {
  const Result result = run(images, sizes, parameters, capacity);
  for (std::size_t image = 0; image < images.size(); ++image) {
    std::vector<damoyolo::Candidate> input;
    for (std::size_t i = 0; i < std::min(images[image].size(), static_cast<std::size_t>(capacity)); ++i) {
      const Candidate& c = images[image][i];
      input.push_back({{c.box[0], c.box[1], c.box[2], c.box[3]}, c.score, c.class_id, static_cast<int>(i)});
    }
    const auto want = non_maximum_suppression(input, parameters.iou, parameters.max_detections);
    REQUIRE(result.counts[image] == static_cast<int>(want.size()));
    const auto width = static_cast<float>(sizes[image].width), height = static_cast<float>(sizes[image].height);
    for (int i = 0; i < result.counts[image]; ++i) {
      const Detection& got = result.at(image, i);
      const auto& candidate = want[static_cast<std::size_t>(i)];
      REQUIRE(got.score == candidate.score);
      REQUIRE(got.class_id == candidate.class_id);
      for (std::size_t side = 0; side < 4; ++side) {
        const float scale = side % 2 == 0 ? width / kNetWidth : height / kNetHeight;
        const float limit = side % 2 == 0 ? width : height;
        REQUIRE(got.box[side] == std::clamp(candidate.box[side] * scale, 0.0f, limit));
      }
    }
    for (int i = result.counts[image]; i < kMaxDetections; ++i) {
      REQUIRE(result.at(image, i).score == 0);
      REQUIRE(result.at(image, i).class_id == 0);
      REQUIRE(result.at(image, i).box[3] == 0);
    }
  }
}

KERNEL_TEST_CASE("NMS keeps what the CPU keeps, image by image") {
  const std::vector<Image> sizes = {{nullptr, 640, 480}, {nullptr, 33, 1000}, {nullptr, 64, 96}};
  for (const float iou : {0.3f, 0.7f, 1.0f})
    for (const int classes : {1, 3, 80})
      compare({random_candidates(200, classes, 40, 1), {}, random_candidates(65, classes, 10, 2)}, sizes, {.iou = iou},
              256);
}

KERNEL_TEST_CASE("NMS stops at the number asked for, and at 500") {
  const std::vector<Image> sizes = {{nullptr, 640, 480}};
  const auto many = random_candidates(1200, 3, 600, 3);
  for (const int most : {0, 1, 63, 100, 500}) compare({many}, sizes, {.iou = 0.9f, .max_detections = most}, 2048);
  const Result beyond = run({many}, sizes, {.iou = 0.9f, .max_detections = 100000}, 2048);
  CHECK(beyond.counts[0] == kMaxDetections);
}

KERNEL_TEST_CASE("NMS looks at no more candidates than were stored") {
  compare({random_candidates(300, 2, 60, 4)}, {{nullptr, 64, 96}}, {.iou = 0.5f}, 128);
}

KERNEL_TEST_CASE("NMS: equal boxes of one class leave one, of two classes two") {
  const Candidate box{{10, 10, 30, 30}, 0.5f, 4};
  Candidate other = box;
  other.class_id = 5;
  const Result result = run({{box, box, other, box}}, {{nullptr, 64, 96}}, {.iou = 0.7f}, 4);
  CHECK(result.counts[0] == 2);
  CHECK(result.at(0, 0).class_id == 4);
  CHECK(result.at(0, 1).class_id == 5);
}

KERNEL_TEST_CASE("NMS finds nothing in an unused place of the batch") {
  const auto some = random_candidates(10, 2, 40, 5);
  const Result result = run({some, some}, {Image{}, {nullptr, 64, 96}}, {}, 16);
  CHECK(result.counts[0] == 0);
  CHECK(result.counts[1] > 0);
}

KERNEL_TEST_CASE("NMS survives boxes that are not numbers") {
  Candidate broken{{NAN, 0, INFINITY, -INFINITY}, 0.9f, 0};
  const Result result = run({{broken, Candidate{{1, 1, 5, 5}, 0.8f, 0}}}, {{nullptr, 64, 96}}, {.iou = 0.5f}, 2);
  CHECK(result.counts[0] == 2);
  for (const float coordinate : result.at(0, 0).box) CHECK((coordinate >= 0 && coordinate <= 96));
}

KERNEL_TEST_CASE("two runs of NMS give the same bytes") {
  const std::vector<Image> sizes = {{nullptr, 640, 480}, {nullptr, 20, 30}};
  const std::vector<std::vector<Candidate>> images = {random_candidates(150, 2, 50, 6),
                                                      random_candidates(70, 1, 9, 7)};
  const Result first = run(images, sizes, {.iou = 0.6f}, 256), second = run(images, sizes, {.iou = 0.6f}, 256);
  CHECK(first.counts == second.counts);
  CHECK(std::memcmp(first.detections.data(), second.detections.data(), first.detections.size() * sizeof(Detection)) ==
        0);
}

}  // namespace
}  // namespace damoyolo::kernels
