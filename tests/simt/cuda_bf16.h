// Stands in for CUDA's header of the same name: the type and what kernels do with it.
#pragma once

#include <cmath>

#include "engine/core/dtype.h"

struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline __nv_bfloat16 __float2bfloat16_rn(float value) { return {damoyolo::bf16_from_float(value)}; }
inline float __bfloat162float(__nv_bfloat16 value) { return damoyolo::float_from_bf16(value.bits); }

struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline __nv_bfloat162 __hmax2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__float2bfloat16_rn(std::fmax(__bfloat162float(a.x), __bfloat162float(b.x))),
          __float2bfloat16_rn(std::fmax(__bfloat162float(a.y), __bfloat162float(b.y)))};
}
