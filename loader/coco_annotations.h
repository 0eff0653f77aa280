// COCO annotation files: which objects are in which image. https://cocodataset.org/#format-data
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace damoyolo {

struct CocoImage {
  std::int64_t id = 0;
  std::string file_name;  // relative to the folder of the images
  int width = 0, height = 0;
};

struct CocoAnnotation {
  std::int64_t image_id = 0;
  int category_id = 0;
  std::array<double, 4> bbox{};  // x, y, width, height in pixels of the image
  double area = 0;               // of the object's mask in square pixels; smaller than the box's, as a rule
  bool crowd = false;            // the box surrounds many objects: it is neither missed nor wrongly found
};

struct CocoCategory {
  int id = 0;
  std::string name;
};

struct CocoAnnotations {
  std::vector<CocoImage> images;
  std::vector<CocoAnnotation> annotations;
  std::vector<CocoCategory> categories;
};

// Checks every field that is read: types, finite boxes of non-negative size, unique ids, and that each annotation
// names an image and a category that exist. `area` may be left out (then the box's), and so may `iscrowd` (then
// false). Throws Error naming `origin` and the field, as in "annotations[12].bbox".
CocoAnnotations parse_coco_annotations(std::span<const std::byte> bytes, std::string_view origin);

CocoAnnotations read_coco_annotations(const std::string& path);

}  // namespace damoyolo
