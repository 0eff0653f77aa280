// What the engine finds in an image.
#pragma once

namespace damoyolo {

constexpr int kMaxDetections = 500;  // per image, as the training code keeps

struct Detection {
  float box[4] = {};  // x1, y1, x2, y2 in pixels of the original image, inside it
  float score = 0;    // in (0, 1)
  int class_id = 0;   // index into the model's class names
};

}  // namespace damoyolo
