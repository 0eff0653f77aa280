#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <deque>
#include <filesystem>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/pipeline.h"
#include "cli/result_files.h"
#include "cli/stopwatch.h"
#include "cli/text.h"
#include "engine/core/error.h"
#include "engine/detection.h"
#include "engine/detector.h"
#include "loader/draw.h"
#include "loader/png.h"
#include "loader/progress.h"
#include "loader/results.h"
#include "loader/sources.h"

namespace damoyolo::cli {
namespace {

namespace fs = std::filesystem;

struct DetectOptions {
  std::vector<std::string> sources;
  std::string weights;
  DetectorOptions detector;
  std::optional<double> confidence, iou;
  int max_detections = DetectParameters{}.max_detections;
  std::string classes;
  std::string out = "damoyolo-out";
  std::string json, coco;
  bool save_text = false, no_draw = false, quiet = false;
};

std::string class_name(const ModelSpec& model, int id) {
  const auto i = static_cast<std::size_t>(id);
  return i < model.class_names.size() ? model.class_names[i] : std::to_string(id);
}

// The class that a name or, where no class is called so, a number stands for.
std::size_t find_class(const ModelSpec& model, std::string_view wanted) {
  const auto& names = model.class_names;
  const auto named = std::find(names.begin(), names.end(), wanted);
  if (named != names.end()) return static_cast<std::size_t>(named - names.begin());
  int id = 0;
  const auto [end, error] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), id);
  if (error == std::errc{} && end == wanted.data() + wanted.size() && id >= 0 && id < model.head.classes)
    return static_cast<std::size_t>(id);
  const std::string numbers = fmt::format("a number from 0 to {}", model.head.classes - 1);
  throw Error("--classes: there is no class \"{}\", expected {}", wanted,
              names.empty() ? numbers : numbers + " or one of " + joined(names));
}

std::vector<bool> class_filter(const ModelSpec& model, std::string_view list) {
  std::vector<bool> filter(static_cast<std::size_t>(model.head.classes));
  for (const std::string& wanted : split(list, ',')) filter[find_class(model, wanted)] = true;
  return filter;
}

// The table of boxes, a row as soon as it is known, so its columns are sized before.
class Table {
 public:
  Table(std::ostream& out, const std::vector<std::string>& images, const ModelSpec& model) : out_(out), model_(model) {
    for (const std::string& image : images) image_width_ = std::max(image_width_, characters(image));
    for (const std::string& name : model.class_names) class_width_ = std::max(class_width_, characters(name));
    fmt::print(out_, "{:<{}}  {:<{}}  {:>5}  {:>8} {:>8} {:>8} {:>8}\n", "image", image_width_, "class", class_width_,
               "score", "x1", "y1", "x2", "y2");
  }

  void add(const ImageResult& result) {
    if (result.detections.empty()) fmt::print(out_, "{:<{}}  nothing found\n", result.image, image_width_);
    for (const Detection& found : result.detections) {
      const auto& [x1, y1, x2, y2] = found.box;
      fmt::print(out_, "{:<{}}  {:<{}}  {:>5.3f}  {:>8.1f} {:>8.1f} {:>8.1f} {:>8.1f}\n", result.image, image_width_,
                 class_name(model_, found.class_id), class_width_, found.score, x1, y1, x2, y2);
    }
  }

 private:
  std::ostream& out_;
  const ModelSpec& model_;
  std::size_t image_width_ = 5, class_width_ = 5;
};

// Writes what is wanted for each image into the folder, on the threads of a pool.
class FolderWriter {
 public:
  FolderWriter(const DetectOptions& options, const ModelSpec& model, const std::vector<std::string>& images,
               ThreadPool& pool)
      : folder_(options.out), text_(options.save_text), pictures_(!options.no_draw), model_(model), pool_(pool) {
    if (!text_ && !pictures_) return;
    stems_ = output_stems(images);
    std::error_code failed;
    fs::create_directories(folder_, failed);
    if (failed) throw Error("{}: the folder cannot be made: {}", folder_.string(), failed.message());
    if (pictures_) refuse_to_overwrite(images);
  }

  ~FolderWriter() {
    for (const std::future<double>& image : writing_) image.wait();  // they use this object
  }
  FolderWriter(const FolderWriter&) = delete;
  FolderWriter& operator=(const FolderWriter&) = delete;

  // Waits while more images than threads are being written.
  void add(ImageResult result, std::size_t index, Image image) {
    if (!text_ && !pictures_) return;
    const std::string path = (folder_ / stems_[index]).string();
    if (text_) written_.push_back(path + ".txt");
    if (pictures_) written_.push_back(path + ".png");
    writing_.push_back(pool_.submit([this, path, result = std::move(result), image = std::move(image)]() mutable {
      const Stopwatch watch;
      if (text_) write_yolo_text(path + ".txt", result);
      if (pictures_) write_picture(path + ".png", result, image);
      return watch.milliseconds();
    }));
    wait_for_all_but(static_cast<std::size_t>(pool_.size()));
  }

  void finish() { wait_for_all_but(0); }

  const std::vector<std::string>& written() const { return written_; }
  double milliseconds() const { return milliseconds_; }  // of all images together

 private:
  void refuse_to_overwrite(const std::vector<std::string>& images) const {
    const FileSet read(images);
    for (const std::string& stem : stems_)
      if (const std::string picture = (folder_ / (stem + ".png")).string(); read.contains(picture))
        throw Error("{}: is an image and would be overwritten, expected another folder for the annotated pictures",
                    picture);
  }

  void write_picture(const std::string& path, const ImageResult& result, Image& image) const {
    std::vector<Annotation> annotations;
    for (const Detection& found : result.detections) {
      const auto& [x1, y1, x2, y2] = found.box;
      annotations.push_back(
          {x1, y1, x2, y2, fmt::format("{} {:.2f}", class_name(model_, found.class_id), found.score), found.class_id});
    }
    draw(image, annotations);
    write_png(path, image);
  }

  void wait_for_all_but(std::size_t count) {
    for (; writing_.size() > count; writing_.pop_front()) milliseconds_ += writing_.front().get();
  }

  const fs::path folder_;
  const bool text_, pictures_;
  const ModelSpec& model_;
  ThreadPool& pool_;
  std::vector<std::string> stems_, written_;
  std::deque<std::future<double>> writing_;
  double milliseconds_ = 0;
};

// Sums over all images.
struct Totals {
  std::size_t images = 0, unreadable = 0, detections = 0;
  std::map<std::string, double> milliseconds;

  void add(const ImageResult& result) {
    ++images;
    detections += result.detections.size();
    for (const auto& [step, time] : result.milliseconds) milliseconds[step] += time;
  }
};

void print_written(std::ostream& out, const std::string& folder, const std::vector<std::string>& paths) {
  constexpr std::size_t kListed = 20;
  if (paths.empty()) return;
  fmt::print(out, "\n");
  if (paths.size() > kListed) {
    fmt::print(out, "wrote {} files to {}, from {} to {}\n", paths.size(), folder, paths.front(), paths.back());
  } else {
    for (const std::string& path : paths) fmt::print(out, "wrote {}\n", path);
  }
}

void print_summary(std::ostream& out, const Totals& totals, double seconds) {
  fmt::print(out, "\n{}, {} in {:.2f} s: {:.1f} images/s\n", counted(totals.images, "image"),
             counted(totals.detections, "detection"), seconds, static_cast<double>(totals.images) / seconds);
  if (totals.images == 0) return;
  fmt::print(out, "ms per image:");
  const char* separator = " ";
  for (const char* step : {"decode", "preprocess", "network", "postprocess", "draw and write"}) {
    const auto time = totals.milliseconds.find(step);
    if (time == totals.milliseconds.end()) continue;
    fmt::print(out, "{}{} {:.2f}", separator, step, time->second / static_cast<double>(totals.images));
    separator = ", ";
  }
  fmt::print(out, "\n");
}

int detect(const DetectOptions& options, Console& console) {
  const std::vector<std::string> paths = expand_sources(options.sources, console.in);
  Detector detector(options.weights, options.detector);
  const ModelSpec& model = detector.model();
  DetectParameters parameters;
  if (options.confidence) parameters.confidence = static_cast<float>(*options.confidence);
  if (options.iou) parameters.iou = static_cast<float>(*options.iou);
  parameters.max_detections = options.max_detections;
  if (!options.classes.empty()) parameters.class_filter = class_filter(model, options.classes);

  ThreadPool pool(helper_threads(options.detector.threads));
  FolderWriter folder(options, model, paths, pool);
  std::vector<std::string> inputs = paths;  // they are still being read when results are written
  inputs.push_back(options.weights);
  require_writable({options.json, options.coco}, inputs);
  std::optional<JsonResults> json;
  std::optional<CocoResults> coco;
  std::optional<Table> table;
  if (!options.json.empty()) json.emplace(options.json, model.class_names);
  if (!options.coco.empty()) coco.emplace(options.coco, model.class_names);
  if (!options.quiet) {
    fmt::print(console.out, "{}\n{}\n\n", describe(model), detector.device().reason);
    table.emplace(console.out, paths, model);
  }

  const Stopwatch watch;
  Totals totals;
  Progress progress(paths.size(), options.quiet);

  PipelineHandlers handlers;
  handlers.processed = [&](ProcessedImage image) {
    ImageResult result{paths[image.index], image.image.width, image.image.height, std::move(image.detections),
                       std::move(image.milliseconds)};
    totals.add(result);
    progress.hide();
    if (table) table->add(result);
    if (json) json->add(result);
    if (coco) coco->add(result);
    folder.add(std::move(result), image.index, std::move(image.image));
    progress.advance();
  };
  handlers.unreadable = [&](std::size_t, const std::string& message) {
    ++totals.unreadable;
    progress.hide();
    fmt::print(console.err, "damoyolo: {}\n", message);
    progress.advance();
  };
  process_images(detector, paths, parameters, options.detector.max_batch, pool, handlers);

  folder.finish();
  progress.hide();
  if (json) json->close();
  if (coco) coco->close();
  if (!folder.written().empty()) totals.milliseconds["draw and write"] = folder.milliseconds();
  if (!options.quiet) {
    print_written(console.out, options.out, folder.written());
    for (const std::string& path : {options.json, options.coco}) {
      if (!path.empty()) fmt::print(console.out, "wrote {}\n", path);
    }
    print_summary(console.out, totals, watch.seconds());
  }
  return report_unreadable(totals.unreadable, paths.size(), "", console);
}

}  // namespace

Action add_detect(CLI::App& command) {
  const auto options = std::make_shared<DetectOptions>();
  command.add_option("SOURCE", options->sources, "Images, directories of images, patterns, or - for a list on stdin")
      ->type_name("")
      ->required();
  add_weights_option(command, options->weights)->required();
  add_device_options(command, options->detector);
  add_batch_option(command, options->detector.max_batch);
  add_threshold_options(command, options->confidence, options->iou, "0.5", "0.7");
  CLI::Option* max_detections =
      command.add_option("--max-det", options->max_detections, "Most detections kept in an image");
  allow_range(*max_detections, 1, kMaxDetections)->capture_default_str();
  command.add_option("--classes", options->classes, "Only these classes: names or numbers, with commas between")
      ->type_name("LIST");
  command.add_option("--out", options->out, "Folder for annotated pictures and text files")
      ->type_name("DIR")
      ->capture_default_str();
  command.add_option("--json", options->json, "Write the detections of all images to this file")->type_name("FILE");
  command.add_option("--coco", options->coco, "Write them in COCO's results format")->type_name("FILE");
  command.add_flag("--save-txt", options->save_text, "Write a text file for each image, as YOLO's tools read it");
  command.add_flag("--no-draw", options->no_draw, "Write no annotated pictures");
  command.add_flag("-q,--quiet", options->quiet, "Print errors only");
  return [options](Console& console) { return detect(*options, console); };
}

}  // namespace damoyolo::cli
