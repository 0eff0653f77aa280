#include "engine/decode.h"

#include <algorithm>
#include <cmath>

#include "engine/core/simd.h"

namespace damoyolo {
namespace {

// The only place where scores come from, also single ones: instruction sets differ in the last bit.
DAMOYOLO_SIMD void sigmoid(const float* x, float* y, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) y[i] = 1.f / (1.f + exp_of(-x[i]));
}

DAMOYOLO_SIMD float largest(const float* x, int n) {
  float result = -INFINITY;
#pragma omp simd reduction(max : result)
  for (int i = 0; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

DAMOYOLO_SIMD float expected_bin(const float* logits, int bins) {
  float peak = -INFINITY;
#pragma omp simd reduction(max : peak)
  for (int bin = 0; bin < bins; ++bin) peak = logits[bin] > peak ? logits[bin] : peak;
  float total = 0.f, weighted = 0.f;
#pragma omp simd reduction(+ : total, weighted)
  for (int bin = 0; bin < bins; ++bin) {
    const float weight = exp_of(logits[bin] - peak);
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

// One row of cells of one level, and where its anchors begin among the image's.
struct Row {
  const HeadMap* level;
  int index;
  std::int64_t first_anchor;
};

std::vector<Row> rows_of(const HeadMaps& maps) {
  std::vector<Row> rows;
  std::int64_t anchor = 0;
  for (const HeadMap& level : maps.levels)
    for (int row = 0; row < level.height; ++row, anchor += level.width) rows.push_back({&level, row, anchor});
  return rows;
}

// Calls visit(anchor, column, cls, reg) for the cells of one row of one image.
template <typename Visit>
void for_each_cell(const Row& row, int image, Visit visit) {
  const HeadMap& level = *row.level;
  const std::int64_t first = (std::int64_t{image} * level.height + row.index) * level.width;
  for (int column = 0; column < level.width; ++column)
    visit(row.first_anchor + column, column, level.cls + (first + column) * level.cls_pixel_stride,
          level.reg + (first + column) * level.reg_pixel_stride);
}

}  // namespace

std::int64_t HeadMaps::anchors() const {
  std::int64_t total = 0;
  for (const HeadMap& level : levels) total += std::int64_t{level.height} * level.width;
  return total;
}

void decode_all(const HeadMaps& maps, std::span<float> scores, std::span<float> boxes) {
  const std::int64_t anchors = maps.anchors();
  const std::vector<Row> rows = rows_of(maps);
#pragma omp parallel for collapse(2) schedule(static)
  for (int image = 0; image < maps.batch; ++image)
    for (std::size_t i = 0; i < rows.size(); ++i)
      for_each_cell(rows[i], image, [&](std::int64_t anchor, int column, const float* cls, const float* reg) {
        const std::int64_t at = image * anchors + anchor;
        sigmoid(cls, scores.data() + at * maps.classes, maps.classes);
        const auto box = decode_box(reg, maps.reg_max, rows[i].index, column, rows[i].level->stride);
        std::copy(box.begin(), box.end(), boxes.data() + at * 4);
      });
}

std::vector<Candidate> find_candidates(const HeadMaps& maps, int image, float confidence,
                                       const std::vector<bool>& class_filter) {
  // Nearly every pair is far below the threshold, so cells are sorted out by their largest logit first, with room for
  // rounding; the sigmoid itself decides.
  const float threshold = confidence <= 0.f   ? -INFINITY
                          : confidence >= 1.f ? INFINITY
                                              : std::log(confidence / (1.f - confidence)) - 1e-3f;
  std::vector<Candidate> found;
  for (const Row& row : rows_of(maps))
    for_each_cell(row, image, [&](std::int64_t anchor, int column, const float* cls, const float* reg) {
      if (!(largest(cls, maps.classes) > threshold)) return;
      std::array<float, 4> box{};
      bool have_box = false;
      for (int c = 0; c < maps.classes; ++c) {
        if (!(cls[c] > threshold)) continue;
        if (!class_filter.empty() && !class_filter[static_cast<std::size_t>(c)]) continue;
        float score = 0;
        sigmoid(cls + c, &score, 1);
        if (!(score > confidence)) continue;
        if (!have_box) box = decode_box(reg, maps.reg_max, row.index, column, row.level->stride);
        have_box = true;
        found.push_back({box, score, c, static_cast<std::int32_t>(anchor)});
      }
    });
  return found;
}

}  // namespace damoyolo
