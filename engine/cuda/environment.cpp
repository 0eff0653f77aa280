#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "engine/cuda/backend.h"
#include "engine/cuda/device_runtime.h"
#include "engine/cuda/library.h"
#include "engine/cuda/plan_cache.h"

namespace damoyolo::cuda {

GpuSoftware software_of(int device) {
  GpuSoftware software;
  std::getline(std::ifstream("/sys/module/nvidia/version"), software.driver);
  const int runtime = gpu_at(find_gpus(), device).runtime;
  software.cuda = fmt::format("{}.{}", runtime / 1000, runtime % 1000 / 10);
  const std::unique_ptr<Runtime> current = open_runtime(device);
  if (const Libraries libraries = open_libraries(); libraries.cudnn != nullptr) {
    const auto cudnn = libraries.cudnn->functions.cudnnGetVersion();
    software.cudnn = fmt::format("{}.{}.{}", cudnn / 10000, cudnn / 100 % 100, cudnn % 100);
  }
  return software;
}

Environment open_environment(int device) {
  const GpuList gpus = find_gpus();
  const Gpu& gpu = gpu_at(gpus, device);
  Environment environment;
  environment.runtime = open_runtime(device);
  const auto libraries = std::make_shared<Libraries>(open_libraries());
  environment.candidates = [libraries](const ConvProblem& problem) { return conv_candidates(problem, *libraries); };
  environment.gpu = fmt::format("{}, {}.{}", gpu.name, gpu.major, gpu.minor);
  environment.libraries =
      fmt::format("driver {}, CUDA {}, {}", gpu.driver, gpu.runtime, fmt::join(libraries->report, ", "));
  environment.cache_folder = plan_cache_folder();
  environment.overlap = gpu.major >= 9;
  // Compute capability 7.5 has less shared memory to sort in.
  if (gpu.major < 8) environment.max_candidates = kernels::kMaxCandidates / 2;
  return environment;
}

}  // namespace damoyolo::cuda
