// For the tests of hopper.h's emulation: kernels that keep a barrier and a box in shared memory, and what comes of
// launching them.
#pragma once

#include <hopper.h>

#include <string>

#include "kernels/launch.h"
#include "kernels/numeric.cuh"
#include "kernels/ptx_sm90.cuh"
#include "kernels/tensor_map.h"

namespace damoyolo::kernels {

// A barrier and, behind it, room for boxes, factors or packets.
inline std::uint32_t barrier() { return shared_address(dynamic_shared<std::uint64_t>()); }
inline std::uint32_t room() { return (barrier() + 8 + 1023) / 1024 * 1024; }

struct Launch {
  unsigned threads = 32, clusters = 2, cluster = 1;
  CUtensorMap map{};
  float* out = nullptr;
};

// The message of the error that ends the launch, or nothing.
inline std::string run(void (*kernel)(CUtensorMap, float*), const Launch& how = {}) {
  constexpr std::size_t kSharedBytes = 16 * 1024;  // as much as any test wants
  try {
    launch("test", kernel, {how.clusters * how.cluster, how.threads, kSharedBytes, how.cluster}, {}, how.map, how.out);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace damoyolo::kernels
