#include "cli/coco.h"

#include <algorithm>
#include <filesystem>

#include "engine/core/error.h"

namespace damoyolo::cli {

std::vector<std::optional<int>> match_categories(std::vector<CocoCategory> categories, const ModelSpec& model,
                                                 const std::string& path) {
  const auto& names = model.class_names;
  std::vector<std::optional<int>> ids(static_cast<std::size_t>(model.head.classes));
  std::ranges::sort(categories, {}, &CocoCategory::id);
  const auto class_of = [&](const CocoCategory& category) { return std::ranges::find(names, category.name); };
  const auto unknown = std::ranges::find_if(categories, [&](const auto& c) { return class_of(c) == names.end(); });
  if (unknown == categories.end()) {
    for (const CocoCategory& category : categories)
      ids[static_cast<std::size_t>(class_of(category) - names.begin())] = category.id;
  } else if (categories.size() == ids.size()) {
    std::ranges::transform(categories, ids.begin(), &CocoCategory::id);
  } else {
    throw Error("{}: has {} categories, among them \"{}\", expected the names of the model's classes or {} categories",
                path, categories.size(), unknown->name, ids.size());
  }
  return ids;
}

std::vector<std::string> image_paths(const CocoAnnotations& truth, const std::string& folder) {
  std::error_code failed;
  if (!std::filesystem::is_directory(folder, failed))
    throw Error("{}: is no folder, expected that of the annotated images", folder);
  std::vector<std::string> paths;
  for (const CocoImage& image : truth.images)
    paths.push_back((std::filesystem::path(folder) / image.file_name).string());
  return paths;
}

void keep_images(CocoAnnotations& truth, const std::set<std::int64_t>& wanted) {
  std::erase_if(truth.images, [&](const CocoImage& image) { return !wanted.contains(image.id); });
  std::erase_if(truth.annotations, [&](const CocoAnnotation& object) { return !wanted.contains(object.image_id); });
}

void add_detections(std::vector<CocoDetection>& all, std::int64_t image_id, std::span<const Detection> found,
                    const std::vector<std::optional<int>>& categories) {
  for (const Detection& detection : found) {
    const std::optional<int> category = categories[static_cast<std::size_t>(detection.class_id)];
    const double x1 = detection.box[0], y1 = detection.box[1], x2 = detection.box[2], y2 = detection.box[3];
    if (category) all.push_back({image_id, *category, {x1, y1, x2 - x1, y2 - y1}, detection.score});
  }
}

}  // namespace damoyolo::cli
