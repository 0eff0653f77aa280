// Detections of a model beside annotations in COCO's format.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "engine/detection.h"
#include "engine/model/spec.h"
#include "loader/coco_annotations.h"
#include "loader/coco_eval.h"

namespace damoyolo::cli {

// For each class of the model its category, or nothing where the annotations have none for it. Categories go by name
// when each is the name of a class, else by the order of their ids, as files with names of their own have them.
// Throws Error naming `path` when neither fits.
std::vector<std::optional<int>> match_categories(std::vector<CocoCategory> categories, const ModelSpec& model,
                                                 const std::string& path);

// The paths of the annotated images, in their order. Throws Error when there is no such folder.
std::vector<std::string> image_paths(const CocoAnnotations& truth, const std::string& folder);

// Leaves out all other images and what is annotated in them.
void keep_images(CocoAnnotations& truth, const std::set<std::int64_t>& wanted);

// Adds what was found in one image, as COCO has it; what has no category is left out.
void add_detections(std::vector<CocoDetection>& all, std::int64_t image_id, std::span<const Detection> found,
                    const std::vector<std::optional<int>>& categories);

}  // namespace damoyolo::cli
