// The pooling of spatial pyramid pooling: three sizes of one input, side by side.
#pragma once

#include "kernels/tensor.h"

namespace damoyolo::kernels {

// y = [pool5(x), pool9(x), pool13(x)], max-pools of stride 1 over the part of their window that lies in the image.
// y is [n, h, w, 3c] of x's type, and may be other channels of x's buffer. Inputs must not be NaN.
void launch_spp_pool(const TensorView& x, const TensorView& y, Stream stream);

}  // namespace damoyolo::kernels
