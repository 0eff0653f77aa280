#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <utility>

#include "engine/cuda/backend.h"
#include "engine/cuda/device_runtime.h"
#include "engine/cuda/library.h"
#include "engine/cuda/plan_cache.h"

namespace damoyolo::cuda {

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
  // Compute capability 7.5 has less shared memory to sort in.
  if (gpu.major < 8) environment.max_candidates = kernels::kMaxCandidates / 2;
  return environment;
}

}  // namespace damoyolo::cuda
