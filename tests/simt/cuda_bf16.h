// Stands in for CUDA's header of the same name: the type and the two conversions that kernels use.
#pragma once

#include "engine/core/dtype.h"

struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline __nv_bfloat16 __float2bfloat16_rn(float value) { return {damoyolo::bf16_from_float(value)}; }
inline float __bfloat162float(__nv_bfloat16 value) { return damoyolo::float_from_bf16(value.bits); }
