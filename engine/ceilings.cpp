#include "engine/ceilings.h"

#include <optional>
#include <string>

#include "engine/cpu/ceilings.h"
#include "engine/device.h"
#ifdef DAMOYOLO_CUDA
#include "engine/cuda/ceilings.h"
#endif

namespace damoyolo {

Ceilings measure_ceilings(std::string_view device, int threads) {
  [[maybe_unused]] const std::string chosen = choose_device(device, Precision::Auto).device;
#ifdef DAMOYOLO_CUDA
  if (const std::optional<int> gpu = gpu_number(chosen)) {
    cuda::Environment environment = cuda::open_environment(*gpu);
    return cuda::measure_ceilings(environment);
  }
#endif
  return cpu::measure_ceilings(threads);
}

}  // namespace damoyolo
