// This engine as bench/compare.py asks it: the requests and answers are those of bench/peers/worker.py, the options
// those of the peers.
//   build/network-bench --weights W --images FILE --device cuda --precision bf16 --mode reduce-overhead --batch 16
//                       --threads 2

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/pictures.h"
#include "cli/stopwatch.h"
#include "engine/core/error.h"
#include "engine/detector.h"
#include "loader/sources.h"
#include "weights/safetensors.h"

namespace {

using damoyolo::Detector;
using damoyolo::DetectorOptions;
using damoyolo::Error;
using damoyolo::RawOutput;
using nlohmann::json;

struct Options {
  std::string weights, images, pictures, precision, mode;
  DetectorOptions detector;
};

class Engine {
 public:
  explicit Engine(const Options& options)
      : options_(options), batch_(options.detector.max_batch), detector_(options.weights, told(options)) {
    const damoyolo::ModelSpec& model = detector_.model();
    height_ = model.input_height, width_ = model.input_width;
    const std::size_t image_bytes =
        std::size_t{3} * static_cast<std::size_t>(height_) * static_cast<std::size_t>(width_);
    images_ = damoyolo::noise(static_cast<std::size_t>(batch_) * image_bytes);
    const damoyolo::SafetensorsFile file(options.images);
    const auto given = file.contents().tensors.at("images").bytes;
    const std::size_t taken = std::min(given.size(), images_.size());
    std::transform(given.begin(), given.begin() + static_cast<std::ptrdiff_t>(taken), images_.begin(),
                   [](std::byte byte) { return static_cast<std::uint8_t>(byte); });
    checked_ = static_cast<int>(taken / image_bytes);
    forward();
  }

  // On the terms of DetectorOptions: what it warns of spoils the measurement.
  static DetectorOptions told(const Options& options) {
    DetectorOptions detector = options.detector;
    detector.allow_tf32 = options.precision == "tf32";
    detector.precision = damoyolo::precision_from_name(detector.allow_tf32 ? "fp32" : options.precision);
    detector.mode = damoyolo::mode_from_name(options.mode);
    detector.warn = [](const std::string& message) { throw Error("{}", message); };
    return detector;
  }

  json answer(const std::string& request) {
    const std::size_t space = std::min(request.find(' '), request.size());
    const std::string word = request.substr(0, space), rest = request.substr(std::min(space + 1, request.size()));
    if (word == "run") return run(std::stoi(rest));
    if (word == "end_to_end") return end_to_end(std::stoi(rest));
    if (word == "outputs") return write_outputs(rest);
    if (word == "memory") return {{"device_memory_mb", static_cast<double>(detector_.memory_bytes()) / 1e6}};
    throw Error("request \"{}\" is not known", request);
  }

 private:
  RawOutput forward() { return detector_.forward(images_, batch_, height_, width_); }

  json run(int runs) {
    detector_.time_network(batch_, kWarmUp);
    const damoyolo::RunTimes times = detector_.time_network(batch_, runs);
    return {{"alone_ms", milliseconds(times.alone)}, {"back_to_back_ms", milliseconds(times.back_to_back)}};
  }

  json end_to_end(int runs) {
    if (!pictures_)
      pictures_.emplace(damoyolo::expand_sources({options_.pictures}, std::cin), options_.detector.threads);
    std::vector<double> alone;
    for (int i = -kWarmUp; i < runs; ++i) {
      const damoyolo::cli::Stopwatch watch;
      const std::vector<damoyolo::Image> images = pictures_->decode(static_cast<std::size_t>(batch_));
      detector_.detect(std::vector<damoyolo::ImageView>(images.begin(), images.end()));
      if (i >= 0) alone.push_back(watch.seconds());
    }
    return {{"alone_ms", milliseconds(alone)}};
  }

  static std::vector<double> milliseconds(std::vector<double> seconds) {
    for (double& value : seconds) value *= 1000;
    return seconds;
  }

  // Scores and boxes of the images that were given.
  json write_outputs(const std::string& path) {
    const RawOutput output = forward();
    const auto first = [&](const std::vector<float>& values, int width) {
      const std::size_t count = static_cast<std::size_t>(checked_) * static_cast<std::size_t>(output.anchors) *
                                static_cast<std::size_t>(width);
      return damoyolo::TensorView{
          damoyolo::DType::F32, {checked_, output.anchors, width}, std::as_bytes(std::span(values).first(count))};
    };
    damoyolo::Safetensors file;
    file.tensors["scores"] = first(output.scores, output.classes);
    file.tensors["boxes"] = first(output.boxes, 4);
    damoyolo::write_safetensors(path, file);
    return json::object();
  }

  static constexpr int kWarmUp = 3;
  Options options_;
  int batch_, height_ = 0, width_ = 0, checked_ = 0;
  Detector detector_;
  std::vector<std::uint8_t> images_;
  std::optional<damoyolo::cli::Pictures> pictures_;
};

void say(const json& message) { std::cout << message.dump() << std::endl; }

int serve(const Options& options) {
  Engine engine(options);
  say({{"engine", "damoyolo"}});
  for (std::string line; std::getline(std::cin, line);) say(engine.answer(line));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Times a network on request");
  app.add_option("--weights", options.weights)->required();
  app.add_option("--images", options.images)->required();
  app.add_option("--pictures", options.pictures);
  app.add_option("--device", options.detector.device)->required();
  app.add_option("--precision", options.precision)->required();
  app.add_option("--mode", options.mode)->required();
  app.add_option("--batch", options.detector.max_batch)->required();
  app.add_option("--threads", options.detector.threads)->required();
  CLI11_PARSE(app, argc, argv);
  try {
    return serve(options);
  } catch (const std::exception& error) {
    say({{"error", error.what()}});
    return 1;
  }
}
