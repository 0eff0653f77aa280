#include "engine/detector.h"

#include <cstdio>
#include <optional>
#include <utility>

#include "engine/core/error.h"
#include "engine/cpu/backend.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#ifdef DAMOYOLO_CUDA
#include "engine/cuda/backend.h"
#endif

namespace damoyolo {

namespace {

void require_positive(int batch, int runs) {
  if (batch < 1 || runs < 1) throw Error("{} runs of a batch of {} were asked for, expected at least 1", runs, batch);
}

// The names are looked up now, because plans are made later. In fp32 all layers are kept as they are.
std::vector<std::string> layers_to_keep(const ModelSpec& model, Precision precision,
                                        const std::vector<std::string>& names) {
  if (names.empty()) return {};
  Graph graph = build_model(model, 1, model.input_height, model.input_width).graph;
  optimize(graph);
  find_convolutions(graph, names);
  return precision == Precision::Fp32 ? std::vector<std::string>() : names;
}

std::unique_ptr<Backend> make_backend(const WeightsFile& weights, const DeviceChoice& device,
                                      const DetectorOptions& options) {
  const std::vector<std::string> keep_fp32 = layers_to_keep(weights.model(), device.precision, options.keep_fp32);
#ifdef DAMOYOLO_CUDA
  if (const std::optional<int> gpu = gpu_number(device.device)) {
    const auto warn = options.warn ? options.warn : [](const std::string& text) { fmt::print(stderr, "{}\n", text); };
    return cuda::make_backend(
        weights,
        {device.precision, options.max_batch, options.mode, options.allow_tf32, options.overlap, options.pairs,
         options.streams, warn, keep_fp32},
        cuda::open_environment(*gpu, options.kernels,
                               options.mode == Mode::MaxAutotune ? cuda::Proposals::All : cuda::Proposals::Likely));
  }
#endif
  return cpu::make_backend(weights, {device.precision, options.max_batch, options.threads, keep_fp32});
}

}  // namespace

Detector::Detector(const std::string& weights, const DetectorOptions& options)
    : weights_(std::make_unique<WeightsFile>(weights)),
      device_(choose_device(options.device, options.precision, find_gpus(),
                            [&](const Gpu& gpu) { return find_gpu_kernels(gpu, options.kernels); })) {
  if (options.max_batch < 1) throw Error("a batch of {} was asked for, expected at least 1", options.max_batch);
  if (options.streams < 1 || options.streams > kMaxStreams)
    throw Error("{} streams were asked for, expected 1 to {}", options.streams, kMaxStreams);
  if (options.height != 0 || options.width != 0) weights_->set_input_size(options.height, options.width);
  backend_ = make_backend(*weights_, device_, options);
  if (options.warmup) backend_->warm_up();
}

std::vector<Detection> Detector::detect(const ImageView& image, const DetectParameters& parameters) {
  return std::move(detect(std::span(&image, 1), parameters).front());
}

std::vector<std::vector<Detection>> Detector::detect(std::span<const ImageView> images,
                                                     const DetectParameters& parameters, StageTimes* times) {
  const auto classes = static_cast<std::size_t>(model().head.classes);
  if (!parameters.class_filter.empty() && parameters.class_filter.size() != classes)
    throw Error("the class filter has {} entries, expected {}", parameters.class_filter.size(), classes);
  return backend_->detect(images, parameters, times);
}

RawOutput Detector::forward(std::span<const std::uint8_t> images, int count, int height, int width) {
  return backend_->forward(images, count, height, width);
}

std::string Detector::plan_text(int batch) { return backend_->plan_text(batch); }

std::vector<StepTime> Detector::profile(const ProfileOptions& options) {
  require_positive(options.batch, options.repetitions);
  return backend_->profile(options);
}

RunTimes Detector::time_network(int batch, int runs) {
  require_positive(batch, runs);
  return backend_->time_network(batch, runs);
}

}  // namespace damoyolo
