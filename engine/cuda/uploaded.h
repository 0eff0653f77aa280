// Constants on the device.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace damoyolo::cuda {

// Bytes on the device that was current when this was made, aligned to 256 bytes. Empty when default-made. The same
// bytes are there once, however many hold them: a network for another batch size, a detector in another thread and
// the candidates for one convolution share their weights. Nobody writes them.
class Uploaded {
 public:
  Uploaded() = default;
  // They have arrived when it returns. Throws OutOfDeviceMemory when the device has too little. Not while a stream is
  // being captured.
  explicit Uploaded(std::span<const std::byte> bytes);

  const void* data() const { return memory_.get(); }

 private:
  std::shared_ptr<const void> memory_;
};

// What all Uploaded together hold, on all devices.
std::size_t uploaded_bytes();

// Device memory of its own, zero at first, aligned to 256 bytes. Made as Uploaded is. Empty when default-made.
class ZeroedMemory {
 public:
  ZeroedMemory() = default;
  explicit ZeroedMemory(std::size_t bytes);

  void* data() const { return memory_.get(); }

 private:
  std::shared_ptr<void> memory_;
};

}  // namespace damoyolo::cuda
