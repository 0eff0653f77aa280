#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/coco.h"
#include "cli/command.h"
#include "cli/json_file.h"
#include "cli/options.h"
#include "cli/pipeline.h"
#include "cli/result_files.h"
#include "cli/stopwatch.h"
#include "cli/text.h"
#include "engine/core/error.h"
#include "engine/detection.h"
#include "engine/detector.h"
#include "loader/coco_annotations.h"
#include "loader/coco_eval.h"
#include "loader/progress.h"

namespace damoyolo::cli {
namespace {

struct EvalOptions {
  std::string weights, images, annotations, json;
  DetectorOptions detector;
  std::optional<double> confidence, iou;
};

std::string text_of(const std::optional<double>& precision) {
  return precision ? fmt::format("{:.4f}", *precision) : "-";
}

std::string name_of(const CocoAnnotations& truth, int category_id) {
  return std::ranges::find(truth.categories, category_id, &CocoCategory::id)->name;
}

void print(std::ostream& out, const CocoAnnotations& truth, const CocoPrecision& precision) {
  std::size_t width = 5;
  for (const CocoCategory& category : truth.categories) width = std::max(width, characters(category.name));
  fmt::print(out, "{:<{}}  {:>7} {:>7} {:>7}\n", "class", width, "AP", "AP50", "AP75");
  for (const CocoClassPrecision& row : precision.classes)
    fmt::print(out, "{:<{}}  {:>7} {:>7} {:>7}\n", name_of(truth, row.category_id), width, text_of(row.ap),
               text_of(row.ap50), text_of(row.ap75));
  const std::pair<const char*, std::optional<double>> means[] = {
      {"AP", precision.ap},          {"AP50", precision.ap50},        {"AP75", precision.ap75},
      {"small", precision.ap_small}, {"medium", precision.ap_medium}, {"large", precision.ap_large}};
  fmt::print(out, "\n");
  for (const auto& [label, value] : means) fmt::print(out, "{:>7}", label);
  fmt::print(out, "\n");
  for (const auto& [label, value] : means) fmt::print(out, "{:>7}", text_of(value));
  fmt::print(out, "\n");
}

nlohmann::ordered_json to_json(const std::optional<double>& precision) {
  return precision ? nlohmann::ordered_json(*precision) : nlohmann::ordered_json(nullptr);
}

void write_json(const std::string& path, const CocoAnnotations& truth, const CocoPrecision& precision,
                double confidence, double iou, const DeviceChoice& device) {
  nlohmann::ordered_json classes = nlohmann::ordered_json::array();
  for (const CocoClassPrecision& row : precision.classes)
    classes.push_back({{"category_id", row.category_id},
                       {"name", name_of(truth, row.category_id)},
                       {"ap", to_json(row.ap)},
                       {"ap50", to_json(row.ap50)},
                       {"ap75", to_json(row.ap75)}});
  const nlohmann::ordered_json json{{"images", truth.images.size()},
                                    {"conf", confidence},
                                    {"iou", iou},
                                    {"device", device.device},
                                    {"precision", name_of(device.precision)},
                                    {"ap", to_json(precision.ap)},
                                    {"ap50", to_json(precision.ap50)},
                                    {"ap75", to_json(precision.ap75)},
                                    {"ap_small", to_json(precision.ap_small)},
                                    {"ap_medium", to_json(precision.ap_medium)},
                                    {"ap_large", to_json(precision.ap_large)},
                                    {"classes", classes}};
  write_json_file(path, json);
}

int eval(const EvalOptions& options, Console& console) {
  require_writable({options.json}, {options.weights, options.annotations});
  CocoAnnotations truth = read_coco_annotations(options.annotations);
  if (truth.images.empty()) throw Error("{}: names no images", options.annotations);
  Detector detector(options.weights, options.detector);
  const ModelSpec& model = detector.model();
  const std::vector<std::optional<int>> categories = match_categories(truth.categories, model, options.annotations);
  const double confidence = options.confidence.value_or(model.head.nms_conf);
  const double iou = options.iou.value_or(model.head.nms_iou);
  DetectParameters parameters;
  parameters.confidence = static_cast<float>(confidence);
  parameters.iou = static_cast<float>(iou);
  parameters.max_detections = kMaxDetections;

  const std::vector<std::string> paths = image_paths(truth, options.images);

  const Stopwatch watch;
  std::vector<CocoDetection> detections;
  std::set<std::int64_t> evaluated;
  ThreadPool pool(helper_threads(options.detector.threads));
  Progress progress(paths.size(), false);
  const auto complain = [&](const std::string& message) {
    progress.hide();
    fmt::print(console.err, "damoyolo: {}\n", message);
  };

  PipelineHandlers handlers;
  handlers.processed = [&](const ProcessedImage& processed) {
    const CocoImage& image = truth.images[processed.index];
    if (image.width != processed.image.width || image.height != processed.image.height)
      complain(fmt::format("warning: {} is {}x{} pixels, and {} says {}x{}", paths[processed.index],
                           processed.image.width, processed.image.height, options.annotations, image.width,
                           image.height));
    evaluated.insert(image.id);
    add_detections(detections, image.id, processed.detections, categories);
    progress.advance();
  };
  handlers.unreadable = [&](std::size_t, const std::string& message) {
    complain(message);
    progress.advance();
  };
  process_images(detector, paths, parameters, options.detector.max_batch, pool, handlers);
  progress.hide();
  if (evaluated.empty()) throw Error("{}: none of the {} images can be read", options.images, paths.size());

  const double seconds = watch.seconds();
  keep_images(truth, evaluated);
  const CocoPrecision precision = evaluate_coco(truth, detections);
  fmt::print(console.out, "{}\n{}\n", describe(model), detector.device().reason);
  fmt::print(console.out, "{} in {:.2f} s, conf {:g}, iou {:g}\n\n", counted(evaluated.size(), "image"), seconds,
             confidence, iou);
  print(console.out, truth, precision);
  if (!options.json.empty()) write_json(options.json, truth, precision, confidence, iou, detector.device());

  return report_unreadable(paths.size() - evaluated.size(), paths.size(), "; the figures are for the others", console);
}

}  // namespace

Action add_eval(CLI::App& command) {
  const auto options = std::make_shared<EvalOptions>();
  add_weights_option(command, options->weights)->required();
  command.add_option("--images", options->images, "Folder of the images")->type_name("DIR")->required();
  command.add_option("--ann", options->annotations, "Their annotations, in COCO's format")
      ->type_name("FILE")
      ->required();
  add_threshold_options(command, options->confidence, options->iou, "the variant's", "the variant's");
  add_device_options(command, options->detector);
  add_batch_option(command, options->detector.max_batch);
  command.add_option("--json", options->json, "Write the figures to this file, too")->type_name("FILE");
  return [options](Console& console) { return eval(*options, console); };
}

}  // namespace damoyolo::cli
