// Any bytes read as safetensors: refused with an Error, or all its tensors can be read.
#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/core/error.h"
#include "weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto contents = damoyolo::parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz");
    for (const auto& [name, tensor] : contents.tensors)
      if (damoyolo::to_floats(tensor).size() != static_cast<std::size_t>(tensor.elements())) __builtin_trap();
  } catch (const damoyolo::Error&) {
  }
  return 0;
}
