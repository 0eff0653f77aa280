#include "engine/decode.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "engine/detection.h"
#include "engine/nms.h"
#include "tests/golden_generator.h"

using namespace damoyolo;

namespace {

constexpr int kClasses = 5, kRegMax = 7, kReg = 4 * (kRegMax + 1);

// Three levels of random logits; cls and reg side by side as a merged head writes them.
struct RandomHead {
  std::vector<std::vector<float>> data;
  HeadMaps maps;

  explicit RandomHead(int batch) {
    maps.batch = batch;
    maps.classes = kClasses;
    maps.reg_max = kRegMax;
    constexpr int kWidth = kClasses + kReg;
    for (std::size_t i = 0; i < 3; ++i) {
      const int height = 4 >> i, width = 8 >> i;
      std::vector<float>& level = data.emplace_back(static_cast<std::size_t>(batch * height * width * kWidth));
      for (std::size_t k = 0; k < level.size(); ++k) level[k] = 8.f * golden_uniform(i, k) - 4.f;
      maps.levels[i] = {level.data(), level.data() + kClasses, kWidth, kWidth, height, width, 8 << i};
    }
  }
};

Candidate candidate(float x, float y, float size, float score, int class_id, int anchor) {
  return {{x, y, x + size, y + size}, score, class_id, anchor};
}

}  // namespace

TEST_CASE("a distribution on one bin is that bin's distance") {
  RandomHead head(1);
  for (auto& level : head.data) std::fill(level.begin(), level.end(), -50.f);
  // Level 1 (stride 16), row 1, column 2: left 1, top 2, right 3, bottom 4 bins.
  float* pixel = head.data[1].data() + (1 * 4 + 2) * (kClasses + kReg);
  for (int side = 0; side < 4; ++side) pixel[kClasses + side * (kRegMax + 1) + side + 1] = 50.f;
  pixel[3] = 2.f;
  const auto found = find_candidates(head.maps, 0, 0.5f, {});
  REQUIRE(found.size() == 1);
  CHECK(found[0].class_id == 3);
  CHECK(found[0].anchor == 4 * 8 + 1 * 4 + 2);
  CHECK(found[0].score == doctest::Approx(1 / (1 + std::exp(-2.0))));
  CHECK(found[0].box[0] == doctest::Approx(2 * 16 - 16));
  CHECK(found[0].box[1] == doctest::Approx(1 * 16 - 32));
  CHECK(found[0].box[2] == doctest::Approx(2 * 16 + 48));
  CHECK(found[0].box[3] == doctest::Approx(1 * 16 + 64));
}

TEST_CASE("candidates are the decoded pairs above the threshold") {
  const RandomHead head(2);
  const std::int64_t anchors = head.maps.anchors();
  REQUIRE(anchors == 32 + 8 + 2);
  std::vector<float> scores(static_cast<std::size_t>(2 * anchors * kClasses)),
      boxes(static_cast<std::size_t>(2 * anchors * 4));
  decode_all(head.maps, scores, boxes);
  for (const float confidence : {0.f, 0.3f, 0.9f, 1.f})
    for (int image = 0; image < 2; ++image) {
      const auto found = find_candidates(head.maps, image, confidence, {});
      std::size_t next = 0;
      for (std::int64_t anchor = 0; anchor < anchors; ++anchor)
        for (int c = 0; c < kClasses; ++c) {
          const auto at = static_cast<std::size_t>(image * anchors + anchor);
          const float score = scores[at * kClasses + static_cast<std::size_t>(c)];
          if (!(score > confidence)) continue;
          REQUIRE(next < found.size());
          CHECK(found[next].anchor == anchor);
          CHECK(found[next].class_id == c);
          CHECK(found[next].score == score);
          for (std::size_t side = 0; side < 4; ++side) CHECK(found[next].box[side] == boxes[at * 4 + side]);
          ++next;
        }
      CHECK(next == found.size());
    }
}

TEST_CASE("only wanted classes are candidates") {
  const RandomHead head(1);
  const auto found = find_candidates(head.maps, 0, 0.2f, {false, true, false, false, true});
  CHECK(!found.empty());
  for (const Candidate& one : found) CHECK((one.class_id == 1 || one.class_id == 4));
}

TEST_CASE("NaN logits are never candidates") {
  RandomHead head(1);
  for (auto& level : head.data) std::fill(level.begin(), level.end(), std::nanf(""));
  CHECK(find_candidates(head.maps, 0, 0.f, {}).empty());
}

TEST_CASE("suppression works class by class") {
  const auto kept = non_maximum_suppression({candidate(0, 0, 10, 0.5f, 0, 0), candidate(1, 0, 10, 0.9f, 0, 1),
                                             candidate(1, 0, 10, 0.4f, 1, 1), candidate(30, 0, 10, 0.3f, 0, 2)},
                                            0.5f, 500);
  REQUIRE(kept.size() == 3);
  CHECK(kept[0].score == 0.9f);
  CHECK(kept[1].class_id == 1);
  CHECK(kept[2].anchor == 2);
}

TEST_CASE("an overlap of exactly the threshold is kept") {
  // Two 10×10 squares that share half: IoU = 50 / 150.
  const std::vector<Candidate> pair{candidate(0, 0, 10, 0.9f, 0, 0), candidate(5, 0, 10, 0.8f, 0, 1)};
  CHECK(non_maximum_suppression(pair, 50.f / 150.f, 500).size() == 2);
  CHECK(non_maximum_suppression(pair, 0.33f, 500).size() == 1);
}

TEST_CASE("ties and limits do not depend on the order of the candidates") {
  std::vector<Candidate> candidates;
  for (int i = 0; i < 700; ++i) candidates.push_back(candidate(20.f * static_cast<float>(i), 0, 10, 0.5f, i % 3, i));
  auto reversed = candidates;
  std::reverse(reversed.begin(), reversed.end());
  const auto a = non_maximum_suppression(candidates, 0.5f, kMaxDetections);
  const auto b = non_maximum_suppression(reversed, 0.5f, kMaxDetections);
  REQUIRE(a.size() == 500);
  REQUIRE(b.size() == 500);
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].anchor == static_cast<int>(i));
    CHECK(b[i].anchor == a[i].anchor);
  }
}

TEST_CASE("nothing in, nothing out") { CHECK(non_maximum_suppression({}, 0.5f, 500).empty()); }
