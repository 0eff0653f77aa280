// Every score and every box, without a threshold.
#pragma once

#include "kernels/head.h"

namespace damoyolo::kernels {

// scores: [n, anchors, classes], sigmoids of the class logits. boxes: [n, anchors, 4], left, top, right, bottom in
// network pixels. Both fp32 on the device.
void launch_head_decode(const HeadView& head, float* scores, float* boxes, Stream stream);

}  // namespace damoyolo::kernels
