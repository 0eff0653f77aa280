#include "engine/core/dtype.h"

#include <array>
#include <cmath>
#include <cstring>
#include <utility>

namespace damoyolo {
namespace {

constexpr std::array<std::pair<DType, std::string_view>, 10> kNames{{{DType::F64, "F64"},
                                                                     {DType::F32, "F32"},
                                                                     {DType::F16, "F16"},
                                                                     {DType::BF16, "BF16"},
                                                                     {DType::I64, "I64"},
                                                                     {DType::I32, "I32"},
                                                                     {DType::I16, "I16"},
                                                                     {DType::I8, "I8"},
                                                                     {DType::U8, "U8"},
                                                                     {DType::Bool, "BOOL"}}};

template <typename T>
T read(const std::byte* element) {
  T value;
  std::memcpy(&value, element, sizeof value);
  return value;
}

}  // namespace

std::string_view name_of(DType type) {
  for (const auto& [known, name] : kNames)
    if (known == type) return name;
  return "?";
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const auto& [type, known] : kNames)
    if (known == name) return type;
  return std::nullopt;
}

float float_from_f16(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f;
  const auto mantissa = static_cast<float>(bits & 0x3ff);
  float magnitude = 0.f;
  if (exponent == 0)
    magnitude = std::ldexp(mantissa, -24);
  else if (exponent == 31)
    magnitude = mantissa == 0.f ? INFINITY : NAN;
  else
    magnitude = std::ldexp(mantissa + 1024.f, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

float element_as_float(const std::byte* element, DType type) {
  switch (type) {
    case DType::F64: return static_cast<float>(read<double>(element));
    case DType::F32: return read<float>(element);
    case DType::F16: return float_from_f16(read<std::uint16_t>(element));
    case DType::BF16: return float_from_bf16(read<std::uint16_t>(element));
    case DType::I64: return static_cast<float>(read<std::int64_t>(element));
    case DType::I32: return static_cast<float>(read<std::int32_t>(element));
    case DType::I16: return static_cast<float>(read<std::int16_t>(element));
    case DType::I8: return static_cast<float>(read<std::int8_t>(element));
    case DType::U8: return static_cast<float>(read<std::uint8_t>(element));
    case DType::Bool: return read<std::uint8_t>(element) != 0 ? 1.f : 0.f;
  }
  return 0.f;
}

}  // namespace damoyolo
