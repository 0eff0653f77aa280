// Convolution of every channel with a filter of its own.
#pragma once

#include "kernels/epilogue.h"

namespace damoyolo::kernels {

// y = epilogue(conv(x)), padding (kernel − 1)/2, kernel 3 or 5, stride 1 or 2: y is [n, ⌈h/stride⌉, ⌈w/stride⌉, c].
// weights: on the device, [kernel·kernel, c] in x's type, taps row by row. x, y and a residual have one type. y may be
// the residual's memory, not x's.
void launch_depthwise_conv(const TensorView& x, const void* weights, int kernel, int stride, const TensorView& y,
                           const Epilogue& epilogue, Stream stream);

}  // namespace damoyolo::kernels
