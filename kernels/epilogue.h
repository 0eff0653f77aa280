// What follows a convolution's sum, for results of libraries that could not do it themselves; and conversions.
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

// y has the size of x. x and y have one type, or one of them is F32; a residual has x's type. Rounds to nearest even.
// Those of one type may be the same memory: x and y, y and a residual of y's size. With an empty epilogue: y = x.
void launch_epilogue(const TensorView& x, const TensorView& y, const Epilogue& epilogue, Stream stream);

}  // namespace damoyolo::kernels
