// A GPU's ceilings.
#pragma once

#include <cstddef>

#include "engine/ceilings.h"
#include "engine/cuda/backend.h"

namespace damoyolo::cuda {

// What is measured: larger than any cache, and enough to keep every multiprocessor busy.
struct CeilingSizes {
  std::size_t copy_bytes = std::size_t{512} << 20;
  int pixels = 8192, channels = 4096;  // of the product: [pixels, channels] by [channels, channels]; pixels: 64 n
};

// Takes a few seconds and, for that time, twice `copy_bytes` of device memory. What does not fit, or nothing can
// compute, is not measured.
Ceilings measure_ceilings(Environment& environment, const CeilingSizes& sizes = {});

}  // namespace damoyolo::cuda
