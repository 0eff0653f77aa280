#include "engine/nms.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>

namespace damoyolo {
namespace {

float area(const std::array<float, 4>& box) { return (box[2] - box[0]) * (box[3] - box[1]); }

float intersection_over_union(const std::array<float, 4>& a, const std::array<float, 4>& b) {
  const float width = std::min(a[2], b[2]) - std::max(a[0], b[0]);
  const float height = std::min(a[3], b[3]) - std::max(a[1], b[1]);
  if (width <= 0.f || height <= 0.f) return 0.f;
  const float intersection = width * height;
  return intersection / (area(a) + area(b) - intersection);
}

}  // namespace

std::vector<Candidate> non_maximum_suppression(std::vector<Candidate> candidates, float iou, int max_keep) {
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(b.score, a.anchor, a.class_id) < std::tie(a.score, b.anchor, b.class_id);
  });
  std::vector<Candidate> kept;
  std::unordered_map<std::int32_t, std::vector<std::size_t>> kept_of_class;
  for (const Candidate& candidate : candidates) {
    if (kept.size() >= static_cast<std::size_t>(max_keep)) break;
    auto& rivals = kept_of_class[candidate.class_id];
    const bool suppressed = std::any_of(rivals.begin(), rivals.end(), [&](std::size_t rival) {
      return intersection_over_union(kept[rival].box, candidate.box) > iou;
    });
    if (suppressed) continue;
    rivals.push_back(kept.size());
    kept.push_back(candidate);
  }
  return kept;
}

}  // namespace damoyolo
