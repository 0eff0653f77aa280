#include "engine/detector.h"

#include <utility>

#include "engine/core/error.h"
#include "engine/cpu/backend.h"

namespace damoyolo {

Detector::Detector(const std::string& weights, const DetectorOptions& options)
    : weights_(std::make_unique<WeightsFile>(weights)), device_(choose_device(options.device, options.precision)) {
  if (options.max_batch < 1) throw Error("a batch of {} was asked for, expected at least 1", options.max_batch);
  backend_ = cpu::make_backend(*weights_, {device_.precision, options.max_batch, options.threads});
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

}  // namespace damoyolo
