// Between fp32 and a 16-bit type.
#pragma once

#include "kernels/tensor.h"

namespace damoyolo::kernels {

// y = x, rounded to nearest even where y is the narrower. One of them is F32, the other F16 or BF16; they have the
// same size and do not overlap.
void launch_convert(const TensorView& x, const TensorView& y, Stream stream);

}  // namespace damoyolo::kernels
