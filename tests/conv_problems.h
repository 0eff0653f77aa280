// Convolutions and a device to choose kernels for.
#pragma once

#include "engine/cuda/convolution.h"
#include "engine/cuda/device_traits.h"

namespace damoyolo::cuda {

inline DeviceTraits h100() { return device_traits(kH100); }

// 3×3 over a slice of the channels of a wider buffer, into another slice; BF16.
inline ConvProblem convolution_of_slices(const Shape& in, int in_pixel_stride, const Shape& out,
                                         int out_pixel_stride) {
  ConvProblem problem;
  problem.in = in;
  problem.out = out;
  problem.in_pixel_stride = in_pixel_stride;
  problem.out_pixel_stride = out_pixel_stride;
  problem.kernel = 3;
  problem.act = Activation::Relu;
  problem.type = problem.out_type = DType::BF16;
  return problem;
}

}  // namespace damoyolo::cuda
