// The end of a sum in registers, shared by the kernels that have one.
#pragma once

#include "kernels/epilogue.h"
#include "kernels/numeric.cuh"

namespace damoyolo::kernels {

// An Epilogue as kernels see it.
template <typename T>
struct EpilogueArguments {
  const float* bias;
  bool bias_aligned;
  Activation act;
  Slice<T> residual;
  bool residual_first;
  int residual_shift;  // 1 when the residual has half the size
};

// Checks that the residual fits `y` and has type `type`.
template <typename T>
EpilogueArguments<T> epilogue_arguments(const Epilogue& epilogue, const TensorView& y, DType type,
                                        const char* kernel) {
  const TensorView& r = epilogue.residual;
  int shift = 0;
  if (r.data != nullptr) {
    require_view(r, kernel);
    shift = r.h == y.h && r.w == y.w ? 0 : 1;
    require(r.type == type && r.n == y.n && r.c == y.c && r.h << shift == y.h && r.w << shift == y.w, kernel,
            "a residual of the input's type and of the output's size or half of it");
  }
  return {epilogue.bias, is_aligned(epilogue.bias), epilogue.act, slice<T>(r), epilogue.residual_first, shift};
}

// Applies it to `count` channels of pixel (n, y, x) of the output, from `channel` on.
template <int N, typename T>
__device__ __forceinline__ void finish(const EpilogueArguments<T>& epilogue, int n, int y, int x, int channel,
                                       int count, float (&sum)[N]) {
  if (epilogue.bias != nullptr) {
    float bias[N];
    load(epilogue.bias + channel, count, epilogue.bias_aligned, bias);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += bias[i];
  }
  float residual[N] = {};
  if (epilogue.residual.data != nullptr) {
    const int shift = epilogue.residual_shift;
    load(epilogue.residual.pixel(n, y >> shift, x >> shift) + channel, count, epilogue.residual.aligned, residual);
  }
#pragma unroll
  for (int i = 0; i < N; ++i)
    sum[i] = epilogue.residual_first ? activate(sum[i] + residual[i], epilogue.act)
                                     : activate(sum[i], epilogue.act) + residual[i];
}

}  // namespace damoyolo::kernels
