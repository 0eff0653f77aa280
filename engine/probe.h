// A network that can be looked into: for tools that compare layers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/graph.h"

namespace damoyolo {

// One graph on a backend, in its precision. Nothing gives its memory to another, so a probe needs much more than a
// detector. Not thread-safe; must not outlive the backend.
class Probe {
 public:
  virtual ~Probe() = default;

  // `images`: [n, h, w, 3] RGB, as the graph says; throws Error when the length differs.
  virtual void run(std::span<const std::uint8_t> images) = 0;

  // A value of the graph after run(), as [n, h, w, c]; not the images.
  virtual std::vector<float> read(ValueId value) = 0;
};

}  // namespace damoyolo
