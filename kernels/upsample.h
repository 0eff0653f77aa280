// Nearest ×2.
#pragma once

#include "engine/core/activation.h"
#include "kernels/tensor.h"

namespace damoyolo::kernels {

// y(2h + i, 2w + j) = act(x(h, w) + other(2h + i, 2w + j)) for i, j in {0, 1}; without data, `other` is left out. y is
// [n, 2h, 2w, c] of x's type, and so is `other`, which may be y's memory.
void launch_upsample(const TensorView& x, const TensorView& other, const TensorView& y, Activation act, Stream stream);

}  // namespace damoyolo::kernels
