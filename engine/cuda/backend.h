// A GPU as a detector's device.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/cuda/kernel_choice.h"
#include "engine/cuda/runtime.h"
#include "engine/device.h"
#include "engine/mode.h"
#include "engine/precision.h"
#include "kernels/candidates.h"
#include "weights/weights_file.h"

namespace damoyolo::cuda {

struct BackendOptions {
  Precision precision = Precision::Bf16;  // not Auto
  int max_batch = 1;                      // images that run together; more than kLargestBatch are split
  Mode mode = Mode::ReduceOverhead;
  bool allow_tf32 = false;
  bool overlap = true;        // where the GPU can: kernels start while the ones before them end
  bool pairs = true;          // one launch may compute two convolutions
  int streams = kMaxStreams;  // at most, from 1 to kMaxStreams
  // Told once when a batch did not fit into device memory and smaller ones run instead.
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  std::vector<std::string> keep_fp32;  // convolutions, as keep_fp32() takes them
  // What max-autotune may spend on one network, each convolution and each pair an equal part of it. A cap on time and
  // not on kernels: most take milliseconds, but those that a library compiles a second each.
  double tuning_seconds = 30;
};

// What a backend runs on. Tests bring their own.
struct Environment {
  std::unique_ptr<Runtime> runtime;
  CandidateSource candidates;          // may hold what the kernels need
  std::string gpu, libraries;          // as PlanKey has them
  std::filesystem::path cache_folder;  // empty: choices are not kept
  int max_candidates = kernels::kMaxCandidates;
  bool overlap = false;  // the GPU has programmatic dependent launch
};

// The GPU of that number, with the libraries found there. Throws Error when it cannot be used.
Environment open_environment(int device, KernelSource source = KernelSource::Auto,
                             Proposals proposals = Proposals::Likely);

// What computes dense convolutions on a GPU. Touches no device.
GpuKernels kernels_of(const Gpu& gpu, KernelSource source);

// The versions of what open_environment() finds.
GpuSoftware software_of(int device);

// Plans exist for these numbers of images; a request runs on the smallest that holds it.
constexpr int kLargestBatch = 32;
int batch_bucket(int images);  // 1, 2, 4, 8, 16 or 32

// Of the times, preprocess is the copy of the images to the device, network everything between the copies (resizing,
// boxes and suppression among it), postprocess the copy of the results; what overlaps counts in each. `weights` must
// outlive the backend.
std::unique_ptr<Backend> make_backend(const WeightsFile& weights, const BackendOptions& options,
                                      Environment environment);

}  // namespace damoyolo::cuda
