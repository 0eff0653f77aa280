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

// An Epilogue after its bias: residual and activation in their order, with kSilu for SiLU. for_each_sum(change) calls
// change(sum, place...) for every sum; add_residual(sum, place...), called only where there is a residual, adds the
// sum's own.
template <float (*kSilu)(float), typename T, typename ForEachSum, typename AddResidual>
__device__ __forceinline__ void activate_with_residual(const EpilogueArguments<T>& epilogue, ForEachSum for_each_sum,
                                                       AddResidual add_residual) {
  if (epilogue.residual.data != nullptr && epilogue.residual_first) for_each_sum(add_residual);
  switch (epilogue.act) {
    case Activation::None: break;
    case Activation::Relu: for_each_sum([](float& sum, auto...) { sum = fmaxf(sum, 0.0f); }); break;
    case Activation::Silu: for_each_sum([](float& sum, auto...) { sum = kSilu(sum); }); break;
  }
  if (epilogue.residual.data != nullptr && !epilogue.residual_first) for_each_sum(add_residual);
}

// Applies it to `count` channels from `channel` on of `pixels` (at most P) neighbours in row y of image n of the
// output, from column x on. All residuals are on their way before anything waits.
template <int P, int N, typename T>
__device__ __forceinline__ void finish(const EpilogueArguments<T>& epilogue, int n, int y, int x, int pixels,
                                       int channel, int count, float (&sums)[P][N]) {
  float residual[P][N];
  if (epilogue.residual.data != nullptr) {
    const int shift = epilogue.residual_shift;
#pragma unroll
    for (int p = 0; p < P; ++p)
      if (p < pixels)
        load(epilogue.residual.pixel(n, y >> shift, (x + p) >> shift) + channel, count, epilogue.residual.aligned,
             residual[p]);
  }
  const auto for_each_sum = [&](auto change) {
#pragma unroll
    for (int p = 0; p < P; ++p)
#pragma unroll
      for (int i = 0; i < N; ++i) change(sums[p][i], p, i);
  };
  if (epilogue.bias != nullptr) {
    float bias[N];
    load(epilogue.bias + channel, count, epilogue.bias_aligned, bias);
    for_each_sum([&](float& sum, int, int i) { sum += bias[i]; });
  }
  activate_with_residual<silu>(epilogue, for_each_sum, [&](float& sum, int p, int i) { sum += residual[p][i]; });
}

}  // namespace damoyolo::kernels
