// The network's raw outputs, as the kernels after it take them.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace damoyolo::kernels {

// One level: logits of the two convolutions, F32.
struct HeadLevelView {
  TensorView cls;  // [n, h, w, ≥ classes]; channels past the classes are ignored
  TensorView reg;  // [n, h, w, 4·(reg_max + 1)]: the bins of left, top, right, bottom
  int stride = 0;  // in network pixels
};

// Anchors are numbered level by level, row by row.
struct HeadView {
  HeadLevelView levels[3];
  int classes = 0;
  int reg_max = 0;
};

// Per image.
inline int anchors_of(const HeadView& head) {
  int anchors = 0;
  for (const HeadLevelView& level : head.levels) anchors += level.cls.h * level.cls.w;
  return anchors;
}

// What may change from one run to the next without a new launch or capture: kernels read it from device memory.
struct DetectionParameters {
  float confidence = 0.5f;                       // scores above it are candidates
  float iou = 0.7f;                              // a box that overlaps a better one of its class more is dropped
  int max_detections = 500;                      // per image; at most kMaxDetections
  const std::uint8_t* wanted_classes = nullptr;  // [classes] on the device, 0: not wanted; null: all are
};

}  // namespace damoyolo::kernels
