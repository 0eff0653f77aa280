// What predictions about a GPU are made from.
#pragma once

#include <cstdint>

namespace damoyolo::cuda {

// As the runtime reports it. Clocks in Hz; 0 where it does not know them, or the bus.
struct DeviceProperties {
  int compute_capability = 0;  // 10·major + minor
  int multiprocessors = 0;
  double clock = 0, memory_clock = 0;
  int memory_bus_bits = 0;
  std::int64_t l2_bytes = 0;
  std::int64_t shared_bytes = 0;  // of one multiprocessor
};

// An H100 as it sits in servers (SXM5, 80 GB), for predictions where there is none.
inline constexpr DeviceProperties kH100{90, 132, 1.98e9, 2.619e9, 5120, 50 << 20, 228 << 10};

struct DeviceTraits {
  int compute_capability = 0;  // 10·major + minor
  int multiprocessors = 0;
  double clock = 0;                       // Hz
  double bytes_per_second = 0;            // to and from device memory
  double float_flops = 0;                 // per second, fp32 without tensor cores
  double tf32_flops = 0, half_flops = 0;  // per second by tensor cores, fp32 sums; 0: no such
  std::int64_t l2_bytes = 0;
  std::int64_t shared_bytes = 0;  // of one multiprocessor
};

// Between a kernel on a stream and the next one. A guess, as conv_heuristics.cpp has them.
constexpr double kLaunchSeconds = 3e-6;

DeviceTraits device_traits(const DeviceProperties& properties);

}  // namespace damoyolo::cuda
