#include "engine/cuda/device_traits.h"

#include <algorithm>
#include <iterator>

namespace damoyolo::cuda {

DeviceTraits device_traits(const DeviceProperties& properties) {
  // Operations per clock and multiprocessor, dense, from NVIDIA's architecture papers.
  struct Rates {
    int compute_capability;
    double half, tf32, fp32;
  };
  constexpr Rates kRates[] = {{120, 1024, 256, 256}, {100, 8192, 4096, 256}, {90, 4096, 2048, 256},
                              {89, 1024, 512, 256},  {86, 1024, 512, 256},   {80, 2048, 1024, 128},
                              {75, 1024, 0, 128},    {0, 0, 0, 128}};
  const Rates& rates = *std::find_if(std::begin(kRates), std::end(kRates) - 1, [&](const Rates& r) {
    return properties.compute_capability >= r.compute_capability;
  });
  // Where the driver does not tell. A guess ranks kernels still, what follows from nothing does not.
  constexpr double kUnknownClock = 1.5e9, kUnknownBytesPerSecond = 3e11;
  const double clock = properties.clock > 0 ? properties.clock : kUnknownClock;
  const double clocks = properties.multiprocessors * clock;
  const double bytes_per_second =
      2 * properties.memory_clock * properties.memory_bus_bits / 8;  // two transfers per clock
  DeviceTraits traits;
  traits.compute_capability = properties.compute_capability;
  traits.multiprocessors = properties.multiprocessors;
  traits.clock = clock;
  traits.bytes_per_second = bytes_per_second > 0 ? bytes_per_second : kUnknownBytesPerSecond;
  traits.float_flops = rates.fp32 * clocks;
  traits.tf32_flops = rates.tf32 * clocks;
  traits.half_flops = rates.half * clocks;
  traits.l2_bytes = properties.l2_bytes;
  traits.shared_bytes = properties.shared_bytes;
  return traits;
}

}  // namespace damoyolo::cuda
