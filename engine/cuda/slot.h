// What a batch needs on its way through the device.
#pragma once

#include <algorithm>
#include <cstddef>

#include "engine/cuda/runtime.h"

namespace damoyolo::cuda {

// Memory that grows to the largest size it was asked for.
class Growing {
 public:
  using Allocate = Owned<std::byte> (*)(Runtime&, std::size_t);
  explicit Growing(Allocate allocate) : allocate_(allocate) {}

  std::byte* at_least(Runtime& runtime, std::size_t bytes) {
    if (memory_ == nullptr || bytes > size_) {
      release();  // first, for both may not fit
      memory_ = allocate_(runtime, std::max<std::size_t>(bytes, 1));
      size_ = bytes;
    }
    return memory_.get();
  }
  void release() {
    memory_.reset();
    size_ = 0;
  }
  std::byte* get() const { return memory_.get(); }

 private:
  Allocate allocate_;
  Owned<std::byte> memory_;
  std::size_t size_ = 0;
};

// Two take turns, so that the images of one batch are copied while the one before is computed.
struct Slot {
  explicit Slot(Runtime& runtime)
      : upload_begin(make_event(runtime, true)),
        uploaded(make_event(runtime, true)),
        begin(make_event(runtime, true)),
        end(make_event(runtime, true)),
        done(make_event(runtime, true)) {}

  Growing pinned_images{pinned_memory}, images{device_memory};
  Growing input{pinned_memory}, output{pinned_memory};  // of the network
  Owned<CUevent_st> upload_begin, uploaded, begin, end, done;
  std::size_t count = 0;  // images in flight; 0: the slot is free
  int bucket = 0;         // of the network that computes them
};

}  // namespace damoyolo::cuda
