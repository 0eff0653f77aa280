// What the head's outputs mean, anchor by anchor, shared by the kernels that read them.
#pragma once

#include "kernels/divisor.cuh"
#include "kernels/head.h"
#include "kernels/numeric.cuh"

namespace damoyolo::kernels {

constexpr int kClassesPerThread = 4;  // 16 bytes

// A HeadView as kernels see it.
struct HeadArguments {
  Slice<const float> cls[3], reg[3];
  int strides[3];
  int first_anchors[3];
  int anchors;
  int classes, bins;
  int class_groups;  // of kClassesPerThread
  Divisor by_width[3], by_classes, by_class_groups, by_bins;
};

// Checks that the levels fit together.
inline HeadArguments head_arguments(const HeadView& head, const char* kernel) {
  require(head.classes > 0 && head.reg_max > 0, kernel, "a head with classes and bins");
  HeadArguments arguments{};
  const int batch = head.levels[0].cls.n;
  for (int i = 0; i < 3; ++i) {
    const HeadLevelView& level = head.levels[i];
    require_view(level.cls, kernel);
    require_view(level.reg, kernel);
    require(level.cls.type == DType::F32 && level.reg.type == DType::F32, kernel, "logits of type F32");
    require(level.cls.n == batch && level.reg.n == batch && level.cls.h == level.reg.h && level.cls.w == level.reg.w,
            kernel, "scores and boxes of the same size");
    require(level.cls.c >= head.classes && level.reg.c == 4 * (head.reg_max + 1), kernel,
            "a score channel per class and four times reg_max + 1 box channels");
    require(level.stride > 0, kernel, "positive strides");
    arguments.cls[i] = slice<const float>(level.cls);
    arguments.reg[i] = slice<const float>(level.reg);
    arguments.strides[i] = level.stride;
    arguments.by_width[i] = Divisor(level.cls.w);
    arguments.first_anchors[i] = arguments.anchors;
    arguments.anchors += level.cls.h * level.cls.w;
  }
  arguments.classes = head.classes;
  arguments.bins = head.reg_max + 1;
  arguments.class_groups = (head.classes + kClassesPerThread - 1) / kClassesPerThread;
  arguments.by_classes = Divisor(head.classes);
  arguments.by_class_groups = Divisor(arguments.class_groups);
  arguments.by_bins = Divisor(arguments.bins);
  return arguments;
}

struct Cell {
  int level, row, column;
};

__device__ __forceinline__ Cell cell_of(const HeadArguments& head, int anchor) {
  const int level = anchor >= head.first_anchors[2] ? 2 : anchor >= head.first_anchors[1] ? 1 : 0;
  const int position = anchor - head.first_anchors[level], row = head.by_width[level].divide(position);
  return {level, row, position - row * head.cls[level].w};
}

// Neighbouring classes of an anchor: what one thread looks at.
struct ClassGroup {
  int anchor, first, count;
  float logits[kClassesPerThread];
};

// Groups are counted through the classes of each anchor.
__device__ __forceinline__ ClassGroup load_class_group(const HeadArguments& head, int image, int number) {
  ClassGroup group;
  group.anchor = head.by_class_groups.divide(number);
  group.first = (number - group.anchor * head.class_groups) * kClassesPerThread;
  group.count = min(kClassesPerThread, head.classes - group.first);
  const Cell cell = cell_of(head, group.anchor);
  const Slice<const float>& cls = head.cls[cell.level];
  load(cls.pixel(image, cell.row, cell.column) + group.first, group.count, cls.aligned, group.logits);
  return group;
}

// One coordinate of an anchor's box, in network pixels; side: 0 left, 1 top, 2 right, 3 bottom. The distance from the
// anchor point (column, row)·stride is the expectation of the softmax over the side's bins, times the stride.
// `logits`: the side's.
__device__ __forceinline__ float box_coordinate(const HeadArguments& head, const Cell& cell, int side,
                                                const float* logits) {
  float largest = logits[0];
  for (int bin = 1; bin < head.bins; ++bin) largest = fmaxf(largest, logits[bin]);
  float sum = 0, weighted = 0;
  for (int bin = 0; bin < head.bins; ++bin) {
    const float weight = expf(logits[bin] - largest);
    sum += weight;
    weighted += weight * static_cast<float>(bin);
  }
  const auto stride = static_cast<float>(head.strides[cell.level]);
  const float point = static_cast<float>(side % 2 == 0 ? cell.column : cell.row) * stride;
  const float distance = weighted / sum * stride;
  return side < 2 ? point - distance : point + distance;
}

}  // namespace damoyolo::kernels
