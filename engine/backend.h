// What a detector needs of a device.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/core/image.h"
#include "engine/detection.h"
#include "engine/probe.h"
#include "engine/profile.h"

namespace damoyolo {

struct DetectParameters {
  float confidence = 0.5f;         // keep score > confidence
  float iou = 0.7f;                // suppress IoU > iou with a better detection of the class
  int max_detections = 300;        // per image, at most kMaxDetections
  std::vector<bool> class_filter;  // empty, or one entry per class
};

// Every anchor of every image, before NMS.
struct RawOutput {
  int images = 0, anchors = 0, classes = 0;
  std::vector<float> scores;  // [images, anchors, classes]
  std::vector<float> boxes;   // [images, anchors, 4] x1, y1, x2, y2 in network pixels
};

// Seconds spent in one detect() call, all images together. On a GPU they come from events around the captured parts.
struct StageTimes {
  double preprocess = 0, network = 0, postprocess = 0;
};

// One model on one device. Not thread-safe; several objects in several threads are fine.
class Backend {
 public:
  virtual ~Backend() = default;

  // Detections of each image in its own pixels, by descending score. Any number of images of any sizes; they run in
  // batches of at most the configured size.
  virtual std::vector<std::vector<Detection>> detect(std::span<const ImageView> images,
                                                     const DetectParameters& parameters, StageTimes* times) = 0;

  // `images`: [count, height, width, 3] RGB at a network size of the caller's choice (multiples of 32).
  virtual RawOutput forward(std::span<const std::uint8_t> images, int count, int height, int width) = 0;

  // Makes the plans that batches of at most the configured size need, and runs each once on black pixels: on a CPU for
  // full batches alone, on a GPU for every size that has a plan, since the last images of a list may come in any.
  virtual void warm_up() = 0;

  // The plan for one batch size, as text.
  virtual std::string plan_text(int batch) = 0;

  // A network from an optimized graph of the model, in the backend's precision. No more layers are kept in fp32 than
  // the graph says.
  virtual std::unique_ptr<Probe> probe(Graph graph) = 0;

  // Every step of the plan that time_network() runs, in order, timed by itself while nothing else runs, on noise. The
  // least mean over the repetitions on a GPU, back to back with itself; the least time on a CPU, one after another.
  virtual std::vector<StepTime> profile(const ProfileOptions& options) = 0;

  // `runs` times from pixels of the network's size, where the network reads them, to the scores and boxes of every
  // anchor, where it leaves them: what forward() does, on a GPU by its own clock and without the copies. The time does
  // not depend on the weights' values. The first run is not counted.
  virtual RunTimes time_network(int batch, int runs) = 0;

  // Memory that plans and weights take. On a GPU all that the driver counts since the device was opened, the
  // libraries' share included, and what others take there meanwhile.
  virtual std::int64_t memory_bytes() const = 0;
};

}  // namespace damoyolo
