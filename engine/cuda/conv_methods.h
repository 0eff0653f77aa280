// Which ways there are to compute a convolution, and which should be fastest: a pure function of the problem and of
// what is there.
#pragma once

#include <vector>

#include "engine/cuda/conv_split.h"
#include "engine/cuda/library.h"

namespace damoyolo::cuda {

struct ConvMethod {
  enum class Kind : std::uint8_t { Depthwise, CublasLt, Cudnn };
  Kind kind{};
  ConvSplit split;
  double predicted_seconds = 0;
};

struct ConvCapabilities {
  bool cudnn = false, cublaslt = false;
  DeviceTraits device;
};

// The fastest by prediction first. A library appears once for each number of steps it can fuse, since it may have no
// engine for more. The prediction is the larger of the times that the bytes and the operations take at the device's
// peak, plus the cost of each launch.
std::vector<ConvMethod> conv_methods(const ConvProblem& problem, const ConvCapabilities& capabilities);

// What a library adds to that when it uses `workspace_bytes`: it has written them and reads them again.
double copy_seconds(std::int64_t workspace_bytes, const DeviceTraits& device);

}  // namespace damoyolo::cuda
