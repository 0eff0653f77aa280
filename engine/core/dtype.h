// Element types of tensors in files and in memory, and the 16-bit float conversions.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace damoyolo {

enum class DType : std::uint8_t { F64, F32, F16, BF16, I64, I32, I16, I8, U8, Bool };

// Bytes of one element.
constexpr std::size_t size_of(DType type) {
  switch (type) {
    case DType::F64:
    case DType::I64: return 8;
    case DType::F32:
    case DType::I32: return 4;
    case DType::F16:
    case DType::BF16:
    case DType::I16: return 2;
    case DType::I8:
    case DType::U8:
    case DType::Bool: return 1;
  }
  return 0;
}

// The name safetensors gives a type: "F32", "BF16", …
std::string_view name_of(DType type);
std::optional<DType> dtype_from_name(std::string_view name);

// bfloat16 is the upper half of a float32. Rounds to nearest, ties to even; NaN stays NaN.
constexpr std::uint16_t bf16_from_float(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
constexpr float float_from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// IEEE 754 binary16, subnormals included.
float float_from_f16(std::uint16_t bits);

// One element of any type as float (64-bit values are rounded). `element` need not be aligned.
float element_as_float(const std::byte* element, DType type);

}  // namespace damoyolo
