#include "engine/precision.h"

#include <array>

#include "engine/core/choice.h"

namespace damoyolo {

constexpr std::array kPrecisions{Precision::Auto, Precision::Fp32, Precision::Bf16, Precision::Fp16};

Precision precision_from_name(std::string_view name) { return choose("there is no precision", name, kPrecisions); }

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
