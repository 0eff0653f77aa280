// Stands in for CUDA's header of the same name: the type and what kernels do with it.
#pragma once

#include <cmath>

#include "engine/core/dtype.h"

struct __half {
  std::uint16_t bits;
};

__half __float2half_rn(float value);
inline float __half2float(__half value) { return damoyolo::float_from_f16(value.bits); }

struct __half2 {
  __half x, y;
};

inline __half2 __hmax2(__half2 a, __half2 b) {
  return {__float2half_rn(std::fmax(__half2float(a.x), __half2float(b.x))),
          __float2half_rn(std::fmax(__half2float(a.y), __half2float(b.y)))};
}
