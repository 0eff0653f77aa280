#include "engine/precision.h"

#include <array>

#include "engine/core/error.h"

namespace damoyolo {

constexpr std::array kPrecisions{Precision::Auto, Precision::Fp32, Precision::Bf16, Precision::Fp16};

Precision precision_from_name(std::string_view name) {
  for (const Precision precision : kPrecisions)
    if (name_of(precision) == name) return precision;
  throw Error("there is no precision \"{}\", expected auto, fp32, bf16 or fp16", name);
}

std::string_view name_of(Precision precision) {
  switch (precision) {
    case Precision::Auto: return "auto";
    case Precision::Fp32: return "fp32";
    case Precision::Bf16: return "bf16";
    case Precision::Fp16: return "fp16";
  }
  return "?";
}

}  // namespace damoyolo
