// Keeps what a capture does not survive away from captures.
#pragma once

#include <mutex>

namespace damoyolo::cuda {

// Held while a stream is captured, and while a library's handle is made or destroyed. A handle's end waits for the
// whole device, and its making may; CUDA refuses that while any stream of the device is captured, whichever thread
// captures and in whatever mode, and the capture is lost as well.
inline std::mutex& capture_mutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace damoyolo::cuda
