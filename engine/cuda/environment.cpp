#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "engine/cuda/backend.h"
#include "engine/cuda/device_runtime.h"
#include "engine/cuda/library.h"
#include "engine/cuda/own_convolution.h"
#include "engine/cuda/plan_cache.h"
#include "kernels/launch.h"

namespace damoyolo::cuda {

GpuSoftware software_of(int device) {
  GpuSoftware software;
  std::getline(std::ifstream("/sys/module/nvidia/version"), software.driver);
  const int runtime = gpu_at(find_gpus(), device).runtime;
  software.cuda = fmt::format("{}.{}", runtime / 1000, runtime % 1000 / 10);
  if (const Libraries libraries = find_libraries(); libraries.cudnn != nullptr) {
    const auto cudnn = libraries.cudnn->functions.cudnnGetVersion();
    software.cudnn = fmt::format("{}.{}.{}", cudnn / 10000, cudnn / 100 % 100, cudnn % 100);
  }
  return software;
}

GpuKernels kernels_of(const Gpu& gpu, KernelSource source) {
  GpuKernels kernels;
  const int compute_capability = 10 * gpu.major + gpu.minor;
  if (source != KernelSource::Own) {
    const Libraries libraries = find_libraries();
    kernels.report = libraries.report;
    // cuBLASLt knows 1×1 convolutions alone.
    kernels.in_fp32 = kernels.in_16_bits = libraries.cudnn != nullptr;
  }
  if (source != KernelSource::Library) {
    kernels.report.push_back(describe_own_kernels(compute_capability));
    kernels.in_16_bits |= own_kernels_run_on(compute_capability);
  }
  return kernels;
}

Environment open_environment(int device, KernelSource source, Proposals proposals) {
  const GpuList gpus = find_gpus();
  const Gpu& gpu = gpu_at(gpus, device);
  Environment environment;
  environment.runtime = open_runtime(device);
  const auto libraries = std::make_shared<Libraries>(open_libraries());
  environment.candidates = remembered([libraries, source, proposals](const ConvProblem& problem) {
    return conv_candidates(problem, *libraries, source, proposals);
  });
  environment.gpu = fmt::format("{}, {}.{}", gpu.name, gpu.major, gpu.minor);
  environment.libraries = fmt::format("driver {}, CUDA {}, {}, kernels {}", gpu.driver, gpu.runtime,
                                      fmt::join(libraries->report, ", "), name_of(source));
  environment.cache_folder = plan_cache_folder();
  environment.overlap = kernels::can_overlap();
  // Compute capability 7.5 has less shared memory to sort in.
  if (gpu.major < 8) environment.max_candidates = kernels::kMaxCandidates / 2;
  return environment;
}

}  // namespace damoyolo::cuda
