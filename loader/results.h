// Detections as files: JSON, COCO's results format, YOLO's text lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/detection.h"

namespace damoyolo {

// What was found in one image.
struct ImageResult {
  std::string image;          // its path
  int width = 0, height = 0;  // of the original image
  std::vector<Detection> detections;
  std::vector<std::pair<std::string, double>> milliseconds;  // step and time, as in {"decode", 3.1}
};

// A JSON array written element by element, so that memory does not grow with it. What is in the file after the
// destructor is valid JSON, whatever happened before.
class JsonArrayFile {
 public:
  // Throws Error when the file cannot be made.
  explicit JsonArrayFile(const std::string& path);
  ~JsonArrayFile();
  JsonArrayFile(const JsonArrayFile&) = delete;
  JsonArrayFile& operator=(const JsonArrayFile&) = delete;

  void add(std::string_view element);  // JSON text
  void close();                        // ends the array; throws Error when anything could not be written

 private:
  std::string path_;
  std::ofstream file_;
  bool empty_ = true;
};

// An array with an object for every image:
//   {"image", "width", "height", "detections": [{"class_id", "label", "score", "box": [x1, y1, x2, y2]}],
//    "ms": {step: time}}
// Boxes are in pixels of the original image; a class without a name has its number as label. Bytes of a path that are
// not UTF-8 become U+FFFD.
class JsonResults {
 public:
  JsonResults(const std::string& path, std::vector<std::string> class_names);
  void add(const ImageResult& result);
  void close() { file_.close(); }

 private:
  JsonArrayFile file_;
  std::vector<std::string> class_names_;
};

// COCO's results format: an array with {"image_id", "category_id", "bbox": [x, y, width, height], "score"} for every
// detection.
//   image_id     `image_ids`' for the file name (without folder) when it has it; else the name itself when it is a
//                number, as in 000000000139.jpg; else the image's place among all images added, from 1
//   category_id  1 + class; for the 80 classes of COCO the ids of its annotation files, which go up to 90
class CocoResults {
 public:
  CocoResults(const std::string& path, std::span<const std::string> class_names,
              std::map<std::string, std::int64_t> image_ids = {});
  void add(const ImageResult& result);
  void close() { file_.close(); }

 private:
  JsonArrayFile file_;
  std::vector<int> category_ids_;  // empty: 1 + class
  std::map<std::string, std::int64_t> image_ids_;
  std::int64_t images_ = 0;
};

// Writes a line for each detection: class, centre x, centre y, width, height as fractions of the image's size, score.
// An image without detections gets an empty file. Throws Error when it cannot be written.
void write_yolo_text(const std::string& path, const ImageResult& result);

}  // namespace damoyolo
