// From the head's raw maps to scores and boxes (the spec's "ZeroHead and decoding").
//
// Per anchor and side (left, top, right, bottom): softmax over its reg_max + 1 bins, the expectation of the bin index,
// times the level's stride: the distance from the anchor point (column·stride, row·stride) in network pixels.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace damoyolo {

// One level's two outputs, in place: image, row, column, then `pixel_stride` floats of which the first ones count.
struct HeadMap {
  const float* cls = nullptr;                               // `classes` logits
  const float* reg = nullptr;                               // 4·(reg_max+1) bin logits
  std::int64_t cls_pixel_stride = 0, reg_pixel_stride = 0;  // floats between pixels
  int height = 0, width = 0;
  int stride = 0;  // network pixels per cell
};

struct HeadMaps {
  int batch = 0, classes = 0, reg_max = 0;
  std::array<HeadMap, 3> levels;

  std::int64_t anchors() const;  // over the three levels, of one image
};

// An (anchor, class) pair above the threshold.
struct Candidate {
  std::array<float, 4> box{};  // x1, y1, x2, y2 in network pixels, not clamped
  float score = 0;
  std::int32_t class_id = 0;
  std::int32_t anchor = 0;
};

// Everything: scores [batch, anchors, classes] after the sigmoid, boxes [batch, anchors, 4].
void decode_all(const HeadMaps& maps, std::span<float> scores, std::span<float> boxes);

// The pairs of one image with score > confidence, in order of anchor, then class. Boxes are computed for these only.
// `class_filter`: empty, or one entry per class that says whether it is wanted.
std::vector<Candidate> find_candidates(const HeadMaps& maps, int image, float confidence,
                                       const std::vector<bool>& class_filter);

}  // namespace damoyolo
