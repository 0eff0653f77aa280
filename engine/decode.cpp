#include "engine/decode.h"

#include <algorithm>
#include <cmath>

namespace damoyolo {
namespace {

float sigmoid(float x) { return 1.f / (1.f + std::exp(-x)); }

float expected_bin(const float* logits, int bins) {
  const float largest = *std::max_element(logits, logits + bins);
  float total = 0.f, weighted = 0.f;
  for (int bin = 0; bin < bins; ++bin) {
    const float weight = std::exp(logits[bin] - largest);
    total += weight;
    weighted += weight * static_cast<float>(bin);
  }
  return weighted / total;
}

std::array<float, 4> decode_box(const float* reg, int reg_max, int row, int column, int stride) {
  const auto step = static_cast<float>(stride);
  const float x = static_cast<float>(column) * step;
  const float y = static_cast<float>(row) * step;
  std::array<float, 4> distance{};
  for (int side = 0; side < 4; ++side)
    distance[static_cast<std::size_t>(side)] = step * expected_bin(reg + side * (reg_max + 1), reg_max + 1);
  return {x - distance[0], y - distance[1], x + distance[2], y + distance[3]};
}

// Calls visit(anchor, row, column, level, cls, reg) for every cell of one image in the order of the anchors.
template <typename Visit>
void for_each_anchor(const HeadMaps& maps, int image, Visit visit) {
  std::int64_t anchor = 0;
  for (const HeadMap& level : maps.levels) {
    std::int64_t pixel = std::int64_t{image} * level.height * level.width;
    for (int row = 0; row < level.height; ++row)
      for (int column = 0; column < level.width; ++column, ++pixel, ++anchor)
        visit(anchor, row, column, level, level.cls + pixel * level.cls_pixel_stride,
              level.reg + pixel * level.reg_pixel_stride);
  }
}

}  // namespace

std::int64_t HeadMaps::anchors() const {
  std::int64_t total = 0;
  for (const HeadMap& level : levels) total += std::int64_t{level.height} * level.width;
  return total;
}

void decode_all(const HeadMaps& maps, std::span<float> scores, std::span<float> boxes) {
  const std::int64_t anchors = maps.anchors();
#pragma omp parallel for schedule(static)
  for (int image = 0; image < maps.batch; ++image)
    for_each_anchor(
        maps, image,
        [&](std::int64_t anchor, int row, int column, const HeadMap& level, const float* cls, const float* reg) {
          const std::int64_t at = image * anchors + anchor;
          std::transform(cls, cls + maps.classes, scores.data() + at * maps.classes, sigmoid);
          const auto box = decode_box(reg, maps.reg_max, row, column, level.stride);
          std::copy(box.begin(), box.end(), boxes.data() + at * 4);
        });
}

std::vector<Candidate> find_candidates(const HeadMaps& maps, int image, float confidence,
                                       const std::vector<bool>& class_filter) {
  // Nearly every pair is far below the threshold, so pairs are sorted out by their logit first. The sigmoid of a logit
  // within rounding of the threshold decides exactly.
  const float threshold = confidence <= 0.f   ? -INFINITY
                          : confidence >= 1.f ? INFINITY
                                              : std::log(confidence / (1.f - confidence)) - 1e-3f;
  std::vector<Candidate> found;
  for_each_anchor(
      maps, image,
      [&](std::int64_t anchor, int row, int column, const HeadMap& level, const float* cls, const float* reg) {
        bool any = false;
        for (int c = 0; c < maps.classes; ++c) any |= cls[c] > threshold;
        if (!any) return;
        std::array<float, 4> box{};
        bool have_box = false;
        for (int c = 0; c < maps.classes; ++c) {
          if (!(cls[c] > threshold)) continue;
          if (!class_filter.empty() && !class_filter[static_cast<std::size_t>(c)]) continue;
          const float score = sigmoid(cls[c]);
          if (!(score > confidence)) continue;
          if (!have_box) box = decode_box(reg, maps.reg_max, row, column, level.stride);
          have_box = true;
          found.push_back({box, score, c, static_cast<std::int32_t>(anchor)});
        }
      });
  return found;
}

}  // namespace damoyolo
