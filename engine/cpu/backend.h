// The CPU as a detector's device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/precision.h"
#include "weights/weights_file.h"

namespace damoyolo::cpu {

struct BackendOptions {
  Precision precision = Precision::Fp32;  // Fp32 or Bf16
  int max_batch = 1;
  int threads = 0;                     // 0: as many as the process may use
  std::vector<std::string> keep_fp32;  // convolutions, as keep_fp32() takes them
};

// `weights` must outlive the backend.
std::unique_ptr<Backend> make_backend(const WeightsFile& weights, const BackendOptions& options);

}  // namespace damoyolo::cpu
