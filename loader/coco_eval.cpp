#include "loader/coco_eval.h"

#include <algorithm>
#include <bitset>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>

#include "engine/core/error.h"

namespace damoyolo {
namespace {

constexpr std::size_t kCocoMaxDetections = 100;
constexpr std::size_t kOverlaps = 10;
constexpr std::size_t kRecalls = 101;

// The last value is set, not computed: evenly spaced doubles end beside 0.95 otherwise.
constexpr std::array<double, kOverlaps> kOverlapThresholds = [] {
  std::array<double, kOverlaps> thresholds{};
  for (std::size_t i = 0; i < kOverlaps; ++i) thresholds[i] = 0.5 + static_cast<double>(i) * ((0.95 - 0.5) / 9);
  thresholds.back() = 0.95;
  return thresholds;
}();

// Both ends belong to a range, so an object of exactly 32² counts as small and as medium.
struct AreaRange {
  double least, most;
  bool contains(double area) const { return area >= least && area <= most; }
};
constexpr AreaRange kAll{0, 1e10}, kSmall{0, 32 * 32}, kMedium{32 * 32, 96 * 96}, kLarge{96 * 96, 1e10};

using OverlapSet = std::bitset<kOverlaps>;  // a bit per overlap threshold

// One class in one image.
struct Cell {
  std::vector<const CocoAnnotation*> objects;
  std::vector<const CocoDetection*> detections;  // descending score
  std::vector<double> overlaps;                  // [detection][object]
};

using ClassCells = std::map<std::int64_t, Cell>;  // by image

// What became of one detection.
struct Outcome {
  double score;
  OverlapSet matched;
  OverlapSet ignored;  // neither right nor wrong
};

struct ClassOutcomes {
  std::vector<Outcome> outcomes;
  std::size_t objects = 0;  // to be found
};

double area(const std::array<double, 4>& box) { return box[2] * box[3]; }

// Intersection over union; over the detection's area alone for a crowd, inside which any number of detections fit.
double overlap(const CocoDetection& detection, const CocoAnnotation& object) {
  const auto& d = detection.bbox;
  const auto& o = object.bbox;
  const double width = std::min(d[0] + d[2], o[0] + o[2]) - std::max(d[0], o[0]);
  const double height = std::min(d[1] + d[3], o[1] + o[3]) - std::max(d[1], o[1]);
  if (width <= 0 || height <= 0) return 0;
  const double common = width * height;
  return common / (object.crowd ? area(d) : area(d) + area(o) - common);
}

void check(const CocoDetection& detection, std::size_t index) {
  const auto finite = [](double value) { return std::isfinite(value); };
  if (!finite(detection.score) || !std::ranges::all_of(detection.bbox, finite)) {
    throw Error("detection {} has a score or box that is not a finite number", index);
  }
}

// Sorts everything by class and image, keeps the best detections, and computes their overlaps once for all ranges.
std::map<int, ClassCells> make_cells(const CocoAnnotations& truth, std::span<const CocoDetection> detections) {
  std::map<int, ClassCells> classes;
  for (const CocoCategory& category : truth.categories) classes[category.id];
  for (const CocoAnnotation& object : truth.annotations) {
    classes[object.category_id][object.image_id].objects.push_back(&object);
  }

  std::vector<std::int64_t> images;
  for (const CocoImage& image : truth.images) images.push_back(image.id);
  std::ranges::sort(images);
  for (std::size_t i = 0; i < detections.size(); ++i) {
    const CocoDetection& detection = detections[i];
    check(detection, i);
    if (!std::ranges::binary_search(images, detection.image_id)) {
      throw Error("detection {} is of image {}, but the annotations have no such image", i, detection.image_id);
    }
    const auto found = classes.find(detection.category_id);
    if (found != classes.end()) found->second[detection.image_id].detections.push_back(&detection);
  }

  for (auto& [category, cells] : classes) {
    for (auto& [image, cell] : cells) {
      std::ranges::stable_sort(cell.detections, std::ranges::greater{}, &CocoDetection::score);
      if (cell.detections.size() > kCocoMaxDetections) cell.detections.resize(kCocoMaxDetections);
      for (const CocoDetection* detection : cell.detections) {
        for (const CocoAnnotation* object : cell.objects) cell.overlaps.push_back(overlap(*detection, *object));
      }
    }
  }
  return classes;
}

// Matches the detections of one image to its objects, for every overlap threshold by itself: best score first, each
// takes the free object it overlaps most, the last of equals. Objects to be found come before ignored ones (crowds and
// those outside the range), and a crowd is never used up. A detection that finds nothing is wrong only inside the
// range.
void match(const Cell& cell, const AreaRange& range, ClassOutcomes& result) {
  const std::size_t count = cell.objects.size();
  const auto ignored = [&](std::size_t o) { return cell.objects[o]->crowd || !range.contains(cell.objects[o]->area); };
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto first_ignored = std::stable_partition(order.begin(), order.end(), std::not_fn(ignored));
  result.objects += static_cast<std::size_t>(first_ignored - order.begin());

  std::vector<OverlapSet> taken(count);
  for (std::size_t d = 0; d < cell.detections.size(); ++d) {
    const CocoDetection& detection = *cell.detections[d];
    Outcome outcome{detection.score, {}, {}};
    for (std::size_t t = 0; t < kOverlaps; ++t) {
      const auto best_of = [&](auto begin, auto end) {
        double least = std::min(kOverlapThresholds[t], 1 - 1e-10);
        auto best = end;
        for (auto o = begin; o != end; ++o) {
          const double value = cell.overlaps[d * count + *o];
          if ((taken[*o][t] && !cell.objects[*o]->crowd) || value < least) continue;
          least = value;
          best = o;
        }
        return best;
      };
      auto best = best_of(order.begin(), first_ignored);
      const bool found = best != first_ignored;
      if (!found) best = best_of(first_ignored, order.end());
      outcome.matched[t] = best != order.end();
      outcome.ignored[t] = !found && (outcome.matched[t] || !range.contains(area(detection.bbox)));
      if (outcome.matched[t]) taken[*best].set(t);
    }
    result.outcomes.push_back(outcome);
  }
}

// Over all images; of equal scores, the image with the smaller id comes first.
ClassOutcomes match_class(const ClassCells& cells, const AreaRange& range) {
  ClassOutcomes result;
  for (const auto& [image, cell] : cells) match(cell, range, result);
  std::ranges::stable_sort(result.outcomes, std::ranges::greater{}, &Outcome::score);
  return result;
}

// The mean over the recalls of the best precision at that recall or a higher one; 0 at recalls that are not reached.
double average_precision(const ClassOutcomes& cls, std::size_t threshold) {
  std::vector<double> recall, precision;
  double right = 0, wrong = 0;
  for (const Outcome& outcome : cls.outcomes) {
    if (!outcome.ignored[threshold]) ++(outcome.matched[threshold] ? right : wrong);
    recall.push_back(right / static_cast<double>(cls.objects));
    // The epsilon keeps 0/0 at zero, and is part of the figures that everyone publishes.
    precision.push_back(right / (right + wrong + std::numeric_limits<double>::epsilon()));
  }
  for (std::size_t i = precision.size(); i-- > 1;) precision[i - 1] = std::max(precision[i - 1], precision[i]);

  double sum = 0;
  for (std::size_t i = 0; i < kRecalls; ++i) {
    const auto at = std::ranges::lower_bound(recall, static_cast<double>(i) * 0.01) - recall.begin();
    if (at < std::ssize(precision)) sum += precision[static_cast<std::size_t>(at)];
  }
  return sum / static_cast<double>(kRecalls);
}

using Precisions = std::optional<std::array<double, kOverlaps>>;  // empty when there is nothing to find

Precisions class_precisions(const ClassCells& cells, const AreaRange& range) {
  const ClassOutcomes cls = match_class(cells, range);
  if (cls.objects == 0) return std::nullopt;
  std::array<double, kOverlaps> values{};
  for (std::size_t t = 0; t < kOverlaps; ++t) values[t] = average_precision(cls, t);
  return values;
}

std::optional<double> over_overlaps(const Precisions& values) {
  if (!values) return std::nullopt;
  return std::accumulate(values->begin(), values->end(), 0.0) / static_cast<double>(kOverlaps);
}

std::optional<double> at_overlap(const Precisions& values, std::size_t threshold) {
  if (!values) return std::nullopt;
  return (*values)[threshold];
}

// The mean of what is there.
class Mean {
 public:
  void add(const std::optional<double>& value) {
    if (!value) return;
    sum_ += *value;
    ++count_;
  }
  std::optional<double> value() const {
    if (count_ == 0) return std::nullopt;
    return sum_ / count_;
  }

 private:
  double sum_ = 0;
  int count_ = 0;
};

}  // namespace

CocoPrecision evaluate_coco(const CocoAnnotations& truth, std::span<const CocoDetection> detections) {
  CocoPrecision result;
  Mean ap, ap50, ap75, small, medium, large;
  for (const auto& [category, cells] : make_cells(truth, detections)) {
    const Precisions all = class_precisions(cells, kAll);
    const CocoClassPrecision cls{category, over_overlaps(all), at_overlap(all, 0), at_overlap(all, 5)};
    result.classes.push_back(cls);
    ap.add(cls.ap);
    ap50.add(cls.ap50);
    ap75.add(cls.ap75);
    small.add(over_overlaps(class_precisions(cells, kSmall)));
    medium.add(over_overlaps(class_precisions(cells, kMedium)));
    large.add(over_overlaps(class_precisions(cells, kLarge)));
  }
  result.ap = ap.value();
  result.ap50 = ap50.value();
  result.ap75 = ap75.value();
  result.ap_small = small.value();
  result.ap_medium = medium.value();
  result.ap_large = large.value();
  return result;
}

}  // namespace damoyolo
