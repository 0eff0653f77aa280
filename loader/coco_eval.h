// Average precision of detections against COCO annotations, as the COCO challenge defines it for boxes.
// https://cocodataset.org/#detection-eval
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "loader/coco_annotations.h"

namespace damoyolo {

struct CocoDetection {
  std::int64_t image_id = 0;
  int category_id = 0;
  std::array<double, 4> bbox{};  // x, y, width, height in pixels of the image
  double score = 0;
};

// Average precisions in [0, 1]: precision averaged over the recalls 0, 0.01, … 1, and over the overlaps (intersection
// over union) 0.50, 0.55, … 0.95 unless one overlap is named. Empty where there was no object to find.
struct CocoClassPrecision {
  int category_id = 0;
  std::optional<double> ap, ap50, ap75;
};

// Means over the classes that have objects. Small: an object's area is at most 32², medium: 32² to 96², large: from
// 96².
struct CocoPrecision {
  std::optional<double> ap, ap50, ap75;
  std::optional<double> ap_small, ap_medium, ap_large;
  std::vector<CocoClassPrecision> classes;  // ascending category_id
};

// Of each class in each image, the 100 detections with the highest scores count; of equal scores, the earlier one goes
// first. Detections of a category that `truth` does not list are left out. Throws Error when a detection names
// an image that is not in `truth`, or when its score or box is not finite.
CocoPrecision evaluate_coco(const CocoAnnotations& truth, std::span<const CocoDetection> detections);

}  // namespace damoyolo
