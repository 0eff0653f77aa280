#include "engine/cuda/conv_methods.h"

#include <algorithm>

#include "engine/cuda/cublaslt_convolution.h"
#include "engine/cuda/depthwise_convolution.h"

namespace damoyolo::cuda {
namespace {

// Relative to the device's peak. cuDNN computes grouped convolutions with kernels made for few groups.
constexpr double kDenseEfficiency = 0.6, kGroupedEfficiency = 0.05;
// cuDNN's implicit products follow the windows, which a 1×1 convolution pays for without need.
constexpr double kCudnnOverhead = 1.1;

double bytes_of(const Shape& shape, DType type) {
  return static_cast<double>(shape.elements()) * static_cast<double>(size_of(type));
}

double residual_bytes(const ConvProblem& problem) {
  switch (problem.residual) {
    case ConvProblem::Residual::None: return 0;
    case ConvProblem::Residual::Same: return bytes_of(problem.out, problem.type);
    case ConvProblem::Residual::Half: return bytes_of(problem.out, problem.type) / 4;
  }
  return 0;
}

double peak_flops(const ConvProblem& problem, const DeviceTraits& device) {
  const double tensor = problem.type != DType::F32 ? device.half_flops : problem.allow_tf32 ? device.tf32_flops : 0;
  return std::max(tensor, device.float_flops);
}

// Of the convolution and what is fused with it.
double kernel_seconds(const ConvProblem& problem, double flops_per_second, const DeviceTraits& device) {
  const double taps = static_cast<double>(problem.in.c) / problem.groups * problem.kernel * problem.kernel;
  const double flops = 2 * taps * static_cast<double>(problem.out.elements());
  const double bytes = bytes_of(problem.in, problem.type) + bytes_of(problem.out, problem.out_type) +
                       taps * problem.out.c * static_cast<double>(size_of(problem.type)) + residual_bytes(problem);
  return kLaunchSeconds + std::max(flops / flops_per_second, bytes / device.bytes_per_second);
}

double epilogue_seconds(const ConvProblem& problem, const ConvSplit& split, const DeviceTraits& device) {
  if (!split.epilogue) return 0;
  const double bytes = bytes_of(problem.out, split.first.out_type) + bytes_of(problem.out, problem.out_type) +
                       residual_bytes(problem) - residual_bytes(split.first);
  return kLaunchSeconds + bytes / device.bytes_per_second;
}

}  // namespace

std::vector<ConvMethod> conv_methods(const ConvProblem& problem, const ConvCapabilities& capabilities) {
  const DeviceTraits& device = capabilities.device;
  std::vector<ConvMethod> methods;
  const auto offer = [&](ConvMethod::Kind kind, const ConvSplit& parts, double flops_per_second, double overhead) {
    methods.push_back(
        {kind, parts,
         overhead * kernel_seconds(parts.first, flops_per_second, device) + epilogue_seconds(problem, parts, device)});
  };

  const std::size_t all = steps_of(problem).size();
  const double dense = kDenseEfficiency * peak_flops(problem, device);
  const double grouped = kGroupedEfficiency * device.float_flops;
  if (has_depthwise_kernel(problem)) offer(ConvMethod::Kind::Depthwise, split(problem, all), device.float_flops, 1);
  if (capabilities.cublaslt && is_matrix_product(problem))
    offer(ConvMethod::Kind::CublasLt, split(problem, steps_in_cublaslt(problem)), dense, 1);
  if (capabilities.cudnn) {
    const double rate = problem.groups > 1 ? grouped : dense;
    for (std::size_t fused = 0; fused <= steps_in_cudnn(problem); ++fused) {
      // Most engines of cuDNN copy tensors that are not dense and write no F32 from 16 bits. Where our kernel follows
      // anyway, it does that on the way.
      const bool whole = fused == all;
      if (whole) offer(ConvMethod::Kind::Cudnn, split(problem, fused), rate, kCudnnOverhead);
      if (!whole || problem.out_type != problem.type)
        offer(ConvMethod::Kind::Cudnn, split(problem, fused, true), rate, kCudnnOverhead);
    }
  }
  std::stable_sort(methods.begin(), methods.end(),
                   [](const ConvMethod& a, const ConvMethod& b) { return a.predicted_seconds < b.predicted_seconds; });
  return methods;
}

double copy_seconds(std::int64_t workspace_bytes, const DeviceTraits& device) {
  constexpr std::int64_t kBookkeeping = 4096;  // no tensor is as small
  if (workspace_bytes <= kBookkeeping) return 0;
  return kLaunchSeconds + 2 * static_cast<double>(workspace_bytes) / device.bytes_per_second;
}

}  // namespace damoyolo::cuda
