#include "loader/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "engine/core/error.h"
#include "engine/model/spec.h"

namespace damoyolo {
namespace {

// Keys stay in the order they are added, and a float is written with as many digits as tell it apart from its
// neighbours.
using Json =
    nlohmann::basic_json<nlohmann::ordered_map, std::vector, std::string, bool, std::int64_t, std::uint64_t, float>;

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::vector<int> category_ids(std::span<const std::string> class_names) {
  const std::vector<std::string>& coco = coco_names();
  if (!std::equal(class_names.begin(), class_names.end(), coco.begin(), coco.end())) return {};
  // Eleven of COCO's 91 categories were never annotated and have no class.
  constexpr std::array kUnused = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91};
  std::vector<int> ids;
  for (int id = 1; id <= 91; ++id) {
    if (std::find(kUnused.begin(), kUnused.end(), id) == kUnused.end()) ids.push_back(id);
  }
  return ids;
}

std::optional<std::int64_t> number_in(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() && number >= 0 ? std::optional(number)
                                                                                 : std::nullopt;
}

}  // namespace

JsonArrayFile::JsonArrayFile(const std::string& path) : path_(path), file_(path, std::ios::binary) {
  if (!file_) throw Error("{}: cannot be written", path_);
  file_ << '[';
}

JsonArrayFile::~JsonArrayFile() {
  if (file_.is_open()) file_ << "\n]\n";
}

void JsonArrayFile::add(std::string_view element) {
  file_ << (empty_ ? "\n" : ",\n") << element;
  empty_ = false;
}

void JsonArrayFile::close() {
  if (!file_.is_open()) return;
  file_ << "\n]\n";
  file_.close();
  if (!file_) throw Error("{}: could not be written completely", path_);
}

JsonResults::JsonResults(const std::string& path, std::vector<std::string> class_names)
    : file_(path), class_names_(std::move(class_names)) {}

void JsonResults::add(const ImageResult& result) {
  Json detections = Json::array();
  for (const Detection& detection : result.detections) {
    const auto id = static_cast<std::size_t>(detection.class_id);
    detections.push_back({{"class_id", detection.class_id},
                          {"label", id < class_names_.size() ? class_names_[id] : std::to_string(detection.class_id)},
                          {"score", detection.score},
                          {"box", detection.box}});
  }
  Json milliseconds = Json::object();
  for (const auto& [step, time] : result.milliseconds) milliseconds[step] = static_cast<float>(time);
  file_.add(text_of({{"image", result.image},
                     {"width", result.width},
                     {"height", result.height},
                     {"detections", std::move(detections)},
                     {"ms", std::move(milliseconds)}}));
}

CocoResults::CocoResults(const std::string& path, std::span<const std::string> class_names,
                         std::map<std::string, std::int64_t> image_ids)
    : file_(path), category_ids_(category_ids(class_names)), image_ids_(std::move(image_ids)) {}

void CocoResults::add(const ImageResult& result) {
  ++images_;
  const std::filesystem::path path(result.image);
  const auto known = image_ids_.find(path.filename().string());
  const std::int64_t image_id =
      known != image_ids_.end() ? known->second : number_in(path.stem().string()).value_or(images_);
  for (const Detection& detection : result.detections) {
    const auto& [x1, y1, x2, y2] = detection.box;
    const int category_id = category_ids_.empty() ? detection.class_id + 1
                                                  : category_ids_.at(static_cast<std::size_t>(detection.class_id));
    file_.add(text_of({{"image_id", image_id},
                       {"category_id", category_id},
                       {"bbox", {x1, y1, x2 - x1, y2 - y1}},
                       {"score", detection.score}}));
  }
}

void write_yolo_text(const std::string& path, const ImageResult& result) {
  std::ofstream file(path, std::ios::binary);
  const auto width = static_cast<float>(result.width), height = static_cast<float>(result.height);
  for (const Detection& detection : result.detections) {
    const auto& [x1, y1, x2, y2] = detection.box;
    file << fmt::format("{} {:.6f} {:.6f} {:.6f} {:.6f} {:.6f}\n", detection.class_id, (x1 + x2) / 2 / width,
                        (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, detection.score);
  }
  file.close();
  if (!file) throw Error("{}: cannot be written", path);
}

}  // namespace damoyolo
