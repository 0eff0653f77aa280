// Stands in for CUDA's header of the same name: the type and the two conversions that kernels use.
#pragma once

#include "engine/core/dtype.h"

struct __half {
  std::uint16_t bits;
};

__half __float2half_rn(float value);
inline float __half2float(__half value) { return damoyolo::float_from_f16(value.bits); }
