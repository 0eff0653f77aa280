// Constants on the device.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

namespace damoyolo::cuda {

// A copy of bytes on the device that was current when it was made, aligned to 256 bytes. Empty when default-made.
class Uploaded {
 public:
  Uploaded() = default;
  // Throws OutOfDeviceMemory when the device has too little. Not while a stream is being captured.
  explicit Uploaded(std::span<const std::byte> bytes);
  Uploaded(Uploaded&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Uploaded& operator=(Uploaded&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~Uploaded();

  const void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

}  // namespace damoyolo::cuda
