// Any bytes read as an image: refused with an Error, or all its pixels are there.
#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/core/error.h"
#include "loader/image.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const damoyolo::Image image = damoyolo::decode_image(std::as_bytes(std::span(data, size)), "fuzz");
    const auto pixels = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height);
    if (pixels == 0 || image.rgb.size() != 3 * pixels) __builtin_trap();
  } catch (const damoyolo::Error&) {
  }
  return 0;
}
