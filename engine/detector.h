// The public interface: a weights file in, boxes out.
//
//   damoyolo::Detector detector("digits-ns.safetensors", {.device = "auto"});
//   for (const damoyolo::Detection& found : detector.detect(image)) …
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "engine/detection.h"
#include "engine/model/spec.h"
#include "weights/weights_file.h"

namespace damoyolo {

enum class Precision { Auto, Fp32, Bf16, Fp16 };

// "auto", "fp32", "bf16", "fp16"; throws Error for anything else.
Precision precision_from_name(std::string_view name);
std::string_view name_of(Precision precision);

struct DetectorOptions {
  std::string device = "auto";  // "auto", "cpu", "cuda" or "cuda:N"
  Precision precision = Precision::Auto;
  int max_batch = 1;  // images that run together
  int threads = 0;    // CPU only; 0: as many as the process may use
};

// What "auto" came to, and why, in words for a person.
struct DeviceChoice {
  std::string device;     // "cpu" or "cuda:N"
  Precision precision{};  // never Auto
  std::string reason;     // "bf16: the processor has avx512_bf16 and amx_bf16"
};

// Throws Error when the asked device or precision is not there, saying what is.
DeviceChoice choose_device(const std::string& device, Precision precision);

// Owns the weights and the plans. Not thread-safe; several detectors in several threads are fine.
class Detector {
 public:
  explicit Detector(const std::string& weights, const DetectorOptions& options = {});

  std::vector<Detection> detect(const ImageView& image, const DetectParameters& parameters = {});
  std::vector<std::vector<Detection>> detect(std::span<const ImageView> images, const DetectParameters& parameters = {},
                                             StageTimes* times = nullptr);
  RawOutput forward(std::span<const std::uint8_t> images, int count, int height, int width);
  std::string plan_text(int batch);

  const WeightsFile& weights() const { return *weights_; }
  const ModelSpec& model() const { return weights_->model(); }
  const DeviceChoice& device() const { return device_; }

 private:
  std::unique_ptr<WeightsFile> weights_;
  DeviceChoice device_;
  std::unique_ptr<Backend> backend_;
};

}  // namespace damoyolo
