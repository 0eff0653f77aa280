// Non-maximum suppression.
#pragma once

#include "engine/detection.h"
#include "kernels/candidates.h"

namespace damoyolo::kernels {

// Per class and image, from the best candidate down: one is dropped when its intersection over union with a kept one
// of its class is above the threshold. It ends when parameters->max_detections are kept. Boxes go from network pixels
// (net_width × net_height) to those of the original image, and are clamped to it.
// list: as launch_candidates left it. parameters: one, images: n, on the device; an image of width 0 has no
// detections. detections: [n, kMaxDetections] on the device, best first, zeros after the last; counts: [n].
void launch_nms(const CandidateList& list, const DetectionParameters* parameters, const Image* images, int n,
                int net_width, int net_height, Detection* detections, int* counts, Stream stream);

}  // namespace damoyolo::kernels
