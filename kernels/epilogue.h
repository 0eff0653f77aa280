// What follows a convolution's sum, for results of libraries that could not do it themselves.
#pragma once

#include "engine/core/activation.h"
#include "kernels/tensor.h"

namespace damoyolo::kernels {

// With residual_first: y = act(x + bias + r), else: y = act(x + bias) + r, in fp32.
struct Epilogue {
  const float* bias = nullptr;  // one per channel, on the device; null: none
  Activation act = Activation::None;
  TensorView residual{};  // r: of y's size, or of half its height and width, read with nearest ×2; no data: none
  bool residual_first = true;
};

// y has the size of x. x's type equals y's, or y is F32, as the head wants it; a residual has x's type. x and y, or
// y and a residual of y's size, may be the same memory.
void launch_epilogue(const TensorView& x, const TensorView& y, const Epilogue& epilogue, Stream stream);

}  // namespace damoyolo::kernels
