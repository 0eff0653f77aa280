#include "engine/audit.h"

#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cli/audit_report.h"
#include "cli/coco.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/pipeline.h"
#include "cli/result_files.h"
#include "cli/text.h"
#include "engine/core/error.h"
#include "engine/cpu/resize.h"
#include "engine/detection.h"
#include "engine/detector.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "loader/image.h"
#include "loader/progress.h"
#include "loader/sources.h"

namespace damoyolo::cli {
namespace {

struct AuditOptions {
  std::vector<std::string> images;
  std::string weights, annotations, json;
  DetectorOptions detector;
  std::optional<double> confidence, iou, least_snr, largest_loss;
  int max_images = 0;
};

// The images, and what is annotated in them.
struct Pictures {
  std::vector<std::string> paths;
  std::optional<CocoAnnotations> truth;  // in the order of the paths
};

Pictures find_pictures(const AuditOptions& options, Console& console) {
  Pictures pictures;
  if (options.annotations.empty()) {
    pictures.paths = expand_sources(options.images, console.in);
  } else {
    if (options.images.size() != 1)
      throw Error("{} places of images were given, expected the one folder that {} speaks of", options.images.size(),
                  options.annotations);
    pictures.truth = read_coco_annotations(options.annotations);
    pictures.paths = image_paths(*pictures.truth, options.images.front());
    if (pictures.paths.empty()) throw Error("{}: names no images", options.annotations);
  }
  if (options.max_images > 0 && pictures.paths.size() > static_cast<std::size_t>(options.max_images))
    pictures.paths.resize(static_cast<std::size_t>(options.max_images));
  return pictures;
}

// What a detector finds in each image; nothing for one that cannot be read.
using Found = std::vector<std::optional<std::vector<Detection>>>;

class Runner {
 public:
  Runner(const AuditOptions& options, const ModelSpec& model, std::vector<std::string> paths, Console& console)
      : options_(options),
        paths_(std::move(paths)),
        console_(console),
        pool_(helper_threads(options.detector.threads)) {
    parameters_.confidence = static_cast<float>(options.confidence.value_or(model.head.nms_conf));
    parameters_.iou = static_cast<float>(options.iou.value_or(model.head.nms_iou));
    parameters_.max_detections = kMaxDetections;
  }

  Found run(Detector& detector, bool complain) {
    Found found(paths_.size());
    Progress progress(paths_.size(), false);
    PipelineHandlers handlers;
    handlers.processed = [&](const ProcessedImage& image) {
      found[image.index] = image.detections;
      progress.advance();
    };
    handlers.unreadable = [&](std::size_t, const std::string& message) {
      progress.hide();
      if (complain) fmt::print(console_.err, "damoyolo: {}\n", message);
      progress.advance();
    };
    process_images(detector, paths_, parameters_, options_.detector.max_batch, pool_, handlers);
    return found;
  }

 private:
  const AuditOptions& options_;
  const std::vector<std::string> paths_;
  Console& console_;
  ThreadPool pool_;
  DetectParameters parameters_;
};

std::size_t count_read(const Found& found) {
  return static_cast<std::size_t>(std::ranges::count_if(found, [](const auto& image) { return image.has_value(); }));
}

// AP of all images that were read.
double precision_of(const Found& found, CocoAnnotations truth, const std::vector<std::optional<int>>& categories) {
  std::vector<CocoDetection> detections;
  std::set<std::int64_t> read;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!found[i]) continue;
    read.insert(truth.images[i].id);
    add_detections(detections, truth.images[i].id, *found[i], categories);
  }
  keep_images(truth, read);
  const std::optional<double> ap = evaluate_coco(truth, detections).ap;
  if (!ap)
    throw Error("nothing is annotated in the {} that could be read, so there is no AP", counted(read.size(), "image"));
  return *ap;
}

float overlap(const Detection& a, const Detection& b) {
  const float width = std::min(a.box[2], b.box[2]) - std::max(a.box[0], b.box[0]);
  const float height = std::min(a.box[3], b.box[3]) - std::max(a.box[1], b.box[1]);
  if (width <= 0 || height <= 0) return 0;
  const auto area = [](const Detection& d) { return (d.box[2] - d.box[0]) * (d.box[3] - d.box[1]); };
  return width * height / (area(a) + area(b) - width * height);
}

// Each box, the best first, takes the one of its class that it overlaps most, if that is more than half.
BoxChange compare_boxes(const Found& exact, const Found& rounded) {
  BoxChange change;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    if (!exact[i]) continue;
    std::vector<Detection> left = *rounded[i];
    change.exact += exact[i]->size();
    change.rounded += left.size();
    for (const Detection& wanted : *exact[i]) {
      const auto likeness = [&](const Detection& d) { return d.class_id == wanted.class_id ? overlap(d, wanted) : 0; };
      const auto best = std::ranges::max_element(left, {}, likeness);
      if (best == left.end() || likeness(*best) <= 0.5f) continue;
      const double difference = std::abs(double{best->score} - wanted.score);
      ++change.matched;
      change.mean_difference += difference;
      change.largest_difference = std::max(change.largest_difference, difference);
      left.erase(best);
    }
  }
  if (change.matched > 0) change.mean_difference /= static_cast<double>(change.matched);
  return change;
}

// Some of the images that could be read, from all parts of the list, at the network's size.
std::vector<NetworkImage> layer_images(const std::vector<std::string>& paths, const Found& found,
                                       const ModelSpec& model) {
  constexpr std::size_t kMost = 8;
  std::vector<std::string> readable;
  for (std::size_t i = 0; i < paths.size(); ++i)
    if (found[i]) readable.push_back(paths[i]);
  const std::size_t count = std::min(kMost, readable.size());
  std::vector<NetworkImage> images;
  for (std::size_t i = 0; i < count; ++i) {
    NetworkImage& pixels = images.emplace_back(static_cast<std::size_t>(model.input_width) *
                                               static_cast<std::size_t>(model.input_height) * 3);
    resize_bilinear(read_image(readable[i * readable.size() / count]), model.input_width, model.input_height,
                    pixels.data());
  }
  return images;
}

Target target_of(const AuditOptions& options) {
  if (options.least_snr || options.largest_loss) return {options.least_snr, options.largest_loss};
  if (options.annotations.empty()) return {40.0, std::nullopt};
  return {std::nullopt, 0.003};
}

int audit(const AuditOptions& options, Console& console) {
  require_writable({options.json}, {options.weights, options.annotations});
  const Pictures pictures = find_pictures(options, console);
  Detector rounded(options.weights, options.detector);
  const ModelSpec& model = rounded.model();
  if (rounded.device().precision == Precision::Fp32)
    throw Error("there is nothing to audit in fp32 ({}), expected bf16 or fp16", rounded.device().reason);
  DetectorOptions in_fp32 = options.detector;
  in_fp32.precision = Precision::Fp32;
  Detector exact(options.weights, in_fp32);
  std::vector<std::optional<int>> categories;
  if (pictures.truth) categories = match_categories(pictures.truth->categories, model, options.annotations);

  Runner runner(options, model, pictures.paths, console);
  const Found found = runner.run(exact, true), found_rounded = runner.run(rounded, false);
  AuditReport report;
  report.device = rounded.device().device;
  report.precision = name_of(rounded.device().precision);
  report.images = count_read(found);
  if (report.images == 0) throw Error("none of the {} could be read", counted(found.size(), "image"));
  const auto ap_of = [&](const Found& of) {
    return pictures.truth ? std::optional(precision_of(of, *pictures.truth, categories)) : std::nullopt;
  };

  Graph graph = build_model(model, 1, model.input_height, model.input_width).graph;
  optimize(graph);
  const std::vector<NetworkImage> pixels = layer_images(pictures.paths, found, model);
  report.layer_images = pixels.size();
  const Audit audit(
      graph, options.detector.keep_fp32, [&](Graph of) { return rounded.probe(std::move(of)); }, pixels);
  report.layers = audit.compare_layers();
  report.boxes = compare_boxes(found, found_rounded);
  report.exact_ap = ap_of(found);
  report.before = report.after = {audit.head_error({}), ap_of(found_rounded)};
  report.target = target_of(options);
  report.enough = report.target.met_by(report.before, report.exact_ap);
  if (!report.enough) {
    const auto nearness_with = [&](const std::vector<std::string>& keep) -> Nearness {
      Nearness nearness{audit.head_error(keep), std::nullopt};
      if (!pictures.truth) return nearness;
      DetectorOptions kept = options.detector;
      kept.keep_fp32.insert(kept.keep_fp32.end(), keep.begin(), keep.end());
      Detector detector(options.weights, kept);
      nearness.ap = ap_of(runner.run(detector, false));
      return nearness;
    };
    audit.measure_effects(report.layers);
    report.keep = shortest_list(report.layers, [&](const std::vector<std::string>& keep) {
      return report.target.met_by(nearness_with(keep), report.exact_ap);
    });
    report.after = nearness_with(report.keep);
  }

  fmt::print(console.out, "{}\n{}\n", describe(model), rounded.device().reason);
  print(console.out, report);
  if (!options.json.empty()) write_json(options.json, report);
  return report_unreadable(found.size() - report.images, found.size(), "; the figures are for the others", console);
}

}  // namespace

Action add_audit(CLI::App& command) {
  const auto options = std::make_shared<AuditOptions>();
  add_weights_option(command, options->weights)->required();
  command.add_option("--images", options->images, "Images, folders of them or patterns; with --ann, the one folder")
      ->type_name("PATH")
      ->required();
  CLI::Option* annotations =
      command.add_option("--ann", options->annotations, "Annotations in COCO's format, to measure AP")
          ->type_name("FILE");
  CLI::Option* loss =
      command.add_option("--max-ap-loss", options->largest_loss,
                         "Look for layers to keep in fp32 until no more AP is lost (default with --ann: 0.003)");
  allow_range(*loss, 0.0, 1.0)->needs(annotations);
  CLI::Option* snr = command.add_option(
      "--min-snr", options->least_snr,
      "The same until the head's outputs have this signal-to-noise ratio (default without --ann: 40)");
  allow_range(*snr, 0.0, 200.0)->type_name("DB");
  allow_range(*command.add_option("--max-images", options->max_images, "Take only the first; 0: all"), 0, 1 << 30)
      ->capture_default_str();
  add_threshold_options(command, options->confidence, options->iou, "the variant's", "the variant's");
  add_device_options(command, options->detector);
  add_batch_option(command, options->detector.max_batch);
  command.add_option("--json", options->json, "Write all figures to this file, too")->type_name("FILE");
  return [options](Console& console) { return audit(*options, console); };
}

}  // namespace damoyolo::cli
