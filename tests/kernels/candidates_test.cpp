#include "kernels/candidates.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "tests/kernels/head_fixture.h"

namespace damoyolo::kernels {
namespace {

struct Found {
  std::vector<int> totals;
  std::vector<std::vector<Candidate>> images;
};

Found run(const RandomHead& head, const DetectionParameters& parameters, int capacity) {
  const auto batch = static_cast<std::size_t>(head.sizes().batch);
  const std::size_t places = batch * static_cast<std::size_t>(capacity);
  const DeviceArray<Candidate> candidates(places);
  const DeviceArray<int> found(std::vector<int>(batch, 12345));
  const DeviceArray<std::uint64_t> keys(places);
  const DeviceArray<DetectionParameters> device_parameters({parameters});
  launch_candidates(head.view(), device_parameters.data(), {capacity, candidates.data(), found.data(), keys.data()},
                    {});
  Found result{found.download(), {}};
  const auto all = candidates.download();
  for (std::size_t i = 0; i < batch; ++i) {
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(i) * capacity;
    result.images.emplace_back(first, first + std::min(result.totals[i], capacity));
  }
  return result;
}

// Compares with what the CPU finds, sorted and cut to the capacity.
void compare(const RandomHead& head, const DetectionParameters& parameters, const std::vector<bool>& filter,
             int capacity) {
  const Found found = run(head, parameters, capacity);
  for (int image = 0; image < head.sizes().batch; ++image) {
    auto want = find_candidates(head.maps(), image, parameters.confidence, filter);
    std::sort(want.begin(), want.end(), [](const auto& a, const auto& b) {
      return std::tie(b.score, a.anchor, a.class_id) < std::tie(a.score, b.anchor, b.class_id);
    });
    const auto& got = found.images[static_cast<std::size_t>(image)];
    REQUIRE(found.totals[static_cast<std::size_t>(image)] == static_cast<int>(want.size()));
    want.resize(std::min(want.size(), static_cast<std::size_t>(capacity)));
    REQUIRE(got.size() == want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      REQUIRE(got[i].class_id == want[i].class_id);
      REQUIRE(std::abs(got[i].score - want[i].score) <= 1e-6f);
      for (std::size_t side = 0; side < 4; ++side) REQUIRE(std::abs(got[i].box[side] - want[i].box[side]) <= 1e-3f);
    }
  }
}

KERNEL_TEST_CASE("candidates are those the CPU finds, best first, ties by anchor and class") {
  for (const HeadSizes sizes :
       {HeadSizes{1, 32, 32, 1, 7}, HeadSizes{2, 64, 96, 6, 16}, HeadSizes{3, 32, 64, 3, 7, 1}})
    for (const Placement place : kPlacements) compare(RandomHead(sizes, place, 1), {.confidence = 0.6f}, {}, 512);
}

KERNEL_TEST_CASE("nothing above the threshold gives no candidates") {
  const RandomHead head({2, 64, 32, 4, 7}, {}, 2);
  const Found found = run(head, {.confidence = 0.999f}, 64);
  CHECK(found.totals == std::vector<int>{0, 0});
}

KERNEL_TEST_CASE("more candidates than fit: the best are kept") {
  const RandomHead head({2, 64, 64, 9, 7}, {3, 2}, 3);
  for (const int capacity : {1, 16, 64, 256}) compare(head, {.confidence = 0.0f}, {}, capacity);
  compare(head, {.confidence = 0.0f}, {}, 1024);
}

KERNEL_TEST_CASE("only wanted classes are candidates") {
  const RandomHead head({1, 64, 64, 5, 7}, {}, 4);
  const DeviceArray<std::uint8_t> wanted({0, 1, 0, 0, 1});
  compare(head, {.confidence = 0.3f, .wanted_classes = wanted.data()}, {false, true, false, false, true}, 256);
  compare(head, {.confidence = 0.0f, .wanted_classes = wanted.data()}, {false, true, false, false, true}, 32);
}

KERNEL_TEST_CASE("two runs give the same candidates, byte for byte") {
  const RandomHead head({2, 64, 64, 8, 7}, {}, 5);
  for (const int capacity : {32, 512}) {
    const Found first = run(head, {.confidence = 0.4f}, capacity), second = run(head, {.confidence = 0.4f}, capacity);
    CHECK(first.totals == second.totals);
    for (std::size_t i = 0; i < 2; ++i) {
      REQUIRE(first.images[i].size() == second.images[i].size());
      CHECK(std::memcmp(first.images[i].data(), second.images[i].data(), first.images[i].size() * sizeof(Candidate)) ==
            0);
    }
  }
}

KERNEL_TEST_CASE("candidates refuse a capacity that is not a power of two or too large") {
  const RandomHead head({1, 32, 32, 1, 7}, {}, 1);
  for (const int capacity : {0, 48, 2 * kMaxCandidates})
    CHECK_THROWS_WITH(run(head, {}, capacity),
                      "kernel find_candidates expects a capacity that is a power of two and at most 8192");
}

}  // namespace
}  // namespace damoyolo::kernels
