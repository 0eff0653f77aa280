// The public interface: a weights file in, boxes out.
//
//   damoyolo::Detector detector("digits-ns.safetensors", {.device = "auto"});
//   for (const damoyolo::Detection& found : detector.detect(image)) …
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "engine/detection.h"
#include "engine/device.h"
#include "engine/mode.h"
#include "engine/model/spec.h"
#include "weights/weights_file.h"

namespace damoyolo {

struct DetectorOptions {
  std::string device = "auto";  // "auto", "cpu", "cuda" or "cuda:N"
  Precision precision = Precision::Auto;
  int max_batch = 1;          // images that run together
  int height = 0, width = 0;  // of the network, multiples of 32; 0: as the weights file says
  // Convolutions that compute in fp32 whatever the precision: names as find_convolutions() takes them
  // (engine/passes/passes.h).
  std::vector<std::string> keep_fp32 = {};
  int threads = 0;  // CPU only; 0: as many as the process may use
  // GPU only.
  Mode mode = Mode::ReduceOverhead;
  KernelSource kernels = KernelSource::Auto;
  bool overlap = true;        // kernels may start while the ones before them end, from compute capability 9.0 on
  bool pairs = true;          // one launch may compute two convolutions: a 3×3, and a 1×1 that reads what it gives
  int streams = kMaxStreams;  // for branches of the network, at most, from 1 to kMaxStreams
  bool allow_tf32 = false;    // fp32 convolutions may round their inputs to 10 bits of mantissa
  // Make and run all plans when the detector is made (Backend::warm_up), so that the first batches find them ready.
  bool warmup = false;
  std::function<void(const std::string&)> warn = {};  // told what is no error; default: prints it on stderr
};

// Owns the weights and the plans. Not thread-safe; several detectors in several threads are fine.
class Detector {
 public:
  explicit Detector(const std::string& weights, const DetectorOptions& options = {});

  std::vector<Detection> detect(const ImageView& image, const DetectParameters& parameters = {});
  std::vector<std::vector<Detection>> detect(std::span<const ImageView> images,
                                             const DetectParameters& parameters = {}, StageTimes* times = nullptr);
  RawOutput forward(std::span<const std::uint8_t> images, int count, int height, int width);
  std::string plan_text(int batch);
  std::unique_ptr<Probe> probe(Graph graph) { return backend_->probe(std::move(graph)); }

  // For benchmarks: see Backend. Throw Error for a batch or a number of runs below 1.
  std::vector<StepTime> profile(const ProfileOptions& options = {});
  RunTimes time_network(int batch, int runs);
  std::int64_t memory_bytes() const { return backend_->memory_bytes(); }

  const WeightsFile& weights() const { return *weights_; }
  const ModelSpec& model() const { return weights_->model(); }
  const DeviceChoice& device() const { return device_; }

 private:
  std::unique_ptr<WeightsFile> weights_;
  DeviceChoice device_;
  std::unique_ptr<Backend> backend_;
};

}  // namespace damoyolo
